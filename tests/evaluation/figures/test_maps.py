from __future__ import annotations

import io
import socket
import urllib.request

import cartopy
import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image
from small_store import CHANNELS, EUROPE, SmallStore, TestModel, drift

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.earth.variables import GRAVITY, VARIABLES
from weatherfm.errors import InputError
from weatherfm.evaluation.figures.maps import coastlines
from weatherfm.evaluation.figures.maps.case import Case, load_case, map_rmse, pick_init_times, require_init_time
from weatherfm.evaluation.figures.maps.coastlines import draw_coastlines, natural_earth_file
from weatherfm.evaluation.figures.maps.film import animation, frame_leads, load_cases
from weatherfm.evaluation.figures.maps.map_groups import shown_cases
from weatherfm.evaluation.figures.maps.mean_error import (
    error_by_point,
    mean_error_figure,
    mean_error_maps,
    rmse_figure,
)
from weatherfm.evaluation.figures.maps.panels import (
    levels_by_channel,
    levels_of,
    map_figure,
    panel_figure,
    title_of,
    write_maps,
)
from weatherfm.evaluation.figures.maps.projection import aspect_of, closed_field, projection_of
from weatherfm.evaluation.figures.maps.units_and_colours import (
    display_of,
    error_levels,
    field_levels,
    quantity_in_words,
)
from weatherfm.evaluation.figures.pictures import png_bytes, style
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import make_forecast
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.results.words import name_in_words, pretty_units

GLOBE = regular_grid((8, 16))
TIME = np.datetime64("2009-03-12T12", "s")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to reach the network is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("a map opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("cartopy.io.urlopen", refuse)


def case(channel="z500", grid=GLOBE, **changes):
    rng = np.random.default_rng(0)
    truth = 54000 + 2000 * rng.standard_normal(grid.shape)
    return Case(channel, grid, TIME, 24, truth + 100, truth, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = SmallStore(EUROPE)
    config = ForecastConfig(lead_times=["24h", "72h"])
    path = tmp_path_factory.mktemp("maps") / "forecast.zarr"
    make_forecast(TestModel(store.domain(), drift), store, store.times[2:12], config, path, {"weights_sha256": "ab"})
    return store, ForecastFile(path)


# --- coastlines ---


def test_no_network_guard_bites():
    with pytest.raises(AssertionError, match="connection"):
        socket.create_connection(("example.org", 80))


def test_shipped_coastline_is_the_earths():
    """Known places: water and land, and no line across the map at the date line."""
    from cartopy.io.shapereader import Reader
    from shapely.geometry import Point
    from shapely.ops import unary_union

    land = unary_union(list(Reader(natural_earth_file("physical", "land")).geometries()))
    for longitude, latitude, is_land in (
        (2.3, 48.8, True), (5, 0, False), (-150, 0, False), (134, -25, True), (0, -89, True), (-178, 66.5, True),
        (175, 68, True), (-40, 72, True), (51, 42, False), (180, 10, False),
    ):  # fmt: skip
        assert land.contains(Point(longitude, latitude)) == is_land, (longitude, latitude)
    lines = list(Reader(natural_earth_file("physical", "coastline")).geometries())
    assert len(lines) > 100
    longest = max(np.abs(np.diff(np.asarray(part.coords)[:, 0])).max() for line in lines for part in _parts(line))
    assert longest < 30


def _parts(line):
    return getattr(line, "geoms", [line])


def test_shipped_files_have_no_projection_file_and_stay_small():
    folder = natural_earth_file("physical", "coastline").parents[2]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".shp", ".shx", ".dbf"}
    assert sum(path.stat().st_size for path in files) < 300_000


def test_own_cartopy_files_come_first(monkeypatch, tmp_path):
    own = tmp_path / "shapefiles/natural_earth/physical/ne_110m_coastline.shp"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.setitem(cartopy.config, "pre_existing_data_dir", tmp_path)
    assert natural_earth_file("physical", "coastline") == own
    assert natural_earth_file("physical", "land").is_relative_to(coastlines._SHIPPED)


@pytest.mark.parametrize("grid", [GLOBE, EUROPE], ids=["globe", "europe"])
def test_coastlines_are_drawn(grid):
    """With and without coastlines the maps differ in thousands of pixels."""
    pixels = []
    for simulated in (False, True):
        figure = panel_figure(case(grid=grid, simulated=simulated), "error")
        figure.axes[0].set_title("")
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=80)
        pixels.append(np.asarray(Image.open(buffer).convert("RGB"), int))
    changed = np.abs(pixels[0] - pixels[1]).max(-1) > 60
    assert changed.sum() > 1000


