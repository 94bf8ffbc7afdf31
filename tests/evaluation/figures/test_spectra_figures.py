"""Figures of spectra, from scores of damped waves whose spectra are known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from synthetic_scores import BASELINES, full_scores

from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.curves import rmse_figure
from weatherfm.evaluation.figures.pictures import png_bytes, svg_bytes
from weatherfm.evaluation.figures.spectra_curves import energy_ratio_figure, spectrum_figure
from weatherfm.evaluation.metrics.zonal_spectra import ZONAL_BANDS

BLUR = {"persistence": 0.0, "climatology": 0.3, "model": 0.05, "sharp": -0.01}  # power times exp(-blur * wavenumber)
LEADS = (24, 120)


def spectra_scores(with_errors: bool = True) -> xr.Dataset:
    grid = regular_grid((64, 128))
    size = {"spherical": np.arange(64), "zonal": np.arange(65)}
    data = {}
    for kind, dims in (("spherical", ("total_wavenumber",)), ("zonal", ("band", "wavenumber"))):
        waves = size[kind]
        truth = 1e6 / (1 + (waves / 4) ** 3)
        damped = np.stack([truth * np.exp(-blur * waves) for blur in BLUR.values()])
        shape = (len(BLUR), len(LEADS), 1, *((3,) if kind == "zonal" else ()), len(waves))
        middle = (slice(None), *(None,) * (len(shape) - 2))
        forecast = np.broadcast_to(damped[middle], shape).copy()
        data[f"{kind}_spectrum"] = (("forecast", "lead_time", "channel", *dims), forecast)
        data[f"{kind}_spectrum_truth"] = (
            ("lead_time", "channel", *dims),
            np.broadcast_to(truth, shape[1:]).copy(),
        )
        if with_errors:
            error = np.broadcast_to(np.minimum(2 * truth, 300 * np.sqrt(waves + 1)), shape).copy()
            data[f"{kind}_spectrum_error"] = (("forecast", "lead_time", "channel", *dims), error)
    coordinates = {
        "forecast": list(BLUR),
        "kind": ("forecast", ["baseline", "baseline", "model", "model"]),
        "lead_time": np.array(LEADS, "timedelta64[h]").astype("timedelta64[ns]"),
        "channel": ["z500"],
        "units": ("channel", ["m2 s-2"]),
        "band": list(ZONAL_BANDS),
        "wavenumber": size["zonal"],
        "total_wavenumber": size["spherical"],
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    return xr.Dataset(data, coordinates)


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def look_of(line):
    return line.get_color(), line.get_marker(), line.get_markersize(), line.get_linewidth(), str(line._dash_pattern)


def top_labels(figure) -> dict[float, str]:
    (above,) = figure.axes[0].child_axes
    return dict(zip(above.get_xticks(), [label.get_text() for label in above.get_xticklabels()], strict=True))


def test_spectrum_shows_truth_every_forecast_and_the_errors_of_models():
    figure = spectrum_figure(spectra_scores(), "z500", 24)
    lines = lines_of(figure)
    assert set(lines) == {"truth", *BLUR, "error of model", "error of sharp"}
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "Power per wavenumber [(m² s⁻²)²]"
    assert axes.get_xlabel() == "Total wavenumber [1]"
    assert "global, 24 h" in axes.get_title(loc="left")
    np.testing.assert_array_equal(lines["truth"].get_xdata(), np.arange(1, 64))  # the mean, 0, has no wavelength
    assert lines["truth"].get_linewidth() > lines["persistence"].get_linewidth()


def test_looks_differ_without_colour():
    """With every baseline and five models: truth, nine forecasts and five errors."""
    scores = spectra_scores().isel(forecast=[0, 1, 0, 1, *[2] * 5]).assign_coords(forecast=[*BASELINES, *"abcde"])
    lines = lines_of(spectrum_figure(scores, "z500", 24))
    looks = {(line.get_marker(), str(line.get_linestyle()), str(line._dash_pattern)) for line in lines.values()}
    assert len(looks) == len(lines) == 15


@pytest.mark.parametrize("make", [spectrum_figure, energy_ratio_figure])
def test_a_forecast_looks_as_on_the_curves(make):
    scores = full_scores({"vit": 1, "other": 1}, leads=(24, 72), channels=("z500",), regions=("global",))
    for variable in ("spherical_spectrum", "spherical_spectrum_error"):  # baselines have them too, then
        scores[variable] = scores[variable].fillna(scores[variable].sel(forecast="vit"))
    drawn, curves = lines_of(make(scores, "z500", 24)), lines_of(rmse_figure(scores, "z500"))
    for name in ("vit", "other", "persistence", "climatology", "damped persistence"):
        assert look_of(drawn[name]) == look_of(curves[name])


def test_a_forecast_without_short_waves_does_not_stretch_the_axis():
    """Climatology's power falls by e to the 19 more than the truth's."""
    figure = spectrum_figure(spectra_scores(), "z500", 24)
    low, high = figure.axes[0].get_ylim()
    truth = lines_of(figure)["truth"].get_ydata()
    np.testing.assert_allclose(low, truth.min() / 1000)
    assert high > truth.max()


def test_ratio_is_forecast_over_truth():
    figure = energy_ratio_figure(spectra_scores(), "z500", 24)
    lines = lines_of(figure)
    np.testing.assert_allclose(lines["model"].get_ydata(), np.exp(-0.05 * np.arange(1, 64)))
    np.testing.assert_allclose(lines["sharp"].get_ydata(), np.exp(0.01 * np.arange(1, 64)))
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert {text.get_text() for text in axes.texts} == {"blurred", "too much: noise", "below the axis: climatology"}
    assert axes.get_ylim()[0] > 1e-4  # climatology's e to the -19 does not stretch it


def test_noise_is_shown_to_its_last_point():
    scores = spectra_scores()
    scores["spherical_spectrum"].loc[{"forecast": "model", "total_wavenumber": 63}] *= 1e6
    axes = energy_ratio_figure(scores, "z500", 24).axes[0]
    assert axes.get_ylim()[1] > 1e6 * np.exp(-0.05 * 63)


def test_there_is_no_ratio_where_a_spectral_truth_has_ended():
    """T30 on a grid of 64 rows: forecasts have waves beyond it, and any ratio would be of rounding."""
    scores = spectra_scores()
    scores["spherical_spectrum_truth"][..., 31:] = 1e-9
    figure = energy_ratio_figure(scores, "z500", 24)
    ratio = lines_of(figure)["model"].get_ydata()
    assert np.isfinite(ratio[:30]).all()
    assert np.isnan(ratio[30:]).all()
    assert "the truth has\nno waves here" in {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.parametrize("band", [None, "tropics"])
def test_zonal_spectra_of_a_band(band):
    figure = spectrum_figure(spectra_scores(), "z500", 120, "zonal", band)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "Zonal wavenumber [1]"
    assert f"{(band or 'northern_midlatitudes').replace('_', ' ')}, 120 h" in axes.get_title(loc="left")
    assert len(lines_of(figure)["truth"].get_xdata()) == 64


def test_wavelengths_stand_above_their_wavenumbers():
    places = {text: place for place, text in top_labels(spectrum_figure(spectra_scores(), "z500", 24)).items()}
    number = places["5\u2009000"]
    assert abs(40030 / np.sqrt(number * (number + 1)) - 5000) < 25  # between whole wavenumbers a straight line
    tropics = {
        text: place
        for place, text in top_labels(spectrum_figure(spectra_scores(), "z500", 24, "zonal", "tropics")).items()
    }
    assert 7.5 < tropics["5\u2009000"] < 8.01


def test_without_errors_and_with_a_forecast_that_lacks_spectra():
    scores = spectra_scores(with_errors=False)
    scores["spherical_spectrum"].loc[{"forecast": "climatology"}] = np.nan
    assert set(lines_of(spectrum_figure(scores, "z500", 24))) == {"truth", "persistence", "model", "sharp"}
    assert "climatology" not in lines_of(energy_ratio_figure(scores, "z500", 24))


def test_a_constant_truth_gives_no_ratio_but_a_picture():
    scores = spectra_scores(with_errors=False)
    for name in ("spherical_spectrum", "spherical_spectrum_truth"):
        scores[name][:] = 0.0
    for make in (spectrum_figure, energy_ratio_figure):
        assert png_bytes(make(scores, "z500", 24)).startswith(b"\x89PNG")


def test_the_same_scores_give_the_same_bytes():
    first, second = (svg_bytes(spectrum_figure(spectra_scores(), "z500", 24)) for _ in range(2))
    assert first == second


def test_scores_without_spectra_say_why():
    scores = spectra_scores().drop_vars(["spherical_spectrum", "zonal_spectrum"])
    with pytest.raises(InputError, match="no spherical spectra: evaluate again with spectra"):
        spectrum_figure(scores, "z500", 24)
    area = scores.drop_vars(["latitude", "longitude"]).assign_coords(
        latitude=np.arange(60, 29, -1.5), longitude=np.arange(-20, 15, 1.5)
    )
    with pytest.raises(InputError, match=r"no zonal spectra: .*limited area"):
        energy_ratio_figure(area, "z500", 24, "zonal")


def test_what_was_not_scored_is_named():
    scores = spectra_scores()
    with pytest.raises(InputError, match=r"lead time 48 h was not scored; scored are 24, 120 h"):
        spectrum_figure(scores, "z500", 48)
    with pytest.raises(InputError, match="channel 't850' was not scored; scored are z500"):
        spectrum_figure(scores, "t850", 24)
    with pytest.raises(InputError, match="band 'arctic' was not scored; scored are northern_midlatitudes, tropics"):
        energy_ratio_figure(scores, "z500", 24, "zonal", "arctic")
