"""Scores of several files side by side: refused unless they were made alike, or labelled where they were not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.names import BASELINES
from weatherfm.evaluation.results.across_files import add_tests
from weatherfm.evaluation.results.lookup import provenance_of

_ATTRIBUTES = ("format", "code_version")
_RECORD = (
    "weights",
    "climatology_period",
    "climatology_window_days",
    "statistics_period",
    "missing_data",
    "simulated",
)
_DEFINED_BY_NAME = {"regions": "region", "baselines": "baseline"}
"""Entries of the record that define things by name, and what to call one: those in both files must agree."""
_COMMON_DIMS = ("period", "region", "lead_time", "channel")
"""Dims along which only what all files hold is compared; along others, such as events, nothing is dropped."""
_OWN_DIMS = ("forecast", "reference")
_SAME_TRUTH = 1e-6
"""Relative difference between two scores of one baseline that rounding explains."""


def differences_between(first: xr.Dataset, second: xr.Dataset) -> list[str]:
    """Everything in which two sets of scores were made otherwise, as `what (first / second)`; empty where alike.

    Raises:
        InputError: no channel, lead time, region or period in common.
    """
    found = [
        f"{key} ({first.attrs.get(key)} / {second.attrs.get(key)})"
        for key in _ATTRIBUTES
        if first.attrs.get(key) != second.attrs.get(key)
    ]
    held, other = provenance_of(first), provenance_of(second)
    found += [f"{key} ({held.get(key)} / {other.get(key)})" for key in _RECORD if held.get(key) != other.get(key)]
    for key, word in _DEFINED_BY_NAME.items():
        found += _other_definitions(word, held.get(key) or {}, other.get(key) or {})
    grids = [Grid(scores["latitude"].values, scores["longitude"].values) for scores in (first, second)]
    if grids[0] != grids[1]:
        found.append(f"grid ({grids[0]} / {grids[1]})")
    times = [scores["init_time"].values for scores in (first, second)]
    if not np.array_equal(times[0], times[1]):
        found.append(f"initial times ({_span(times[0])} / {_span(times[1])})")
    if found:  # explains other scores of the baselines, too
        return found
    _refuse_disjoint([first, second])
    shared = [name for name in _baselines(first) if name in _baselines(second)]
    if odd := [name for name in shared if not _same_scores(first, second, name)]:
        what = "truth" if set(odd) & set(BASELINES) else "baselines"
        found.append(f"{what} (the scores of {' and '.join(odd)} differ)")
    return found


def merge_scores(datasets: Sequence[xr.Dataset], names: Sequence[str], force: bool = False) -> xr.Dataset:
    """The forecasts of several score files in one dataset, on the channels, lead times, regions and periods of all.

    Baselines are there once, as the first file that has them scored them. Where another file scored one otherwise
    (forced only), its own is there too, under that file's name, and its models are held against that. A forecast whose
    name another one has becomes `name (file)`. A variable that a file lacks is NaN for its forecasts. Forecasts of
    different files are tested against each other by the scores of every case (`evaluation.series`); without these in
    both, or forced, p-values and intervals between them are NaN.

    Args:
        datasets: as `read_scores` gives them, one or more. Initial times and grid, and the record but for its
            forecasts, are those of the first.
        names: of the files.
        force: merge what cannot be compared; attribute `differences` then lists, in JSON, in what the files differ.

    Raises:
        InputError: files that are not alike and not forced, with all differences; nothing in common.
    """
    names = _told_apart(names)
    differences = [
        f"{names[0]} / {name}: {difference}"
        for name, scores in zip(names[1:], datasets[1:], strict=True)
        for difference in differences_between(datasets[0], scores)
    ]
    if differences and not force:
        raise InputError(
            f"these scores cannot be compared, they differ. {'; '.join(differences)}. Evaluate the forecasts together, "
            "or compare them all the same with --force: the report then says in what they differ"
        )
    _refuse_disjoint(datasets)
    first = {"init_time": datasets[0]["init_time"]}
    common = [scores.sel(_common_labels(datasets)).reindex(first) for scores in datasets]
    renamed = [_names_in_merged(common, names, i) for i in range(len(common))]
    parts = [_renamed(scores, new) for scores, new in zip(common, renamed, strict=True)]
    merged = _side_by_side(parts)
    if not differences:
        merged = add_tests(merged, [part["forecast"].values.tolist() for part in parts])
    merged.attrs = dict(datasets[0].attrs)
    records = [provenance_of(scores) for scores in datasets]
    merged.attrs["provenance"] = json.dumps(_merged_record(records, renamed), sort_keys=True)
    if any(scores.attrs.get("simulated") == "true" for scores in datasets):
        merged.attrs["simulated"] = "true"
    if differences:
        merged.attrs["differences"] = json.dumps(differences)
    return merged


def _refuse_disjoint(datasets: Sequence[xr.Dataset]) -> None:
    common = _common_labels(datasets)
    if empty := [dim for dim, labels in common.items() if not len(labels)]:
        held = [f"{', '.join(map(_word, scores[empty[0]].values))}" for scores in datasets]
        raise InputError(
            f"these scores share no {empty[0].replace('_', ' ')}: {' / '.join(held)}; evaluate the forecasts together"
        )


def _common_labels(datasets: Sequence[xr.Dataset]) -> dict[str, np.ndarray]:
    """Dim -> labels that all datasets have, in the order of the first."""
    common = {}
    for dim in _COMMON_DIMS:
        labels = [scores[dim].values for scores in datasets if dim in scores.dims]
        if len(labels) == len(datasets):
            common[dim] = labels[0][np.all([np.isin(labels[0], other) for other in labels], axis=0)]
    return common


def _other_definitions(word: str, held: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    common = [name for name in held if name in other]
    return [f"{word} {name} ({held[name]} / {other[name]})" for name in common if held[name] != other[name]]


def _same_scores(first: xr.Dataset, second: xr.Dataset, baseline: str) -> bool:
    """Baselines know nothing of the model: on the same truth they score the same."""
    labels = _common_labels([first, second])
    one, other = (scores["mse"].sel(forecast=baseline).sel(labels).values for scores in (first, second))
    return bool(np.allclose(one, other, rtol=_SAME_TRUTH, atol=0, equal_nan=True))


def _baselines(scores: xr.Dataset) -> list[str]:
    return [str(name) for name in scores["forecast"].values[scores["kind"].values == "baseline"]]


def _span(times: np.ndarray) -> str:
    first, last = times[[0, -1]].astype("datetime64[h]")
    return f"{len(times)} from {first} to {last}"


def _word(label: Any) -> str:
    return f"{label / np.timedelta64(1, 'h'):g} h" if isinstance(label, np.timedelta64) else str(label)


def _told_apart(names: Sequence[str]) -> list[str]:
    """`run`, `run 2`: files in folders of one name."""
    numbers = [list(names[: i + 1]).count(name) for i, name in enumerate(names)]
    return [name if number == 1 else f"{name} {number}" for name, number in zip(names, numbers, strict=True)]


def _names_in_merged(datasets: Sequence[xr.Dataset], files: Sequence[str], at: int) -> dict[str, str]:
    """Name of each forecast of one file -> its name beside those of the others."""
    own = datasets[at]
    models = [[str(name) for name in scores["forecast"].values] for scores in datasets]
    new = {}
    for name in models[at]:
        having = [i for i, others in enumerate(models) if name in others]
        if name in _baselines(own):
            shared = at == having[0] or _same_scores(datasets[having[0]], own, name)
        else:
            shared = len(having) == 1
        new[name] = name if shared else f"{name} ({files[at]})"
    return new


def _renamed(scores: xr.Dataset, new: Mapping[str, str]) -> xr.Dataset:
    """With the new names of forecasts, as references too."""
    own = [dim for dim in _OWN_DIMS if dim in scores.dims]
    return scores.assign_coords({dim: (dim, [new[str(name)] for name in scores[dim].values]) for dim in own})


def _side_by_side(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """All forecasts, a name that came before left out; models first, as in one file."""
    names = list(dict.fromkeys(str(name) for part in parts for name in part["forecast"].values))
    seen: set[str] = set()
    pieces = []
    for part in parts:
        fresh = [str(name) for name in part["forecast"].values if str(name) not in seen]
        seen |= set(fresh)
        if fresh:
            pieces.append(part.sel(forecast=fresh))
    labels = _all_labels(parts)
    wide = [piece.reindex({dim: values for dim, values in labels.items() if dim in piece.dims}) for piece in pieces]
    varying = sorted({name for part in wide for name in part.data_vars if "forecast" in part[name].dims}, key=str)
    merged = xr.concat(
        [part[[name for name in varying if name in part]] for part in wide],
        dim="forecast",
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )
    for part in wide:
        for name in [name for name in part.data_vars if "forecast" not in part[name].dims]:
            merged[name] = merged[name].combine_first(part[name]) if name in merged else part[name]
    for name, coordinate in parts[0].coords.items():
        if name not in merged.coords:
            merged = merged.assign_coords({name: coordinate})
    kinds = dict(zip(merged["forecast"].values.tolist(), merged["kind"].values, strict=True))
    return merged.sel(forecast=sorted(names, key=lambda name: kinds[name] == "baseline"))


def _all_labels(parts: Sequence[xr.Dataset]) -> dict[str, np.ndarray]:
    """Dim -> the labels of every part, those of the first first; forecasts and what is common already apart."""
    dims = dict.fromkeys(str(dim) for part in parts for name in part.data_vars for dim in part[name].dims)
    labels = {}
    for dim in [dim for dim in dims if dim not in ("forecast", *_COMMON_DIMS)]:
        values = [part[dim].values for part in parts if dim in part.coords]
        together = np.concatenate(values)
        if together.dtype.kind in "OU":
            labels[dim] = np.array(list(dict.fromkeys(together.tolist())))
        else:
            labels[dim] = np.unique(together)
    return labels


def _merged_record(records: Sequence[Mapping[str, Any]], renamed: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The first file's record, with the forecasts of all under their new names."""
    merged = dict(records[0])
    for key in ("forecasts", "weights_sha256"):
        merged[key] = {
            new.get(name, name): entry
            for record, new in zip(records, renamed, strict=True)
            for name, entry in (record.get(key) or {}).items()
        }
    return merged