def test_count_of_lines():
    axes = Figure().add_subplot(projection=ccrs.Robinson())
    coast = draw_coastlines(axes)
    assert coast > 100
    assert draw_coastlines(axes, borders=True) > coast + 200


def test_simulated_planet_shows_its_own_land_and_mountains():
    mountain = np.zeros(GLOBE.shape)
    mountain[2:5, 3:8] = 2e4
    plain, hilly = (panel_figure(case(simulated=True, orography=field), "error") for field in (None, mountain))
    assert len(hilly.axes[0].collections) == len(plain.axes[0].collections) + 1


# --- the figures ---


def test_figure_says_what_when_and_in_which_units():
    figure = map_figure(case())
    texts = _texts(figure)
    assert "z500: 24 h forecast from 2009-03-12 12 UTC, valid 2009-03-13 12 UTC" in texts
    assert "Geopotential height (z ÷ g) at 500 hPa [dam]" in texts
    assert f"Forecast − truth (RMSE {100 / GRAVITY / 10:.3g} dam)" in texts
    assert "SIMULATED" not in texts


def _texts(figure):
    found = figure.findobj(matplotlib.text.Text)
    return "\n".join(text.get_text() for text in found)


def test_simulated_is_said():
    texts = _texts(map_figure(case(simulated=True)))
    assert "SIMULATED planet" in texts
    assert "Truth (simulated)" in texts


def test_forecast_and_truth_share_their_levels_and_the_error_is_centred():
    figure = map_figure(case())
    forecast, truth, error = (_filled(axes) for axes in figure.axes[:3])
    np.testing.assert_array_equal(forecast.levels, truth.levels)
    np.testing.assert_allclose(error.levels, -error.levels[::-1])
    assert error.cmap.name == "RdBu_r"


def _filled(axes):
    return next(c for c in axes.collections if isinstance(c, matplotlib.contour.QuadContourSet))


def test_matplotlib_is_left_as_it_was():
    before = dict(matplotlib.rcParams)
    png_bytes(panel_figure(case(), "truth"))
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    "grid",
    [
        EUROPE,
        Grid(np.arange(-20, -60, -5.0), np.arange(110, 160, 5.0)),
        Grid(np.arange(15, -16, -5.0), np.arange(160, 221, 5.0)),
        Grid(np.arange(90, 50, -5.0), np.arange(0, 100, 5.0)),
        Grid(np.arange(80, 10, -5.0), np.arange(-100, 150, 5.0)),
        GLOBE,
    ],
    ids=["europe", "australia", "dateline", "to-the-pole", "wide", "globe"],
)
def test_every_kind_of_area_is_drawn(grid):
    field = np.broadcast_to(280 + grid.latitude[:, None] / 3, grid.shape)
    figure = panel_figure(Case("t2m", grid, TIME, 24, field, field - 1), "truth")
    assert 0.1 < aspect_of(grid) < 10
    shown = np.asarray(Image.open(io.BytesIO(png_bytes(figure, dpi=50))).convert("HSV"))
    assert (shown[..., 1] > 100).mean() > 0.3  # saturated colours fill the map


def test_projections():
    assert isinstance(projection_of(GLOBE), ccrs.Robinson)
    assert isinstance(projection_of(EUROPE), ccrs.LambertConformal)
    tropics = Grid(np.arange(15, -16, -5.0), np.arange(160, 221, 5.0))
    assert isinstance(projection_of(tropics), ccrs.PlateCarree)


