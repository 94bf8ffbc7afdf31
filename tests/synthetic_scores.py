"""Made-up scores with everything that scores can hold, for tests of what reads them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weatherfm.earth.grid import regular_grid
from weatherfm.evaluation.results.scores_file import build_scores

LEADS = (6, 12, 24, 48, 72, 120, 168, 240)
CHANNELS = ("z500", "t850", "t2m", "u10", "v10", "z850", "u850", "v850", "q700", "msl")
BASELINES = ("persistence", "climatology", "damped_persistence", "probabilistic_climatology")
PERIODS = ("all", "DJF", "MAM", "JJA", "SON")
EVENTS = ("t2m > 303.15", "u10 > 15")
MEMBERS = 8
_SIZE = {"z": 800.0, "t": 3.5, "u": 5.0, "v": 5.0, "q": 1.2e-3, "m": 700.0}
"""Error of climatology by the first letter of a channel, in its units."""
_SPEED = {  # error at short lead times over climatology's, days in which it grows
    "persistence": (0.35, 2.0),
    "climatology": (1.0, 1e-9),
    "damped_persistence": (0.33, 3.2),
    "probabilistic_climatology": (1.005, 1e-9),
}
_MODELS = ((0.09, 7.0), (0.12, 6.0), (0.2, 5.0))


def full_scores(
    models: dict[str, int] | None = None,
    leads: tuple[int, ...] = LEADS,
    channels: tuple[str, ...] = CHANNELS,
    regions: tuple[str, ...] = ("global", "northern_extratropics", "southern_extratropics", "tropics", "europe"),
    shape: tuple[int, int] = (32, 64),
    simulated: bool = False,
) -> xr.Dataset:
    """Scores of models (name -> members, 1 for a single forecast) and all baselines, with every variable."""
    models = {"vit": 1, "ens": MEMBERS} if models is None else models
    members = models | {name: 10 if name == "probabilistic_climatology" else 1 for name in BASELINES}
    grid = regular_grid(shape)
    size = (len(PERIODS), len(regions), len(leads), len(channels))
    variables = {}
    for place, (name, count) in enumerate(members.items()):
        start, days = _SPEED.get(name) or _MODELS[place % len(_MODELS)]
        rng = np.random.default_rng(place)
        growth = (
            start + (1.2 - start) * (1 - np.exp(-np.array(leads) / 24 / days))
            if days > 1
            else np.full(len(leads), start)
        )
        scale = np.array([_SIZE[channel[0]] for channel in channels])
        rmse = growth[:, None] * scale * (1 + 0.06 * rng.standard_normal(size))
        variables[name] = _fields(name, rmse, scale, count, rng)
        variables[name] |= _others(name, growth, size[:3], len(grid.longitude) // 2, len(channels), count, rng)
        if name in models:
            variables[name] |= _tested(rmse, list(members), members, name, rng)
    coordinates = {
        "period": PERIODS, "region": regions, "lead_time": leads, "channel": channels, "reference": list(members),
        "wind": ("wind10m", "wind850"), "event": EVENTS, "band": ("tropics", "northern_midlatitudes"),
        "wavenumber": np.arange(shape[1] // 2 + 1), "total_wavenumber": np.arange(shape[1] // 2),
    }  # fmt: skip
    inits = np.datetime64("2018-01-01T00", "s") + np.arange(120) * np.timedelta64(72, "h")
    return build_scores(variables, members, coordinates, grid, inits, _record(models, grid, simulated))


def simple_scores(channels=("z500", "t850"), leads=(24, 72), regions=("global", "tropics"), models=("model",), **rmse):
    """Deterministic scores alone: RMSE 60, 80 and 100 of model, persistence and climatology unless given by name."""
    names = (*models, "persistence", "climatology")
    shape = (1, len(regions), len(leads), len(channels))
    default = {"persistence": 80.0, "climatology": 100.0}
    variables = {}
    for name in names:
        value = np.broadcast_to(rmse.get(name, default.get(name, 60.0)), shape).astype(float)
        acc = np.full(shape, np.nan if name == "climatology" else 0.7)
        found = {"rmse": value, "mse": value**2, "mae": 0.8 * value, "bias": -0.1 * value, "acc": acc}
        variables[name] = {key: (("period", "region", "lead_time", "channel"), array) for key, array in found.items()}
    inits = np.datetime64("2009-01-01T12", "s") + np.arange(3) * np.timedelta64(24, "h")
    record = {
        "simulated": False,
        "grid": "8 x 16 global",
        "truth": {"kind": "files", "files": [f"f{i}.nc" for i in range(9)]},
        "climatology_period": "2000-01-01/2007-12-31",
        "climatology_window_days": 61,
        "forecasts": {name: {"mode": "direct", "weights_sha256": "abc123"} for name in models},
        "code_version": "1.2.3",
    }
    labels = {"period": ["all"], "region": regions, "lead_time": leads, "channel": channels}
    return build_scores(variables, dict.fromkeys(names, 1), labels, regular_grid((8, 16)), inits, record)


def _fields(name: str, rmse: np.ndarray, scale: np.ndarray, members: int, rng: np.random.Generator) -> dict:
    """Variables by channel."""
    nothing = np.full(rmse.shape, np.nan)
    relative = rmse / scale
    acc = nothing if "climatology" in name else np.clip(1 - 0.5 * relative**2, -0.2, 1)
    ratio = np.zeros_like(rmse) if name == "climatology" else 1.02 - 0.25 * relative
    skilled = members > 1
    found = {
        "rmse": rmse, "mse": rmse**2, "mae": 0.75 * rmse, "bias": 0.05 * scale * rng.standard_normal(rmse.shape),
        "acc": acc, "activity": ratio * scale, "activity_ratio": ratio,
        "crps": (0.58 if skilled else 0.75) * rmse, "crps_fair": 0.55 * rmse if skilled else nothing,
        "ensemble_spread": 0.8 * rmse if skilled else nothing,
        "spread_skill_ratio": np.full(rmse.shape, 0.85) if skilled else nothing,
    }  # fmt: skip
    return {key: (("period", "region", "lead_time", "channel"), values) for key, values in found.items()}


def _others(
    name: str,
    growth: np.ndarray,
    size: tuple[int, ...],
    waves: int,
    channels: int,
    members: int,
    rng: np.random.Generator,
) -> dict:
    """Winds, events, precipitation, ranks and spectra."""
    by_lead = np.broadcast_to(growth, size)
    found = {
        "wind_vector_rmse": (("period", "region", "lead_time", "wind"), by_lead[..., None] * np.array([4.0, 6.0])),
        "brier": (("period", "region", "lead_time", "event"), by_lead[..., None] * np.array([0.05, 0.02])),
        "seeps": (("period", "region", "lead_time"), 0.8 * by_lead),
    }
    if members > 1:
        ranks = 1 + 0.5 * (np.linspace(-1, 1, members + 1) ** 2)
        shares = np.broadcast_to(ranks / ranks.sum(), (*size[1:], channels, members + 1))
        found["rank_histogram"] = (("region", "lead_time", "channel", "rank"), shares)
    if name not in BASELINES:
        found |= _spectra(growth, size[2], channels, waves)
    return found


def _spectra(growth: np.ndarray, leads: int, channels: int, waves: int) -> dict:
    """A cubic fall with the wavenumber, of the forecast steeper the further ahead."""
    found = {}
    for kind, dims, count, middle in (
        ("zonal", ("band", "wavenumber"), waves + 1, (2,)),
        ("spherical", ("total_wavenumber",), waves, ()),
    ):
        wave = np.arange(count)
        truth = np.broadcast_to(1e4 / (1 + wave) ** 3, (leads, channels, *middle, count))
        damping = np.exp(-2 * growth[:, None] * wave / count).reshape(leads, 1, *(1 for _ in middle), count)
        for what, power in (("", truth * damping), ("_truth", truth), ("_error", truth * (1.05 - damping))):
            found[f"{kind}_spectrum{what}"] = (("lead_time", "channel", *dims), power)
    return found


def _tested(rmse: np.ndarray, names: list[str], members: dict[str, int], own: str, rng: np.random.Generator) -> dict:
    """p-values and intervals against every other forecast; CRPS of ensembles against ensembles."""
    found = {}
    for metric in ("rmse", "crps") if members[own] > 1 else ("rmse",):
        shape = (len(names), *rmse.shape[1:])
        p_value = np.where(rng.random(shape) < 0.7, 1e-4, 0.3)
        absent = [i for i, name in enumerate(names) if name == own or (metric == "crps" and members[name] == 1)]
        p_value[absent] = np.nan
        low, high = (np.where(np.isnan(p_value), np.nan, end) for end in (0.1, 0.3))
        for what, values in (("p_value", p_value), ("skill_low", low), ("skill_high", high)):
            found[f"{metric}_{what}"] = (("reference", "region", "lead_time", "channel"), values)
    return found


def _record(models: dict[str, int], grid, simulated: bool) -> dict:
    return {
        "simulated": simulated,
        "grid": str(grid),
        "truth": {"kind": "files", "files": [f"f{i}.nc" for i in range(9)]},
        "climatology_period": "1990-01-01/2010-12-31",
        "climatology_window_days": 61,
        "forecasts": {name: {"mode": "direct", "weights_sha256": "abc123"} for name in models},
        "code_version": "1.2.3",
    }
