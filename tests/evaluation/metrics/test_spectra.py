"""Spectra of fields whose spectrum is known, then of the real atmosphere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.special import sph_harm_y

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.evaluation.metrics import spectra as module
from weatherfm.evaluation.metrics import spherical_spectra
from weatherfm.evaluation.metrics.spectra import (
    coefficients_of,
    energy_ratio,
    spectra_left_out,
    spectra_means,
    spectra_transforms,
)
from weatherfm.evaluation.metrics.spherical_spectra import (
    largest_total_wavenumber,
    spherical_geometry,
    spherical_wavelengths,
)
from weatherfm.evaluation.metrics.zonal_spectra import ZONAL_BANDS, band_weights, zonal_wavelengths

EXACT = 1e-12  # relative: sums of some thousand float64 numbers


def grid_of(geometry: str, rows: int = 24, columns: int = 48, first: float = 0.0) -> Grid:
    latitude = {
        "F1": 90 - (np.arange(rows) + 0.5) * 180 / rows,
        "CC": np.linspace(90, -90, rows),
        "GL": np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))[::-1],
    }[geometry]
    return Grid(latitude, first + np.arange(columns) * 360 / columns)


def harmonics(grid: Grid, amplitudes: dict[tuple[int, int], complex]) -> np.ndarray:
    """The real field [lat, lon] of a(l, m), m >= 0, of orthonormal spherical harmonics, by scipy."""
    colatitude, longitude = np.deg2rad(90 - grid.latitude)[:, None], np.deg2rad(grid.longitude)
    field = np.zeros(grid.shape)
    for (degree, order), amplitude in amplitudes.items():
        wave = (amplitude * sph_harm_y(degree, order, colatitude, longitude)).real
        field += wave if order == 0 else 2 * wave
    return field


def known_power(amplitudes: dict[tuple[int, int], complex], size: int) -> np.ndarray:
    power = np.zeros(size)
    for (degree, order), amplitude in amplitudes.items():
        power[degree] += (1 if order == 0 else 2) * abs(amplitude) ** 2 / (4 * np.pi)
    return power


def random_amplitudes(largest: int, seed: int = 0) -> dict[tuple[int, int], complex]:
    rng = np.random.default_rng(seed)
    return {
        (degree, order): complex(rng.normal(), rng.normal() if order else 0)
        for degree in range(largest + 1)
        for order in range(degree + 1)
    }


def spectra_of(field: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    """Of one field as forecast and truth, without the dims of case and channel."""
    means = spectra_means(field[None, None], field[None, None], spectra_transforms(grid))
    return {name: values[0, 0] for name, values in means.items()}


@pytest.mark.parametrize("geometry", ["F1", "CC", "GL"])
@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (3, 3), (7, 2), (20, 15), (22, 0)])
def test_one_spherical_harmonic_has_its_power_at_its_degree(geometry, degree, order):
    grid = grid_of(geometry)
    power = spectra_of(harmonics(grid, {(degree, order): 3.0}), grid)["spherical_forecast"]
    expected = known_power({(degree, order): 3.0}, len(power))
    np.testing.assert_allclose(power, expected, rtol=EXACT, atol=1e-12)


@pytest.mark.parametrize("geometry", ["F1", "CC", "GL"])
def test_parseval_on_the_sphere(geometry):
    """Every wave that the grid resolves at once; the sum over l is the area mean of the square."""
    grid = grid_of(geometry)
    amplitudes = random_amplitudes(largest_total_wavenumber(grid, geometry))
    power = spectra_of(harmonics(grid, amplitudes), grid)["spherical_forecast"]
    np.testing.assert_allclose(power, known_power(amplitudes, len(power)), rtol=EXACT)
    fine = grid_of("GL", rows=64, columns=128)  # its quadrature is exact for the square
    square = np.square(harmonics(fine, amplitudes)).mean(1)
    area_mean = np.polynomial.legendre.leggauss(64)[1] @ square / 2
    np.testing.assert_allclose(power.sum(), area_mean, rtol=EXACT)


def test_grids_agree_on_the_same_field():
    """Also a pole-to-pole grid with few columns and one that starts at another meridian."""
    amplitudes = random_amplitudes(15)
    grids = [grid_of("F1"), grid_of("CC", 33, 64), grid_of("GL", 32, 64, first=2.8), grid_of("CC", 40, 32)]
    first, *others = [spectra_of(harmonics(grid, amplitudes), grid)["spherical_forecast"][:16] for grid in grids]
    for other in others:
        np.testing.assert_allclose(other, first, rtol=EXACT)


def test_many_fields_at_once_and_one_by_one_agree(monkeypatch):
    """The kept matrices are the transform itself."""
    grid = grid_of("CC", 25)
    forecast, truth = np.random.default_rng(1).normal(size=(2, 3, 2, *grid.shape))
    together = spectra_means(forecast, truth, spectra_transforms(grid))
    monkeypatch.setattr(spherical_spectra, "_MATRICES", 0)
    each = spectra_means(forecast, truth, spectra_transforms(grid))
    for name in together:
        np.testing.assert_allclose(together[name], each[name], rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("columns", [48, 45], ids=["even", "odd"])
def test_a_cosine_along_longitude_is_one_zonal_wavenumber(columns):
    grid = grid_of("F1", columns=columns)
    longitude = np.deg2rad(grid.longitude)
    field = np.broadcast_to(2 + 3 * np.cos(5 * longitude + 0.3), grid.shape)
    power = spectra_of(field, grid)["zonal_forecast"]
    expected = np.zeros(columns // 2 + 1)
    expected[[0, 5]] = 4, 9 / 2
    np.testing.assert_allclose(power, np.broadcast_to(expected, power.shape), atol=1e-13)


@pytest.mark.parametrize("columns", [48, 45], ids=["even", "odd"])
def test_zonal_parseval_by_band(columns):
    """The shortest wave of an even number of columns counts once."""
    grid = grid_of("GL", columns=columns)
    field = np.random.default_rng(2).normal(size=grid.shape)
    power = spectra_of(field, grid)["zonal_forecast"]
    for band, (south, north) in enumerate(ZONAL_BANDS.values()):
        rows = (grid.latitude >= south) & (grid.latitude <= north)
        weights = grid.area_weights[rows]
        np.testing.assert_allclose(power[band].sum(), (weights * field[rows] ** 2).sum() / weights.sum(), rtol=EXACT)


def test_a_band_is_the_area_weighted_mean_of_its_rows():
    """Each row carries its own amplitude; rows outside the band do not count."""
    grid = grid_of("F1", 36)
    amplitude = np.arange(36.0)
    field = amplitude[:, None] * np.cos(2 * np.deg2rad(grid.longitude))
    power = spectra_of(field, grid)["zonal_forecast"]
    for band, name in enumerate(spectra_transforms(grid).bands):
        np.testing.assert_allclose(power[band, 2], band_weights(grid, name) @ amplitude**2 / 2, rtol=EXACT)


@pytest.mark.parametrize("geometry", ["F1", "CC", "GL"])
def test_turning_the_field_about_the_pole_changes_nothing(geometry):
    grid = grid_of(geometry)
    field = np.random.default_rng(3).normal(size=grid.shape)
    still, turned = spectra_of(field, grid), spectra_of(np.roll(field, 7, axis=1), grid)
    for name in ("zonal_forecast", "spherical_forecast"):
        np.testing.assert_allclose(turned[name], still[name], rtol=1e-11)  # other rounding in small terms


def test_turning_the_field_over_changes_no_spherical_power():
    """A wave along longitude and the same wave across the poles: one scale, two zonal spectra."""
    grid = grid_of("GL")
    north, east = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    up, aside = np.sin(north) + 0 * east, np.cos(north) * np.cos(east)  # the same dipole, its axis turned by 90 degrees
    for field in (up, aside):
        np.testing.assert_allclose(spectra_of(field, grid)["spherical_truth"][1], 1 / 3, rtol=EXACT)
    assert spectra_of(up, grid)["zonal_truth"][1, 1] < 1e-28 < spectra_of(aside, grid)["zonal_truth"][1, 1]


def test_a_damped_field_has_the_known_ratio_and_error():
    """Amplitudes damped by exp(-l / 10): power by its square, and the error has the rest of the amplitude."""
    grid = grid_of("F1")
    amplitudes = random_amplitudes(20)
    damped = {(degree, order): a * np.exp(-degree / 10) for (degree, order), a in amplitudes.items()}
    truth, forecast = (harmonics(grid, x)[None, None] for x in (amplitudes, damped))
    means = spectra_means(forecast, truth, spectra_transforms(grid))
    degree = np.arange(21)
    ratio = energy_ratio(means["spherical_forecast"], means["spherical_truth"])[0, 0, :21]
    np.testing.assert_allclose(ratio, np.exp(-degree / 5), rtol=1e-11)  # small terms beside large ones
    error = (means["spherical_error"] / means["spherical_truth"])[0, 0, :21]
    np.testing.assert_allclose(error, (1 - np.exp(-degree / 10)) ** 2, rtol=1e-11, atol=1e-20)


def test_the_error_spectrum_is_that_of_the_difference():
    grid = grid_of("CC", 25)
    forecast, truth = np.random.default_rng(4).normal(size=(2, 2, 3, *grid.shape)).astype(np.float32)
    plan = spectra_transforms(grid)
    means = spectra_means(forecast, truth, plan)
    error = spectra_means(forecast.astype(np.float64) - truth, truth, plan)
    for kind in ("zonal", "spherical"):
        assert means[f"{kind}_error"].dtype == np.float64
        np.testing.assert_allclose(means[f"{kind}_error"], error[f"{kind}_forecast"], rtol=1e-10)


def test_shapes_and_any_split_of_cases():
    grid = regular_grid((32, 64))
    plan = spectra_transforms(grid)
    forecast, truth = np.random.default_rng(5).normal(size=(2, 50, 4, *grid.shape)).astype(np.float32)
    whole = spectra_means(forecast, truth, plan)
    assert set(whole) == {f"{kind}_{of}" for kind in ("zonal", "spherical") for of in ("forecast", "truth", "error")}
    assert whole["zonal_forecast"].shape == (50, 4, 3, 33)
    assert whole["spherical_error"].shape == (50, 4, 32)
    assert len(plan.wavenumbers) == 33
    assert len(plan.total_wavenumbers) == 32
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda i: spectra_means(forecast[i : i + 7], truth[i : i + 7], plan), range(0, 50, 7)))
    for name in whole:
        np.testing.assert_allclose(np.concatenate([p[name] for p in parts]), whole[name], rtol=1e-10, err_msg=name)


def test_a_value_that_is_not_finite_stays_in_its_own_spectrum():
    grid = grid_of("F1")
    fields = np.random.default_rng(6).normal(size=(2, 2, *grid.shape))
    fields[1, 0, 3, 3] = np.nan
    power = spectra_means(fields, fields, spectra_transforms(grid))["spherical_truth"]
    assert np.isnan(power[1, 0]).all()
    assert np.isfinite(power[[0, 0, 1], [0, 1, 1]]).all()


def test_the_truth_is_transformed_once_for_all_forecasts(monkeypatch):
    """Of seven members in pieces of two fields: one transform more than members, and the same numbers."""
    grid = grid_of("CC")
    plan = spectra_transforms(grid)
    truth, *members = np.random.default_rng(9).normal(size=(8, 2, 3, *grid.shape)).astype(np.float32)
    expected = [spectra_means(member, truth, plan) for member in members]
    transformed = []
    rfft = np.fft.rfft
    monkeypatch.setattr(module, "_VALUES", 2 * truth[0, 0].size)
    monkeypatch.setattr(np.fft, "rfft", lambda fields, **how: transformed.append(len(fields)) or rfft(fields, **how))
    known = coefficients_of(truth, plan)
    for member, whole in zip(members, expected, strict=True):
        for name, power in spectra_means(member, known, plan).items():
            np.testing.assert_allclose(power, whole[name], rtol=1e-12, err_msg=name)
    assert sum(transformed) == 8 * 6
    with pytest.raises(ValueError, match=r"fields of shape \(1, 3, .* do not fit a truth of \(2, 3\) fields"):
        spectra_means(truth[:1], known, plan)


def test_fields_of_another_grid_are_refused():
    plan = spectra_transforms(regular_grid((16, 32)))
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 16\) do not fit transforms of \(16, 32\)"):
        spectra_means(np.zeros((1, 1, 32, 16)), np.zeros((1, 1, 32, 16)), plan)
    with pytest.raises(ValueError, match="do not fit"):
        spectra_means(np.zeros((1, 1, 16, 32)), np.zeros((2, 1, 16, 32)), plan)


def test_geometries_are_recognised_within_the_rounding_of_archives():
    for geometry in ("F1", "CC", "GL"):
        for rows, columns in ((32, 64), (121, 240), (721, 1440)):
            grid = grid_of(geometry, rows, columns)
            stored = Grid(grid.latitude.astype(np.float32).round(3), grid.longitude)
            assert spherical_geometry(stored) == geometry
    assert largest_total_wavenumber(grid_of("CC", 721, 1440), "CC") == 719
    assert largest_total_wavenumber(grid_of("F1", 32, 64), "F1") == 31
    assert largest_total_wavenumber(grid_of("GL", 32, 20), "GL") == 9  # of 20 columns


def test_a_limited_area_has_no_spectra_and_says_why():
    area = Grid(np.arange(60, 29, -1.5), np.arange(-20, 15, 1.5))
    assert spectra_transforms(area) is None
    assert "limited area" in spectra_left_out(area)[0]
    assert "do not close" in spectra_left_out(area)[0]


def test_other_latitudes_leave_the_spherical_spectra_out_only():
    belt = Grid(np.arange(60, -60.1, -5.0), np.arange(0, 360, 5.0))
    plan = spectra_transforms(belt)
    assert plan.spherical is None
    assert plan.bands == tuple(ZONAL_BANDS)
    assert len(plan.total_wavenumbers) == 0
    field = np.random.default_rng(7).normal(size=(1, 1, *belt.shape))
    assert set(spectra_means(field, field, plan)) == {"zonal_forecast", "zonal_truth", "zonal_error"}
    (reason,) = spectra_left_out(belt)
    assert "no spherical spectra" in reason
    assert "nor Gaussian" in reason


def test_bands_without_rows_are_left_out():
    north = Grid(np.arange(85, 19, -5.0), np.arange(0, 360, 5.0))
    assert spectra_transforms(north).bands == ("northern_midlatitudes", "tropics")  # the row at 20 N is on the limit
    cap = Grid(np.arange(90, 64, -5.0), np.arange(0, 360, 5.0))
    assert spectra_transforms(cap) is None
    assert [reason.split(":")[0] for reason in spectra_left_out(cap)] == ["no zonal spectra", "no spherical spectra"]
    assert spectra_left_out(regular_grid((32, 64))) == ()


def test_wavelengths():
    grid = regular_grid((180, 360))
    tropics, north = zonal_wavelengths(grid, "tropics"), zonal_wavelengths(grid, "northern_midlatitudes")
    assert np.isinf(tropics[0])
    assert 0.94 * 40030 < tropics[1] < 40031  # km, the equator's circumference
    np.testing.assert_allclose(north[10], north[1] / 10)
    assert np.cos(np.deg2rad(60)) < north[1] / 40030 < np.cos(np.deg2rad(30))
    np.testing.assert_allclose(spherical_wavelengths(np.array([0, 1, 200])), [np.inf, 28306, 199.65], rtol=1e-4)


def test_ratio_is_undefined_where_the_truth_has_no_power():
    ratio = energy_ratio(np.array([[1.0, 2.0, 0.0]]), np.array([2.0, 0.0, 4.0]))
    np.testing.assert_array_equal(ratio, [[0.5, np.nan, 0.0]])


@pytest.mark.parametrize(("name", "level"), [("geopotential", 500), ("temperature", 850), ("u_component_of_wind", 500)])
def test_spectra_of_the_real_atmosphere(real_data, name, level):
    import xarray as xr

    (path,) = (real_data / "era5_global_state").glob("*.nc")
    with xr.open_dataset(path) as file:
        field = (
            file[name].squeeze().sel(level=level).transpose("latitude", "longitude").sortby("latitude", ascending=False)
        )
        grid, values = Grid(field.latitude.values, field.longitude.values), field.values.astype(np.float64)
    assert spherical_geometry(grid) == "GL"
    power = spectra_of(values, grid)
    spherical = power["spherical_truth"]
    weights = grid.area_weights / grid.area_weights.sum()
    # waves of 64 columns beyond l = 31, and cell areas for Gaussian weights: 0.6 % of the wind's mean square, z 0.007 %
    np.testing.assert_allclose(spherical.sum(), (weights * values**2).sum(), rtol=1e-2)
    # steep beyond synoptic scales: power laws of 4.0 (z), 2.6 (t) and 2.3 (u) from l = 8 to 24
    slope = np.polyfit(np.log(np.arange(8, 25)), np.log(spherical[8:25]), 1)[0]
    assert -5 < slope < -2
    midlatitudes = power["zonal_truth"][0]
    assert midlatitudes[1:7].sum() > 20 * midlatitudes[20:].sum()  # planetary and synoptic waves carry the variance