def test_missing_values_are_grey():
    """White is an error near zero."""
    with_gap = case("sst")
    with_gap.truth[:4] = np.nan
    grey = []
    for shown in (with_gap, case("sst")):
        image = Image.open(io.BytesIO(png_bytes(panel_figure(shown, "truth"), dpi=40)))
        colours = np.asarray(image.convert("RGB")).astype(int)
        grey.append((np.abs(colours - [0xC9, 0xCF, 0xD6]).max(-1) < 8).mean())
    assert grey[0] > grey[1] + 0.15


# --- closing the globe ---


@pytest.mark.parametrize("first", [0.0, 11.25], ids=["on-the-date-line", "beside-it"])
def test_closed_field_has_no_seam(first):
    longitude = first + np.arange(16) * 22.5
    grid = Grid(GLOBE.latitude, longitude)
    field = np.broadcast_to(np.cos(np.deg2rad(longitude)), grid.shape)
    x, y, closed = closed_field(grid, field)
    assert (np.diff(x) > 0).all()
    assert x[0] == pytest.approx(-180, abs=1e-5)
    assert x[-1] == pytest.approx(180, abs=1e-5)
    assert y[[0, -1]].tolist() == [90, -90]
    np.testing.assert_array_equal(closed[:, 0], closed[:, -1])
    np.testing.assert_allclose(closed, np.broadcast_to(np.cos(np.deg2rad(x)), closed.shape), atol=0.03)  # linear


def test_limited_area_is_left_as_it_is():
    x, y, closed = closed_field(EUROPE, np.zeros(EUROPE.shape))
    np.testing.assert_array_equal(x, EUROPE.longitude)
    np.testing.assert_array_equal(y, EUROPE.latitude)
    assert closed.shape == EUROPE.shape


# --- units and levels ---


def test_units_shown():
    assert display_of("z500").field(np.array([GRAVITY * 5500]))[0] == pytest.approx(550)
    assert display_of("msl").field(np.array([101325.0]))[0] == pytest.approx(1013.25)
    assert display_of("t850").field(np.array([273.15]))[0] == pytest.approx(0)
    assert display_of("t850").error(np.array([2.0]))[0] == pytest.approx(2)
    assert (display_of("t850").units, display_of("t850").error_units) == ("°C", "K")


def test_words():
    assert name_in_words("z500") == "geopotential at 500 hPa"
    assert name_in_words("u100m") == "100 m eastward wind"
    assert display_of("u100m") == display_of("u10")
    assert name_in_words("u10") == "10 m eastward wind"
    assert name_in_words("t2m") == "2 m temperature"
    assert quantity_in_words("z500") == "geopotential height (z ÷ g) at 500 hPa"
    assert pretty_units("m2 s-2") == "m² s⁻²"
    assert pretty_units("1") == "1"


@pytest.mark.parametrize("variable", VARIABLES.values(), ids=lambda v: v.short)
def test_every_variable_can_be_shown(variable):
    name = variable.short + ("500" if variable.on_levels or variable.on_wavelengths else "")
    assert display_of(name).colours in matplotlib.colormaps
    assert quantity_in_words(name)


def test_field_levels_are_round_and_robust():
    values = np.concatenate([np.linspace(500, 600, 1000), [1e6]])
    levels = field_levels(values)
    assert levels[-1] <= 610
    assert 8 <= len(levels) <= 18
    symmetric = field_levels(np.linspace(-10, 50, 100), signed=True)
    np.testing.assert_allclose(symmetric, -symmetric[::-1])


@pytest.mark.parametrize("values", [np.zeros(4), np.full(4, 273.15), np.full(4, -1e-9), np.full(4, np.nan)])
def test_levels_of_constant_fields(values):
    for levels in (field_levels(values), error_levels(values), field_levels(values, signed=True)):
        assert len(levels) >= 2
        assert (np.diff(levels) > 0).all()


def test_error_levels_leave_zero_out():
    levels = error_levels(np.linspace(-3, 1, 50))
    np.testing.assert_allclose(levels, -levels[::-1])
    assert 0 not in levels


# --- cases and files ---


def test_case_rmse_is_area_weighted():
    forecast = np.zeros((1, *GLOBE.shape))
    truth = np.broadcast_to(np.sin(np.deg2rad(GLOBE.latitude))[:, None], GLOBE.shape)[None]
    weights = GLOBE.area_weights
    assert map_rmse(GLOBE, forecast, truth)[0] == pytest.approx(np.sqrt((weights * truth**2).mean()), rel=1e-12)


