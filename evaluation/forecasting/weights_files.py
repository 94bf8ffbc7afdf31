"""The weights files that a forecast is made with: one, or those that `forecast.members` names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.model_facts import ModelFacts, require_ensemble
from weatherfm.home import expanded
from weatherfm.model.adapter import ADAPTER, base_of, open_weights
from weatherfm.model.weights import header_of, open_tensors, read_header, weights_hash

WEIGHTS = "weights.safetensors"
"""Their name in a run's folder."""


@dataclass(frozen=True, eq=False)
class WeightsFile(ModelFacts):
    """Weights that lie in a file."""

    path: Path
    base: Path | None = None
    """Weights that an adapter belongs to."""

    def origin(self) -> dict[str, Any]:
        """What the forecast says about them."""
        return {"weights_sha256": weights_hash(self.path), "training": self.provenance}


def member_files(names: Sequence[str]) -> list[Path]:
    """The files that `forecast.members.weights` means, in its order; those of a pattern by their names.

    Raises:
        InputError: a pattern that matches nothing, a folder without weights, or one file twice.
    """
    found = [path for name in names for path in _files_of(name)]
    for i, path in enumerate(found):
        if path.resolve() in {other.resolve() for other in found[:i]}:
            raise InputError(f"forecast.members names {path} twice, and both would be the same; name each file once")
    return found


def absent_members(names: Sequence[str]) -> list[str]:
    """Those of `forecast.members.weights` that no file is there of, as before training."""
    return [name for name in names if not (places := _places(name)) or not all(map(_is_trained, places))]


def _is_trained(place: Path) -> bool:
    return bool(_in_folder(place)) and not _unfinished(place)


def _files_of(name: str) -> list[Path]:
    places = _places(name)
    if not places:
        what = f"nothing matches {name}" if has_magic(name) else f"no weights file {name}"
        raise InputError(f"forecast.members: {what}; name weights files that are there")
    if empty := [place for place in places if not _in_folder(place)]:
        raise InputError(
            f"forecast.members: the folder {empty[0]} has no {WEIGHTS}, and no seed0/{WEIGHTS}; name that of a run "
            f"that has been trained, or a pattern of weights files, as {empty[0]}/*/{WEIGHTS}"
        )
    if early := [one for place in places for one in _unfinished(place)]:
        raise InputError(
            f"forecast.members: {', '.join(map(str, early))} has no {WEIGHTS} yet, beside seeds that have: weatherfm "
            f"train --seeds goes on with it; or name the files that are to be members, as {early[0].parent}/*/{WEIGHTS}"
        )
    return [file for place in places for file in _in_folder(place)]


def _places(name: str) -> list[Path]:
    """Files and folders that a name or a pattern means, as far as they are there."""
    text = str(expanded(name))
    if Path(text).exists():
        return [Path(text)]
    return sorted(map(Path, glob(text, recursive=True)), key=_as_counted)


def _in_folder(place: Path) -> list[Path]:
    """The weights of a run's folder, or of its trainings by seed where it has none of its own; a file as it is."""
    if not place.is_dir():
        return [place]
    own = [place / name for name in (WEIGHTS, ADAPTER) if (place / name).is_file()]
    return own[:1] or [file for seed in _seeds_of(place) for file in _in_folder(seed)]


def _seeds_of(place: Path) -> list[Path]:
    """The folders of a run's trainings by seed, finished or not."""
    return [one for one in sorted(place.glob("seed*"), key=_as_counted) if one.is_dir()]


def _unfinished(place: Path) -> list[Path]:
    """Of a run's trainings by seed, where they are the members, those without weights."""
    files = _in_folder(place)
    return [] if place in [file.parent for file in files] else [one for one in _seeds_of(place) if not _in_folder(one)]


def _as_counted(path: Path) -> list[tuple[int, str]]:
    """Sorts seed2 before seed10."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def require_listed(weights: Path, config: ForecastConfig) -> None:
    """Refuse members that leave out the weights which are forecast with.

    Raises:
        InputError: there are such members.
    """
    if config.members is None or not config.members.weights:
        return
    files = [path.resolve() for path in member_files(config.members.weights)]
    if expanded(weights).resolve() not in files:
        raise InputError(
            f"{weights} is not among forecast.members ({', '.join(config.members.weights)}), which alone make the "
            "ensemble; list it too, or forecast with one of those"
        )


def open_weights_files(weights: Path, config: ForecastConfig, base: Path | None = None) -> tuple[WeightsFile, ...]:
    """The weights that a forecast is made with, by their headers.

    Args:
        weights: file; of no effect where members name their own.
        config: members among others.
        base: weights that adapters belong to.

    Raises:
        InputError: no weights, an adapter without its base, or members that do not fit together.
    """
    several = config.members is not None and config.members.weights
    paths = member_files(config.members.weights) if several and config.members else [weights]
    if several:
        _require_same_variables(paths)
    opened = tuple(_open(path, base, bool(several)) for path in paths)
    if several and base is not None and all(one.base is None for one in opened):
        raise InputError(f"none of forecast.members is an adapter, and base {base} is for one; leave base out")
    require_ensemble(opened, config)
    return opened


def require_different(files: Sequence[WeightsFile], hashes: Sequence[str], config: ForecastConfig) -> None:
    """Refuse copies of one file as members that nothing else makes differ.

    Args:
        files: of the members.
        hashes: SHA-256 of each.
        config: of the forecast.

    Raises:
        InputError: naming both.
    """
    if config.dropout or config.perturbation is not None:
        return
    for i, (file, sha256) in enumerate(zip(files, hashes, strict=True)):
        if sha256 in hashes[:i] and not file.model.noise:
            raise InputError(
                f"forecast.members: {files[hashes.index(sha256)].name} and {file.name} hold the same weights, and "
                "their members would be the same; name each once"
            )


def _open(path: Path, base: Path | None, among_others: bool) -> WeightsFile:
    """`among_others`: whole weights may stand beside adapters, which a base is for."""
    config, domain, provenance = read_header(path)
    base = None if among_others and base_of(path) is None else base
    with open_weights(path, base):
        pass  # both are there, and go together
    return WeightsFile(str(path), config, domain, provenance, path, base)


def _require_same_variables(paths: Sequence[Path]) -> None:
    """Refuse files that mean different variables by one name, before the first of them is taken as its meaning."""
    known: dict[str, tuple[Path, Any]] = {}
    for path in paths:
        for name, told in _own_variables(path).items():
            first, meaning = known.setdefault(name, (path, told))
            if meaning != told:
                keys = sorted(key for key in {*told, *meaning} if told.get(key) != meaning.get(key))
                shown = ", ".join(f"{key} {told.get(key)!r}, not {meaning.get(key)!r}" for key in keys)
                raise InputError(
                    f"{path} cannot be a member beside {first}: its variable {name} has {shown}; members of an "
                    "ensemble forecast the same fields"
                )


def _own_variables(path: Path) -> Mapping[str, Mapping[str, Any]]:
    with open_tensors(path) as file:
        told: Mapping[str, Any] = header_of(path, file)["domain"].get("variables", {})
    return told
