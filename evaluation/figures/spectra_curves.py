"""Energy spectra of forecasts and of the truth, and their ratio: at which scales a forecast is blurred or noisy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.line_looks import line_look
from weatherfm.evaluation.figures.pictures import GREY, INK, style
from weatherfm.evaluation.metrics.spectra import energy_ratio, spectra_left_out
from weatherfm.evaluation.metrics.spherical_spectra import spherical_wavelengths
from weatherfm.evaluation.metrics.zonal_spectra import zonal_wavelengths
from weatherfm.evaluation.results.lookup import lead_hours as hours_of
from weatherfm.evaluation.results.lookup import models_of
from weatherfm.evaluation.results.scales import LEAST, MOST, resolved
from weatherfm.evaluation.results.words import in_words, name_in_words, pretty_units

Kind = Literal["spherical", "zonal"]

_ERROR: dict[str, Any] = {"linestyle": ":", "linewidth": 1.4, "markerfacecolor": "white", "markersize": 4}
_FARTHEST = 1e3
"""Times more or less than the truth up to which baselines widen the ratio's axis; models widen it without end."""
_NARROWEST = 2.5
"""The same, at least."""
_MOST_RATIOS = 9
"""Numbers on its axis, at most: powers of ten alone otherwise."""
_LEAST_SHARE = 1e-3
"""Of the truth's least power: what is smaller (a climatology's shortest waves) leaves the picture below."""


@dataclass(frozen=True)
class _Curves:
    """Spectra of one channel and lead time without wavenumber 0, the mean, which has no wavelength."""

    wavenumbers: np.ndarray
    wavelengths: np.ndarray
    """km."""
    truth: np.ndarray
    forecasts: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    """Of models only."""
    axis: str
    """What the wavenumber counts."""
    place: str
    """Where: "global" or the band in words."""
    resolved: np.ndarray
    """Where the truth itself has waves."""


def spectrum_figure(
    scores: xr.Dataset, channel: str, lead_hours: int, kind: Kind = "spherical", band: str | None = None
) -> Figure:
    """Power against wavenumber, both logarithmic: truth black, models thick, baselines thin, errors of models dotted.

    Args:
        scores: with `spherical_spectrum` or `zonal_spectrum`, as `weatherfm.evaluation.results.scores_file` has them.
        channel: short name.
        lead_hours: one of the scored lead times.
        kind: `spherical` (total wavenumber) or `zonal` (waves around a circle of latitude).
        band: of the zonal spectra; without it the first.

    Raises:
        InputError: scores without such spectra, or another channel, lead time or band than were scored.
    """
    curves = _curves(scores, channel, lead_hours, kind, band)
    figure, axes = _panel()
    with style():
        _plot(axes, curves.wavenumbers, curves.truth, "truth", {"color": INK, "linewidth": 2.0, "zorder": 4})
        for name, power in curves.forecasts.items():
            _plot(axes, curves.wavenumbers, power, in_words(name), line_look(name, scores))
        for name, power in curves.errors.items():
            _plot(axes, curves.wavenumbers, power, f"error of {in_words(name)}", line_look(name, scores) | _ERROR)
        axes.set_yscale("log")
        axes.set_ylim(bottom=_lowest(curves))
        units = pretty_units(str(scores["units"].sel(channel=channel).values))
        axes.set_ylabel(f"Power per wavenumber [{_squared(units)}]")
        _finish(axes, curves, channel, lead_hours)
    return figure