def test_pick_init_times_by_error(made):
    store, file = made
    picked = pick_init_times(file, store, "t850", 24)
    errors = {init: load_case(file, store, "t850", 24, init).rmse for init in file.init_times}
    ordered = sorted(errors, key=errors.__getitem__)
    assert [picked[name] for name in ("best", "median", "worst")] == [ordered[0], ordered[5], ordered[-1]]


def test_load_case_reads_the_valid_time(made):
    store, file = made
    loaded = load_case(file, store, "t850", 72, file.init_times[1])
    np.testing.assert_array_equal(loaded.truth, store.state[2 + 1 + 3, 1])
    assert title_of(loaded).startswith("t850: 72 h forecast from 2020-01-04 00 UTC, valid 2020-01-07 00 UTC")


def test_load_case_refuses_a_time_without_forecast(made):
    with pytest.raises(InputError, match=r"no forecast from 1999-01-01.*nearest.* are 2020-01-03T00"):
        load_case(made[1], made[0], "t850", 24, np.datetime64("1999-01-01", "s"))


def test_nearest_initial_times_are_named(made):
    with pytest.raises(InputError, match=r"nearest .* are 2020-01-05T00, 2020-01-06T00, 2020-01-07T00"):
        require_init_time(made[1], np.datetime64("2020-01-06T06", "s"))
    assert require_init_time(made[1], np.datetime64("2020-01-06", "D")) == np.datetime64("2020-01-06T00", "s")


def test_picks_among_the_scored_times_only(made):
    store, file = made
    picked = pick_init_times(file, store, "t850", 24, file.init_times[2:4])
    assert set(picked.values()) <= set(file.init_times[2:4])


# --- animation ---


def test_frames_share_their_levels(made):
    store, file = made
    cases = load_cases(file, store, "t850", file.init_times[1], [24, 72])
    figures = [map_figure(case, levels_of(cases)) for case in cases]
    levels = [[_filled(axes).levels for axes in figure.axes[:3]] for figure in figures]
    for first, second in zip(*levels, strict=True):
        np.testing.assert_array_equal(first, second)
    alone = _filled(map_figure(cases[0]).axes[2]).levels
    assert levels[0][2][-1] > alone[-1]  # the drift of 72 h is three times that of 24 h


def test_a_map_shown_twice_has_one_scale(made):
    store, file = made
    shown, median = shown_cases(file, store, ["z500", "t850"], [24, 72], file.init_times)
    film = load_cases(file, store, "z500", median, [24, 72])
    levels = levels_by_channel([*(one.case for one in shown), *film])
    assert set(levels) == {"z500", "t850"}
    assert [one.which for one in shown] == ["median"] * 4 + ["best", "worst"]
    twice = [next(one.case for one in shown if one.case.lead_time == 24), film[0]]
    drawn = [_filled(panel_figure(case, "error", levels["z500"]).axes[0]).levels for case in twice]
    np.testing.assert_array_equal(*drawn)
    alone = [_filled(panel_figure(case, "error", levels_of(own)).axes[0]).levels for case, own in
             zip(twice, ([twice[0]], film), strict=True)]  # fmt: skip
    assert alone[0][-1] != alone[1][-1]  # as it was


