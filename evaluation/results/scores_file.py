"""Scores on disk: one NetCDF file with everything that must agree before two of them are compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from weatherfm import __version__
from weatherfm.earth.grid import Grid
from weatherfm.earth.variables import add_variables, parse_channel
from weatherfm.errors import InputError
from weatherfm.evaluation.baselines.names import ALL_BASELINES, name_of_mean
from weatherfm.evaluation.results.scores_checksum import checksum_of
from weatherfm.evaluation.results.words import metric_in_words
from weatherfm.file_errors import as_input_error
from weatherfm.home import expanded

Variables = Mapping[str, tuple[tuple[str, ...], np.ndarray]]
"""Variable -> (dims, values)."""
FORMAT = "weatherfm scores 2"
_SQUEEZED: Mapping[str, Any] = {"zlib": True, "complevel": 1}
_CHECKSUM = "sha256"
"""Attribute: of all the rest. Files of before are read without."""
WEIGHTS = (
    "cell areas, sin(upper edge) - sin(lower edge), mean 1 over the grid; a region holds every point within its limits "
    "or on them"
)
_DEFINITIONS = {
    "rmse": "square root of the mean squared error over cases and area; of an ensemble, of its mean",
    "mse": "mean squared error over cases and area; of an ensemble, of its mean",
    "mae": "mean absolute error over cases and area; of an ensemble, of its mean",
    "bias": "mean of forecast minus truth over cases and area",
    "acc": (
        "anomaly correlation over cases and area together, not centred; undefined (NaN) for climatology, whose "
        "anomalies are less than a thousandth of the truth's"
    ),
    "acc_centred": "the same of anomalies less the region's mean of each case",
    "activity": "root mean square of the forecast's anomaly over cases and area",
    "activity_ratio": "activity of the forecast over that of the truth; below 1: smoother than the weather",
    "wind_vector_rmse": "square root of the mean squared length of the wind vector's error",
    "crps": (
        "continuous ranked probability score of the ensemble as it is; of a single forecast, its MAE; of a normal "
        "distribution in closed form"
    ),
    "crps_fair": "continuous ranked probability score corrected for the number of members: of ensembles of any size",
    "ensemble_spread": "square root of the mean variance of the members (divided by members - 1)",
    "spread_skill_ratio": "spread over the RMSE of the ensemble mean, corrected for the number of members; 1 is right",
    "member_rmse": "square root of the mean squared error of single members over cases and area",
    "member_activity_ratio": "activity of single members over that of the truth",
    "rank_histogram": "share of area and cases in which the truth has this rank among the members; ties are shared",
    "brier": "mean squared difference between forecast probability and occurrence of the event",
    "brier_climatology": "Brier score of the event's frequency on training days by place, month and hour",
    "brier_skill": "1 - Brier score over that of the event's frequency on training days; below 0: worse than that",
    "seeps": "stable equitable error in probability space of precipitation; 0 is perfect, 1 without skill",
    "zonal_spectrum": "power along circles of latitude by wavenumber, mean over cases and the rows of the band",
    "zonal_spectrum_truth": "the same of the truth",
    "zonal_spectrum_error": "the same of forecast minus truth",
    "spherical_spectrum": "power by total wavenumber of the spherical harmonics, mean over cases",
    "spherical_spectrum_truth": "the same of the truth",
    "spherical_spectrum_error": "the same of forecast minus truth",
    "mse_by_case": "mean squared error over area of every case; of an ensemble, of its mean",
    "crps_fair_by_case": "fair continuous ranked probability score over area of every case",
}
_SIGNIFICANCE = {
    "p_value": "of equal {} in paired cases: equally weighted cosines (Lazarus et al. 2018), for autocorrelation",
    "skill_low": "lower end of the 95 % interval of 1 - {0} / {0} of the reference; excludes 0 where p < 0.05",
    "skill_high": "upper end of the 95 % interval of 1 - {0} / {0} of the reference",
}


def build_scores(
    variables: Mapping[str, Variables],
    members: Mapping[str, int],
    coordinates: Mapping[str, Sequence[Any]],
    grid: Grid,
    init_times: np.ndarray,
    provenance: Mapping[str, Any],
) -> xr.Dataset:
    """The dataset of scores.

    Args:
        variables: forecast -> variable -> (dims, values); variables may be absent from some forecasts.
        members: forecast -> members of the ensemble, 1 for a single forecast, 0 for a distribution in closed form.
        coordinates: dim -> labels; `lead_time` in hours.
        grid: on which was scored.
        init_times: datetime64 [case].
        provenance: JSON-able; `weatherfm.evaluation.results.comparison` says what must agree.

    Returns:
        dims (forecast, period, region, lead_time, channel) and further ones of some variables; coordinates also `kind`
        (model, mean of one, baseline) and `members` [forecast], `units` [channel], `init_time`, `latitude`,
        `longitude`; attribute `provenance` in JSON.
    """
    sets = [_dataset(found, coordinates) for found in variables.values()]
    names = xr.Variable("forecast", list(variables))
    scores = xr.concat(sets, names, data_vars="all", coords="minimal", compat="override", join="outer")
    scores = _truth_once(scores)
    channels = [str(name) for name in coordinates["channel"]]
    scores = scores.assign_coords(
        kind=("forecast", [_kind_of(name, members) for name in variables]),
        members=("forecast", [members[name] for name in variables]),
        units=("channel", [parse_channel(channel).units for channel in channels]),
        init_time=init_times.astype("datetime64[ns]"),
        latitude=grid.latitude,
        longitude=grid.longitude,
    )
    scores.attrs = {
        "format": FORMAT,
        "title": "Scores of weather forecasts" + (" of a simulated atmosphere" if provenance["simulated"] else ""),
        "simulated": "true" if provenance["simulated"] else "false",
        "cases": len(init_times),
        "code_version": __version__,
        "provenance": json.dumps(dict(provenance), sort_keys=True),
    }
    return _described(scores)


def means_among(members: Mapping[str, int]) -> list[str]:
    """Forecasts that are the mean of another; `members` of all forecasts, as of `build_scores`."""
    means = [name_of_mean(name) for name, size in members.items() if size > 1 and name not in ALL_BASELINES]
    return [name for name in means if name in members]


def _kind_of(name: str, members: Mapping[str, int]) -> str:
    if name in ALL_BASELINES:
        return "baseline"
    return "mean" if name in means_among(members) else "model"


def _dataset(found: Variables, coordinates: Mapping[str, Sequence[Any]]) -> xr.Dataset:
    """One forecast's variables with the labels of the dims they have; ranks are numbered."""
    labels: dict[str, Any] = {name: list(values) for name, values in coordinates.items()}
    labels["lead_time"] = np.asarray(coordinates["lead_time"], "timedelta64[h]").astype("timedelta64[ns]")
    dataset = xr.Dataset({name: (dims, values) for name, (dims, values) in found.items()})
    if "rank" in dataset.dims:
        labels["rank"] = np.arange(dataset.sizes["rank"])
    return dataset.assign_coords({name: values for name, values in labels.items() if name in dataset.dims})