def energy_ratio_figure(
    scores: xr.Dataset, channel: str, lead_hours: int, kind: Kind = "spherical", band: str | None = None
) -> Figure:
    """Forecast's over truth's power by scale, logarithmic: below 1, shaded, blurred; above, noise.

    Every point of every model is on it; baselines that leave it are named. Where the truth itself has no waves there is
    no ratio, and the figure says so. Arguments as `spectrum_figure`.

    Raises:
        InputError: as `spectrum_figure`.
    """
    curves = _curves(scores, channel, lead_hours, kind, band)
    known = curves.resolved
    ratios = {
        name: np.where(known, energy_ratio(power, curves.truth), np.nan) for name, power in curves.forecasts.items()
    }
    low, high = _limits(ratios, models_of(scores))
    figure, axes = _panel()
    with style():
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.axhspan(low, 1, color="#eef2f6", zorder=0)
        axes.axhline(1, color=INK, linewidth=1.2)
        for level in (LEAST, MOST):
            axes.axhline(level, color=GREY, linewidth=0.7, linestyle=":")
        for name, ratio in ratios.items():
            _plot(axes, curves.wavenumbers, ratio, in_words(name), line_look(name, scores))
        for text, side, down in (("blurred", "top", -3), ("too much: noise", "bottom", 3)):
            axes.annotate(text, (1, 1), xycoords=("axes fraction", "data"), xytext=(-4, down),
                          textcoords="offset points", ha="right", va=side, fontsize=7.5, color=GREY)  # fmt: skip
        _note_what_is_not_there(axes, curves, ratios)
        axes.set_ylabel("Power, forecast ÷ truth [1]")
        numbers = _round_numbers(low, high)
        if len(numbers) > _MOST_RATIOS:
            numbers = 10.0 ** np.arange(np.ceil(np.log10(low)), np.log10(high))
        axes.set_yticks(numbers, [f"{number:g}" for number in numbers])
        axes.yaxis.set_minor_locator(NullLocator())
        _finish(axes, curves, channel, lead_hours)
    return figure


def _limits(ratios: Mapping[str, np.ndarray], models: Sequence[str]) -> tuple[float, float]:
    """Of the axis of ratios: as far as any model goes, as far as baselines do within reason."""
    reach = [1 / _NARROWEST, _NARROWEST]
    for name, ratio in ratios.items():
        inside = ratio[ratio > 0]
        inside = inside if name in models else np.clip(inside, 1 / _FARTHEST, _FARTHEST)
        reach += [float(x) for x in (inside.min(initial=1), inside.max(initial=1))]
    return min(reach) / 1.15, max(reach) * 1.15


def _note_what_is_not_there(axes: Axes, curves: _Curves, ratios: Mapping[str, np.ndarray]) -> None:
    """Which curves leave the axis, and where the truth has no waves."""
    low, high = axes.get_ylim()
    below = [in_words(name) for name, ratio in ratios.items() if (ratio < low).any()]
    above = [in_words(name) for name, ratio in ratios.items() if (ratio > high).any()]
    for names, where, level, side in ((below, "below", 0.0, "bottom"), (above, "above", 1.0, "top")):
        if names:
            axes.annotate(f"{where} the axis: {', '.join(names)}", (0, level), xycoords="axes fraction",
                          xytext=(4, 3 if level == 0 else -3), textcoords="offset points", va=side, fontsize=7.5,
                          color=GREY)  # fmt: skip
    if not curves.resolved[-1]:
        last = np.flatnonzero(curves.resolved)
        start = curves.wavenumbers[last[-1] + 1] if len(last) else curves.wavenumbers[0]
        axes.axvspan(start, curves.wavenumbers[-1] * 1.08, color="0.88", zorder=0.5)
        axes.annotate("the truth has\nno waves here", (1, 1), xycoords="axes fraction", xytext=(-3, -3), ha="right",
                      textcoords="offset points", va="top", fontsize=7.5, color=GREY)  # fmt: skip


def _curves(scores: xr.Dataset, channel: str, lead_hours: int, kind: Kind, band: str | None) -> _Curves:
    variable = f"{kind}_spectrum"
    grid = Grid(scores["latitude"].values, scores["longitude"].values)
    if variable not in scores:
        reason = "; ".join(spectra_left_out(grid)) or "evaluate again with spectra"
        raise InputError(f"the scores hold no {kind} spectra: {reason}")
    where: dict[str, Any] = {"channel": _one_of(scores, "channel", channel)}
    if kind == "zonal":
        band = _one_of(scores, "band", str(scores["band"].values[0]) if band is None else band)
        where["band"] = band
        wavenumbers, wavelengths = scores["wavenumber"].values, zonal_wavelengths(grid, band)
    else:
        wavenumbers = scores["total_wavenumber"].values
        wavelengths = spherical_wavelengths(wavenumbers)
    if lead_hours not in hours_of(scores):
        raise InputError(
            f"lead time {lead_hours} h was not scored; scored are {', '.join(map(str, hours_of(scores)))} h"
        )
    here = scores.isel(lead_time=hours_of(scores).index(lead_hours)).sel(where)
    errors = dict(_spectra(here, f"{variable}_error")) if f"{variable}_error" in scores else {}
    return _Curves(
        wavenumbers[1:],
        wavelengths[1:],
        here[f"{variable}_truth"].values[1:],
        dict(_spectra(here, variable)),
        {name: power for name, power in errors.items() if name in models_of(scores)},
        "Zonal wavenumber" if kind == "zonal" else "Total wavenumber",
        band.replace("_", " ") if band and kind == "zonal" else "global",
        resolved(here[f"{variable}_truth"].values)[1:],
    )