def test_mean_error_and_rmse_by_point(made, monkeypatch):
    store, file = made
    places = np.arange(len(file.init_times))
    mean, rmse = error_by_point(file, store, "z500", 72, places)
    errors = []
    for time in file.init_times:
        one = load_case(file, store, "z500", 72, time)
        errors.append(one.forecast.astype(float) - one.truth)
    np.testing.assert_allclose(mean, np.mean(errors, axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rmse, np.sqrt(np.mean(np.square(errors), axis=0)), rtol=1e-6)
    drawn = _filled(mean_error_figure(one, mean).axes[0])
    np.testing.assert_allclose(drawn.levels, -drawn.levels[::-1])
    assert _filled(rmse_figure(one, rmse).axes[0]).levels[0] == 0


def test_mean_errors_are_of_a_bounded_number_of_cases(made, monkeypatch):
    store, file = made
    (group,) = mean_error_maps(file, store, ["z500"], [24, 24], file.init_times)
    assert group.title == "z500 at 24 h, 10 cases"
    monkeypatch.setattr("weatherfm.evaluation.figures.maps.mean_error.MOST_CASES", 4)
    (group,) = mean_error_maps(file, store, ["z500"], [24], file.init_times)
    assert group.title == "z500 at 24 h, 4 of 10 cases, spread evenly"
    assert [picture.text for picture in group.pictures] == [
        f"Map of the {what}, {group.title}" for what in ("mean error", "RMSE")
    ]
    with pytest.raises(InputError, match="q700"):
        mean_error_maps(file, store, ["q700"], [24], file.init_times)


def test_animation_for_the_page(made):
    store, file = made
    cases = load_cases(file, store, "t850", file.init_times[1], [24, 72])
    film = animation(cases)
    assert [frame.label for frame in film.frames] == [
        "24 h, valid 2020-01-05 00 UTC",
        "72 h, valid 2020-01-07 00 UTC",
    ]
    assert all(len(frame.pictures) == 3 for frame in film.frames)
    assert animation(cases[:1]) is None


def test_a_film_has_at_most_twelve_frames():
    assert frame_leads([24, 48]) == [24, 48]
    shown = frame_leads(list(range(6, 366, 6)))
    assert (len(shown), shown[0], shown[-1]) == (12, 6, 360)


class EnsembleFile:
    """The forecast of `made` as two members that differ by 2 K."""

    def __init__(self, file):
        self._file, self.members = file, 2

    def __getattr__(self, name):
        return getattr(self._file, name)

    def read(self, *which):
        fields = self._file.read(*which)
        return np.stack([fields - 1, fields + 1], axis=1)


def test_an_ensemble_is_shown_by_its_mean(made):
    store, file = made
    init = file.init_times[1]
    single, mean = (load_case(which, store, "t850", 24, init) for which in (file, EnsembleFile(file)))
    np.testing.assert_allclose(mean.forecast, single.forecast, rtol=1e-6)  # float32 of some 280 K
    assert "Mean of 2 members" in _texts(map_figure(mean))
    assert pick_init_times(EnsembleFile(file), store, "t850", 24) == pick_init_times(file, store, "t850", 24)


def test_write_maps(made, tmp_path):
    init = made[1].init_times[3]
    paths = write_maps(tmp_path / "maps", made[1], made[0], CHANNELS[:1], [72], init)
    assert [path.name for path in paths] == [f"z500_072h_{str(init)[:13]}.png"]
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "maps", *paths])
    with Image.open(paths[0]) as image:
        assert image.width > 1500
    assert paths[0].stat().st_size < 300_000


def test_write_maps_refuses(made, tmp_path):
    store, file = made
    with pytest.raises(InputError, match=r"lacks lead times 48h; it has 24h, 72h"):
        write_maps(tmp_path, file, store, ["z500"], [48])
    with pytest.raises(InputError, match="lacks mean_sea_level_pressure"):
        write_maps(tmp_path, file, store, ["msl"])
    with pytest.raises(InputError, match="maps need a channel"):
        write_maps(tmp_path, file, store, [])
    assert not list(tmp_path.iterdir())


def test_real_globe_has_its_features_where_they_are(real_data):
    """On 2 January 500 hPa heights are lower over the poles than over the equator, and the map draws them."""
    path = real_data / "era5_global_state" / "era5_tl31_19590102T00.nc"
    data = xr.open_dataset(path).sel(level=500)["geopotential"].transpose("latitude", "longitude")
    data = data.sortby("latitude", ascending=False)
    grid = Grid(data["latitude"].values, data["longitude"].values)
    figure = panel_figure(Case("z500", grid, TIME, 24, data.values, data.values), "truth")
    levels = _filled(figure.axes[0]).levels
    assert levels[0] >= 470
    assert levels[-1] <= 600
    with style():
        assert len(png_bytes(figure)) < 120_000