def _truth_once(scores: xr.Dataset) -> xr.Dataset:
    """Truth's spectra stand with every forecast that has spectra, all alike: keep them without that dim.

    So does what climatology alone has, the Brier score of the frequency.

    Fields with masks have none: then all are NaN.
    """
    for name in [name for name in scores.data_vars if str(name).endswith(("_spectrum_truth", "brier_climatology"))]:
        has = scores[name].notnull().any([dim for dim in scores[name].dims if dim != "forecast"])
        scores[name] = scores[name].isel(forecast=int(np.argmax(has.values)), drop=True)
    return scores


def _described(scores: xr.Dataset) -> xr.Dataset:
    """With a definition of every variable."""
    for name, array in scores.data_vars.items():
        tested = [what for what in _SIGNIFICANCE if str(name).endswith(f"_{what}")]
        if tested:
            metric = metric_in_words(str(name).removesuffix(f"_{tested[0]}"))
            array.attrs["long_name"] = _SIGNIFICANCE[tested[0]].format(metric)
        else:
            array.attrs["long_name"] = _DEFINITIONS[str(name)]
    return scores


def write_scores(scores: xr.Dataset, path: str | Path) -> Path:
    """Write scores to NetCDF, whole or not at all; the same scores give the same bytes.

    Scores of every case are compressed, in chunks of one forecast and lead time.

    Raises:
        InputError: they cannot be written there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    encoding = {
        "lead_time": {"units": "hours", "dtype": "int64"},
        "init_time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
        **{str(name): _compressed(array) for name, array in scores.data_vars.items() if "init_time" in array.dims},
        **{str(name): _SQUEEZED for name, array in scores.coords.items() if array.ndim > 2},  # fields
    }
    scores = scores.assign_attrs({_CHECKSUM: checksum_of(scores)})
    try:
        scores.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # of the library, for a full disk and the like: it names no file
        raise as_input_error(
            error if isinstance(error, OSError) else OSError(str(error)), f"{path} cannot be written"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def refuse_to_replace(path: Path) -> None:
    """Let scores, of this or another version, stand at a path, or nothing.

    Raises:
        InputError: something else does.
    """
    if not path.is_file():
        return
    try:
        with netCDF4.Dataset(path) as found:
            held = str(found.getncattr("format"))
    except (OSError, AttributeError, RuntimeError, ValueError):  # no NetCDF, a damaged one, or one that says nothing
        held = ""
    if not held.startswith(FORMAT.rpartition(" ")[0]):
        raise InputError(
            f"{path} is there already and holds no readable scores: it would be lost; remove it first, or choose "
            "another --output"
        )


def _compressed(series: xr.DataArray) -> dict[str, Any]:
    one = ("forecast", "lead_time")
    chunks = tuple(1 if dim in one else max(1, size) for dim, size in series.sizes.items())
    return {**_SQUEEZED, "shuffle": True, "chunksizes": chunks}


def read_scores(path: str | Path) -> xr.Dataset:
    """Scores as `build_scores` made them, in memory.

    Raises:
        InputError: no such file, or not a file of scores.
    """
    path = expanded(path)
    if not path.is_file():
        raise InputError(f"no scores {path}; `weatherfm evaluate` writes them")
    try:
        scores = xr.load_dataset(path, engine="netcdf4", decode_timedelta=True)
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, OverflowError, TypeError) as error:
        raise InputError(f"{path} is not a readable NetCDF file ({_shortened(error)}); evaluate again") from None
    if scores.attrs.get("format") != FORMAT:
        raise InputError(f"{path} holds no scores of this version of weatherfm; evaluate again")
    if scores.attrs.pop(_CHECKSUM, None) not in (None, checksum_of(scores)):
        raise InputError(f"{path} is damaged, or was changed: it does not hold what was written; evaluate again")
    try:
        provenance = json.loads(scores.attrs.get("provenance", "{}"))
        add_variables(provenance.get("variables", {}))
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: where its scores came from cannot be read ({_shortened(error)}); evaluate again"
        ) from None
    return scores


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
