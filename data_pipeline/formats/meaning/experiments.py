"""Experiments (expver) that fields belong to: fields of two are never mixed unasked.

Only final and preliminary ERA5 (0001 and 0005) are one record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from weatherfm.data_pipeline.formats.pieces import Contents, Piece
from weatherfm.errors import InputError

_log = logging.getLogger(__name__)
_ERA5 = ("0001", "0005")
_SHOWN = 8


def experiment_name(said: Any) -> str:
    """`0001` of 1, `1` and b"0001"; empty where nothing is said."""
    if isinstance(said, float):
        said = int(said) if said == said else ""
    text = (said.decode() if isinstance(said, bytes) else str(said)).strip()
    return text.zfill(4) if text.isdigit() else text


def experiment_names(said: Iterable[Any]) -> np.ndarray:
    """[field] names."""
    return np.array([experiment_name(one) for one in said], "U16")


def record_of(name: str) -> str:
    """The record that an experiment is part of; of ERA5 the final fields and the preliminary ones."""
    return _ERA5[0] if name in _ERA5 else name


def groups_of(names: Sequence[str]) -> list[list[int]]:
    """Positions of the experiments that may be merged with each other."""
    records = [record_of(name) for name in names]
    return [[i for i, record in enumerate(records) if record == one] for one in dict.fromkeys(records)]


def of_one_experiment(pieces: Sequence[Piece], asked: str | None) -> list[Piece]:
    """The fields of the experiment asked for; fields whose files name none stay.

    Raises:
        InputError: several experiments and none asked for, or one that no file holds.
    """
    held: dict[str, str] = {}  # name -> a file
    for piece in pieces:
        for name in [] if piece.slots.experiments is None else np.unique(piece.slots.experiments).tolist():
            held.setdefault(name, piece.path)
    held.pop("", None)
    if asked is None:
        if len({record_of(name) for name in held}) > 1:
            raise InputError(
                f"files hold fields of different experiments ({_listed(held)}), which are never mixed; choose one, "
                f"e.g. source.experiment: '{min(held)}'"
            )
        return list(pieces)
    if held and asked not in held:
        raise InputError(
            f"source.experiment is {asked!r}, but the files hold {_listed(held)}; choose one of these or leave it out"
        )
    kept = [piece for one in pieces if len((piece := _only(one, asked)).slots.times)]
    if lacking := sorted({piece.channel for piece in pieces} - {piece.channel for piece in kept}):
        raise InputError(f"no file holds {', '.join(lacking)} of experiment {asked}; choose another, or add its files")
    return kept


def warn_of_classes(contents: Sequence[Contents]) -> None:
    """Say that fields of different archives, such as ERA5 and operations, are taken as one record.

    Both call their experiment 0001, so that nothing else tells them apart; there are records made so on purpose.
    """
    held: dict[str, str] = {}
    for one in contents:
        for name in sorted(one.classes):
            held.setdefault(name, one.path)
    if len(held) > 1:
        _log.warning(
            "files hold fields of different archives (class %s), taken as one record: ea is ERA5, od ECMWF's "
            "operations, ei ERA-Interim; leave some out (source.exclude) if they are not one", _listed(held),
        )  # fmt: skip


def _only(piece: Piece, asked: str) -> Piece:
    names = piece.slots.experiments
    if names is None:
        return piece
    keep = (names == asked) | (names == "")
    return piece if keep.all() else replace(piece, slots=piece.slots.keep(keep))


def _listed(held: dict[str, str]) -> str:
    some = [f"{name} in {held[name]}" for name in sorted(held)[:_SHOWN]]
    return ", ".join(some) + (", ..." if len(held) > _SHOWN else "")
