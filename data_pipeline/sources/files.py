"""NetCDF, GRIB and Zarr files, any number, mixed and with their quirks, as one state on one grid."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from weatherfm.data_pipeline.fields.derived import Derivation, cure, resolve, with_inputs
from weatherfm.data_pipeline.fields.positions import view
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.formats.choice.rivals import one_name_each
from weatherfm.data_pipeline.formats.file_index import index_files
from weatherfm.data_pipeline.formats.files.archives import name_of
from weatherfm.data_pipeline.formats.files.identity import identities_of
from weatherfm.data_pipeline.formats.files.paths import find_files, identity
from weatherfm.data_pipeline.formats.meaning.experiments import of_one_experiment, warn_of_classes
from weatherfm.data_pipeline.formats.meaning.names import NameRules
from weatherfm.data_pipeline.formats.meaning.near_names import parts_held
from weatherfm.data_pipeline.formats.pieces import NO_MEMBER, Contents, Piece
from weatherfm.data_pipeline.formats.reading.blocks import block_bytes, blocks_of
from weatherfm.data_pipeline.formats.reading.cost import read_cost
from weatherfm.data_pipeline.formats.reading.lazy_state import Fields
from weatherfm.data_pipeline.formats.reading.selection import Selection, place_of, select
from weatherfm.data_pipeline.formats.wanted_times import Range, Span
from weatherfm.data_pipeline.formats.zarr.icechunk_repository import is_repository
from weatherfm.data_pipeline.source_config import FilesSource
from weatherfm.data_pipeline.sources.constant_fields import constant_fields, only_constant
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError
from weatherfm.home import expanded

_log = logging.getLogger(__name__)
NOTHING: Mapping[str, str] = {}
_PATTERN = frozenset("*?[:")
"""Signs of a pattern of file names, or of a name at one layer."""
_SHOWN = 10
"""Files or names that a message lists before it only counts."""


def open_source(data: DataConfig) -> SourceData:
    """Index all files and choose one field for each channel and time; reads headers and constant fields only.

    Raises:
        InputError: unreadable files (all are named), a channel no file holds, or a doubtful choice.
        OutsideError: the network failed.
    """
    assert isinstance(data.source, FilesSource)
    return open_files(data, data.source)


def open_files(
    data: DataConfig,
    source: FilesSource,
    offered: Range | None = None,
    never: Mapping[str, str] = NOTHING,
    grows: bool = False,
) -> SourceData:
    """As `open_source`, for other sources whose data are files: `source` says which, in place of `data.source`.

    Args:
        data: what to read.
        source: where, and help in reading names and units.
        offered: first and last time that hold data, where the files list more.
        never: variables (short names) that are not read even where the files hold them -> why.
        grows: Zarr stores get later times from day to day, and are the same to an interrupted run.
    """
    _refuse_constant_channels(data)
    rules = NameRules(source)
    rules.check()
    wanted = {name for name in with_inputs(data.channels) if parse_channel(name).variable.short not in never}
    wanted |= set(data.static)
    store = expanded(data.store) if data.store else None
    contents = index_files(_all_paths(source), rules, wanted, Span.of(data, offered), store)
    pieces = [piece for one in contents for piece in one_name_each(one.pieces)]
    if not data.channels:  # of a join, a part that gives constant fields alone
        _check_present(data.static, pieces, contents, "static field")
        return only_constant(data.static, source, pieces)
    derivation = resolve(data, {piece.channel for piece in pieces})
    for short, reason in never.items():
        _log.info("%s is not taken from the source: it %s; computed from others where it is asked for", short, reason)
    _check_present(derivation.stored, pieces, contents, "channel")
    _check_present(data.static, pieces, contents, "static field")
    _tell_idle_help(source, contents)
    needed = {*derivation.stored, *data.static}
    pieces = of_one_experiment([piece for piece in pieces if piece.channel in needed], source.experiment)
    selection = select(pieces, data.model_copy(update={"channels": list(derivation.stored)}), source)
    _log.info("%d of %d files hold the channels asked for", len({p.path for p in selection.pieces}), len(contents))
    blocks = blocks_of(selection, derivation, len(data.channels))
    fields = Fields(selection, derivation)
    state = view(fields, selection.times, data.channels, selection.grid, (blocks.times, blocks.channels))
    static, static_paths = constant_fields(data.static, source, pieces, selection.pieces[0])
    used = {piece.path for piece in selection.pieces} | static_paths
    warn_of_classes([one for one in contents if one.path in used])
    attributes = _provenance(data, source, contents, selection, derivation, never)
    if attributes["accumulated"]:
        state.attrs["accumulated"] = attributes["accumulated"]
    preliminary = selection.preliminary if selection.preliminary.any() else None
    return SourceData(
        state,
        static,
        attributes,
        simulated=are_simulated([one for one in contents if one.path in used]),
        preliminary=preliminary,
        cost=partial(read_cost, selection),
        block_bytes=block_bytes(selection, blocks),
        together=blocks.together,
        read_from=fields,
        place=partial(place_of, selection, derivation),
        identity=identities_of({one.path: one.access for one in contents if one.path in used}, grows),
    )


def _refuse_constant_channels(data: DataConfig) -> None:
    for name in data.channels:
        if parse_channel(name).variable.constant:
            raise InputError(f"{name} does not change with time and cannot be a channel; list it under data.static")


def _all_paths(source: FilesSource) -> list[str]:
    paths = find_files(source.paths, source.exclude)
    static = find_files(source.static_paths, (), "source.static_paths") if source.static_paths else []
    known = {identity(path) for path in paths}
    return sorted([*paths, *(path for path in static if identity(path) not in known)])


def are_simulated(contents: Sequence[Contents]) -> bool:
    """True when any of these files says that no observation stands behind its numbers; the log says so, too."""
    said = [one.path for one in contents if str(one.attributes.get("simulated", "")).lower() in ("true", "yes", "1")]
    if said:
        _log.warning("%s%s: marked as simulated, not observed", said[0], " and others" if len(said) > 1 else "")
    return bool(said)


def _check_present(names: Sequence[str], pieces: Sequence[Piece], contents: Sequence[Contents], kind: str) -> None:
    held = {piece.channel for piece in pieces}
    missing = [name for name in names if name not in held]
    if not missing:
        return
    others = sorted({text for one in contents for text in one.others})
    listed = ", ".join([*sorted(held), *others][: 3 * _SHOWN]) + (", ..." if len(others) > 3 * _SHOWN else "")
    remedy = "add files, take it out of the config, or name it with source.rename"
    if any("level not told" in text for text in others) or "orography" in held or _has_surface_z(others):
        remedy += "; where a file does not tell its level, give it: source.levels: {z: 500}"
    remedy += cure(missing, held)
    remedy += "".join(f"; {text}" for text in doubts_about(missing, contents))
    if told := [one.refused[name] for name in missing for one in contents if name in one.refused]:
        raise InputError(
            f"no {kind} {', '.join(missing)}: {'; '.join(list(dict.fromkeys(told))[:_SHOWN])}; held are "
            f"{listed or 'no known fields'}; {remedy}"
        )
    subject = "the file holds no" if len(contents) == 1 else f"none of the {len(contents)} files holds"
    raise InputError(f"{subject} {kind} {', '.join(missing)}; held are {listed or 'no known fields'}; {remedy}")


def _tell_idle_help(source: FilesSource, contents: Sequence[Contents]) -> None:
    """Warn of names that the settings help with and no file has (most are misspelt), and of choices among nothing."""
    held = {name for one in contents for piece in one.pieces for name in (piece.name, piece.channel)}
    held |= {text.split()[0] for one in contents for text in one.others}
    for setting in ("sums", "units", "levels", "rename"):
        idle = [name for name in getattr(source, setting) if name not in held and not _PATTERN & set(name)]
        if idle:
            _log.warning("source.%s speaks of %s, which no file holds: it changes nothing", setting, ", ".join(idle))
    slots = [piece.slots for one in contents for piece in one.pieces]
    told = {
        "number": any((one.numbers != NO_MEMBER).any() for one in slots),
        "lead_time": any(not np.isnan(one.leads).all() for one in slots),
        "experiment": any(one.experiments is not None for one in slots),
        "snapshot": any(is_repository(one.path) for one in contents),
    }
    for setting, known in told.items():
        if getattr(source, setting) is not None and not known:
            _log.warning(
                "source.%s changes nothing: no file says that of its fields, which are taken as they are", setting
            )


def doubts_about(missing: Sequence[str], contents: Sequence[Contents]) -> list[str]:
    """Why fields that may be the missing channels were not taken for them, each reason once."""
    told = [one.doubts[name] for name in missing for one in contents if name in one.doubts]
    held = {piece.name for one in contents for piece in one.pieces}
    held |= {text.split()[0] for one in contents for text in one.others}
    return list(dict.fromkeys([*parts_held(missing, held), *told]))


def _has_surface_z(others: Sequence[str]) -> bool:
    return any(text.endswith("(geopotential)") for text in others)


def _provenance(
    data: DataConfig,
    source: FilesSource,
    contents: Sequence[Contents],
    selection: Selection,
    derivation: Derivation,
    never: Mapping[str, str],
) -> dict[str, Any]:
    """What the manifest tells of the files; the same for the same files in any folder."""
    used = sorted({piece.path for piece in selection.pieces})
    said: dict[str, Any] = {}
    for one in contents:
        for key, value in one.attributes.items():
            said.setdefault(key, value)
    names: dict[str, dict[str, Any]] = {}
    for piece in selection.pieces:
        told = {"name": piece.name, "units": piece.units}
        names.setdefault(piece.channel, {**told, "factor": piece.conversion.factor, "offset": piece.conversion.offset})
    return {
        "files": len(used),
        "first_file": name_of(used[0]),
        "last_file": name_of(used[-1]),
        "bytes": sum(os.path.getsize(path) for path in used if os.path.isfile(path)),
        "channels": {name: names[name] for name in derivation.stored},
        "accumulated": [name for name in data.channels if parse_channel(name).variable.accumulated],
        "accumulation": {name: window.to_dict() for name, window in selection.windows.items()}
        | derivation.windows(selection.times),
        "derived": derivation.provenance(),
        "kinds": list(source.kinds),
        "means": {piece.channel: piece.mean for piece in selection.pieces if piece.mean},
        "experiment": source.experiment,
        **({"not_taken": dict(never)} if never else {}),
        **({"missing_chunks": "fill"} if source.missing_chunks == "fill" else {}),
        "number": source.number,
        "lead_time_hours": source.lead_time,
        "attributes": dict(sorted(said.items())),
    }
