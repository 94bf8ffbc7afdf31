"""Flip one random bit of a store, a weights file or a forecast, and see what train, forecast and evaluate make of it.

    python tests/kills/flip_bits.py --flips 100

Each time one file of the run is another by one bit. A verb then either refuses it with a message, or ends with what it
ends with when nothing is changed: the bytes of the weights, the fields, the scores. Anything else is SILENT (other
results, status 0) or a FAULT (an error that is not the user's), and the script ends with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import toy_run

import weatherfm
from weatherfm.cli import run_command
from weatherfm.data_pipeline.formats.datasets import reader
from weatherfm.data_pipeline.formats.zarr import folder_values, shard_index

_CACHED: tuple[Any, ...] = (
    reader._open, folder_values._open, folder_values._metadata, shard_index._array, shard_index._present,
)  # fmt: skip
VERBS = {"store": ("train", "forecast", "evaluate"), "weights": ("forecast", "train from"), "forecast": ("evaluate",)}
"""What reads each kind of file."""


class Run:
    """A small run in a folder, finished; verbs write beside it what they make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        toy_run.make_store(folder)
        settings = toy_run.run_settings(folder, steps=2, validate_every=2, checkpoint_every=2, validation_samples=2)
        settings["data"]["test"] = "2000-01-22/2000-01-24"
        settings["data"]["validation"] = "2000-01-21"
        settings["forecast"] = {"lead_times": ["6h", "12h"], "device": "cpu"}
        settings["evaluation"] = {"resamples": 100, "spectra": False}
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        shutil.rmtree(folder / "store.zarr")
        _prepare(settings)
        self._command("train", "run.yaml")
        self._command("forecast", "run.yaml")
        self.results = {verb: self.result(verb) for verbs in VERBS.values() for verb in verbs}

    def files(self, kind: str) -> list[Path]:
        """Those of a store, weights or a forecast."""
        place = {"store": "store.zarr", "weights": "run/weights.safetensors", "forecast": "run/forecast.zarr"}[kind]
        found = self.folder / place
        return [found] if found.is_file() else sorted(path for path in found.rglob("*") if path.is_file())

    def result(self, verb: str) -> object:
        """What a verb makes now, as far as it is to be the same."""
        for cached in _CACHED:
            cached.cache_clear()  # as another process
        makers = {"train": self._train, "train from": self._train_from}
        return (makers | {"forecast": self._forecast, "evaluate": self._evaluate})[verb]()

    def _train(self, *more: str) -> object:
        shutil.rmtree(self.folder / "again", ignore_errors=True)
        self._command("train", "run.yaml", f"run={self.folder / 'again'}", *more)
        made = load_file(self.folder / "again/weights.safetensors")
        return {name: value.numpy().tobytes() for name, value in made.items()}

    def _train_from(self) -> object:
        return self._train(f"training.start_from={{weights: {self.folder / 'run/weights.safetensors'}}}")

    def _forecast(self) -> object:
        shutil.rmtree(self.folder / "new.zarr", ignore_errors=True)
        self._command("forecast", "run.yaml", "--output", str(self.folder / "new.zarr"))
        made = weatherfm.open_forecast(self.folder / "new.zarr").load()
        return {name: made[name].values.tobytes() for name in made.variables}

    def _evaluate(self) -> object:
        (self.folder / "new.nc").unlink(missing_ok=True)
        self._command("evaluate", "run.yaml", "--output", str(self.folder / "new.nc"))
        scores = weatherfm.open_scores(self.folder / "new.nc")
        return {name: np.asarray(scores[name].values).tolist().__repr__() for name in scores.variables}

    def _command(self, *arguments: str) -> None:
        """One verb.

        Raises:
            Refused: with a message.
            AssertionError: it failed otherwise.
        """
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()), _inside(self.folder):
            status = run_command(list(arguments))
        text = told.getvalue()
        if status == 2:
            raise Refused(text[text.rfind("weatherfm:") :])
        assert status == 0, text[-2000:]


class Refused(Exception):
    """A verb ended with a message; the text is that."""


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _prepare(settings: dict) -> None:
    from weatherfm.config import parse_settings
    from weatherfm.data_pipeline.prepare import prepare
    from weatherfm.data_pipeline.store_config import DataConfig

    prepare(parse_settings(DataConfig, settings["data"], "toy run"), toy_run.waves())


def flipped(file: Path, random_numbers: random.Random, work: Callable[[], str]) -> str:
    """What `work` says while one bit of a file is another; the file is put back."""
    whole = file.read_bytes()
    content = bytearray(whole)
    content[random_numbers.randrange(len(content))] ^= 1 << random_numbers.randrange(8)
    file.write_bytes(content)
    try:
        return work()
    finally:
        file.write_bytes(whole)


def outcome(run: Run, verb: str) -> tuple[str, str]:
    """(same, refused, SILENT or FAULT; what was said) of a verb on files as they are."""
    try:
        found = run.result(verb)
    except Refused as told:
        return "refused", str(told)
    except Exception as error:  # noqa: BLE001 - counted
        return "FAULT", f"{type(error).__name__}: {error}"
    return ("same", "") if found == run.results[verb] else ("SILENT", "")


def main(flips: int, seed: int, verbose: bool) -> int:
    """Flip bits, and show what came of it by kind of file and verb; the exit status."""
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)
    numbers, table = random.Random(seed), Counter[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(Path(temporary))
        for i in range(flips):
            kind = ("store", "store", "weights", "forecast")[i % 4]
            files = run.files(kind)  # by turns each file as likely as another, and each byte
            sizes = [path.stat().st_size if i % 8 < 4 else 1 for path in files]
            (file,) = numbers.choices(files, sizes)

            def look(kind: str = kind, file: Path = file) -> str:
                for verb in VERBS[kind]:
                    what, told = outcome(run, verb)
                    table[kind, verb, what] += 1
                    if verbose or what in ("SILENT", "FAULT"):
                        print(f"{file.relative_to(run.folder)}, {verb}: {what} {told[:300]}", flush=True)
                return ""

            flipped(file, numbers, look)
    print(f"{'file':<10}{'verb':<12}{'same':>6}{'refused':>9}{'SILENT':>8}{'FAULT':>7}")
    for kind, verbs in VERBS.items():
        for verb in verbs:
            row = [table[kind, verb, what] for what in ("same", "refused", "SILENT", "FAULT")]
            print(f"{kind:<10}{verb:<12}{row[0]:>6}{row[1]:>9}{row[2]:>8}{row[3]:>7}")
    return int(any(count for (_, _, what), count in table.items() if what in ("SILENT", "FAULT")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    sys.exit(main(arguments.flips, arguments.seed, arguments.verbose))
