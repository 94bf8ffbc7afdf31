"""What each of many files holds, told by their headers: GRIB files side by side, the members of ZIP archives, too."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from weatherfm.data_pipeline.formats.datasets.index import index_dataset
from weatherfm.data_pipeline.formats.files.archives import unpacked
from weatherfm.data_pipeline.formats.files.identity import stamp_of
from weatherfm.data_pipeline.formats.files.paths import Format, recognise
from weatherfm.data_pipeline.formats.grib.channel import Meanings
from weatherfm.data_pipeline.formats.grib.kept_index import KeptIndex
from weatherfm.data_pipeline.formats.grib.reader import contents_of_grib
from weatherfm.data_pipeline.formats.meaning.kinds import warn_of_means
from weatherfm.data_pipeline.formats.meaning.names import NameRules
from weatherfm.data_pipeline.formats.pieces import Contents
from weatherfm.data_pipeline.formats.wanted_times import Span
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import is_repository
from weatherfm.data_pipeline.formats.zarr.opening import is_address
from weatherfm.errors import InputError

_SHOWN = 10
"""Files that a message lists before it only counts."""
_THREADS = 8
"""That read headers of GRIB files: they wait for disks, mostly."""


def index_files(
    paths: Sequence[str], rules: NameRules, wanted: Collection[str], span: Span, store: Path | None = None
) -> list[Contents]:
    """What each file holds of the channels `wanted`, at times inside `span`; reads headers only.

    GRIB files are read by threads, and their headers are kept beside `store`; NetCDF's library is not for threads.

    Raises:
        InputError: files that cannot be read, all of them in one message.
        OutsideError: the network failed.
    """
    contents: list[Contents] = []
    bad: list[str] = []
    kept = KeptIndex(store)
    with (
        tqdm(total=len(paths), desc="reading headers", unit="file", disable=None, leave=False) as progress,
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        indexing = _Indexing(rules, wanted, span, kept, Meanings(rules, wanted))
        try:
            for path, read in [(path, indexing.begin(path, threads)) for path in paths]:
                try:
                    contents += read()
                except InputError as error:
                    bad.append(f"{path}: {error}")
                except OSError as error:
                    bad.append(f"{path}: it cannot be read ({error})")
                progress.update()
        finally:
            threads.shutdown(cancel_futures=True)
            kept.save()
    if bad:
        more = f"\n  ... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise InputError(
            f"{len(bad)} of {len(paths)} files cannot be used:\n  "
            + "\n  ".join(bad[:_SHOWN])
            + f"{more}\nmend or remove them, or leave them out with source.exclude"
        )
    warn_of_means(contents)
    return contents


@dataclass(frozen=True)
class _Indexing:
    rules: NameRules
    wanted: Collection[str]
    span: Span
    kept: KeptIndex
    meanings: Meanings

    def begin(self, path: str, threads: ThreadPoolExecutor) -> Callable[[], list[Contents]]:
        """A function that gives what a file holds; of a GRIB file, a thread has been set to it."""
        try:
            format = _format_of(path)
        except (InputError, OSError) as error:
            return partial(_refuse, error)
        if format == "grib":
            return threads.submit(self._read, path, format).result
        return partial(self._read, path, format)

    def _read(self, path: str, format: Format) -> list[Contents]:
        if format == "grib":
            stamp = stamp_of(path)  # before reading: a change while it is read is noticed
            return [contents_of_grib(path, stamp, self.kept.grib(path, stamp), self.meanings)]
        if format != "zip":
            return [index_dataset(path, format, self.rules, self.wanted, self.span)]
        source = self.rules.source
        return [self._member(member) for member in unpacked(path, source.cache, source.exclude)]

    def _member(self, member: str) -> Contents:
        try:
            format = _format_of(member)
            if format == "zip":
                raise InputError("it is a ZIP archive in a ZIP archive; unpack the outer one")
            return self._read(member, format)[0]
        except InputError as error:
            raise InputError(
                f"it is a ZIP archive whose member {os.path.basename(member)} is no use: {error}"
            ) from None


def _format_of(path: str) -> Format:
    if not (is_address(path) or os.access(path, os.R_OK) or is_repository(path)):
        raise InputError("it may not be read (permission denied)")
    return recognise(path)


def _refuse(error: Exception) -> list[Contents]:
    raise error