def _spectra(here: xr.Dataset, variable: str) -> Iterator[tuple[str, np.ndarray]]:
    """Of every forecast that has them, without wavenumber 0."""
    for name in _names(here):
        power = here[variable].sel(forecast=name).values[1:]
        if np.isfinite(power).any():
            yield name, power


def _one_of(scores: xr.Dataset, dim: str, name: str) -> str:
    known = [str(value) for value in scores[dim].values]
    if name not in known:
        raise InputError(f"{dim} {name!r} was not scored; scored are {', '.join(known)}")
    return name


def _names(scores: xr.Dataset) -> list[str]:
    return [str(name) for name in scores["forecast"].values]


def _panel() -> tuple[Figure, Axes]:
    with style():
        figure = Figure(figsize=(4.8, 3.5), layout="constrained")
        return figure, figure.add_subplot()


def _plot(axes: Axes, wavenumbers: np.ndarray, power: np.ndarray, label: str, look: dict[str, Any]) -> None:
    """Markers stand evenly on the logarithmic axis; what is not above zero has no place on it."""
    marks = np.unique(np.geomspace(1, len(wavenumbers), 9).round().astype(int) - 1)
    look = {"markersize": 4.5, "markevery": marks.tolist()} | look
    axes.plot(wavenumbers, np.where(power > 0, power, np.nan), label=label, **look)


def _lowest(curves: _Curves) -> float | None:
    """Where the axis of power begins; None where the truth has none."""
    if not (curves.truth > 0).any():
        return None
    every = np.concatenate([curves.truth, *curves.forecasts.values(), *curves.errors.values()])
    return float(max(every[every > 0].min() / 2, _LEAST_SHARE * curves.truth[curves.truth > 0].min()))


def _finish(axes: Axes, curves: _Curves, channel: str, lead_hours: int) -> None:
    first, last = curves.wavenumbers[[0, -1]]
    axes.set_xscale("log")
    axes.set_xlim(first / 1.08, last * 1.08)
    numbers = _round_numbers(first, last)
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{curves.axis} [1]")
    _wavelength_axis(axes, curves)
    axes.set_title(f"{channel}: {name_in_words(channel)}\n{curves.place}, {lead_hours} h")
    axes.legend(fontsize=8, handlelength=2.8, loc="best", frameon=True, framealpha=0.8, edgecolor="none")


def _wavelength_axis(axes: Axes, curves: _Curves) -> None:
    """Round wavelengths above, at their wavenumbers: between two whole ones on the straight line of logarithms."""
    lengths = _round_numbers(curves.wavelengths[-1], curves.wavelengths[0])
    places = np.interp(-np.log(lengths), -np.log(curves.wavelengths), np.log(curves.wavenumbers))
    above = axes.secondary_xaxis("top")
    above.set_xticks(np.exp(places), [f"{length:,.0f}".replace(",", "\u2009") for length in lengths])
    above.xaxis.set_minor_locator(NullLocator())
    above.tick_params(labelsize=8, labelcolor=GREY)
    above.set_xlabel("Wavelength [km]", fontsize=8.5, color=GREY)


def _round_numbers(low: float, high: float) -> np.ndarray:
    """1, 2 and 5 times powers of ten from low to high; ascending."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    numbers = (powers[:, None] * [1, 2, 5]).ravel()
    return numbers[(numbers >= low * 0.999) & (numbers <= high * 1.001)]


def _squared(units: str) -> str:
    """`m² s⁻²` is `(m² s⁻²)²`, `K` is `K²`, a pure number stays one."""
    if units == "1":
        return units
    return f"{units}²" if units.isalpha() else f"({units})²"
