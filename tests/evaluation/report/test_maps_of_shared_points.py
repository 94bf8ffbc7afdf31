"""Maps of scores on what forecasts share (`--common`): they show the same rows and points, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from small_store import SmallStore

from weatherfm.earth.grid import Grid
from weatherfm.evaluation import report_to_file
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.figures.maps import map_groups, mean_error, panels
from weatherfm.evaluation.figures.maps.case import load_case, map_rmse
from weatherfm.evaluation.figures.maps.projection import closed_field
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.report.page import write_report
from weatherfm.evaluation.report.scored_points import on_scored_points
from weatherfm.evaluation.report_to_file import Page, write_page
from weatherfm.evaluation.results.comparison import merge_scores
from weatherfm.evaluation.results.scores_file import read_scores, write_scores

GRID = Grid(np.linspace(90, -90, 9), np.arange(16) * 22.5)
LEADS = (24, 48)
SETTINGS = EvaluationConfig(regions=["global"], by=[], damped_persistence=False, events=["t2m > 285"])
GAP = np.zeros(GRID.shape, bool)
GAP[2:4, 3:8] = True
LESS = np.zeros(GRID.shape, bool)
LESS[6, 1] = True


def written(path, fields, rows=slice(None)):
    """In WeatherBench2's layout; `fields` are [init, (member,) lead, channel (z500, t2m), lat, lon]."""
    members = {"number": np.arange(fields.shape[1])} if fields.ndim == 6 else {}
    dims = ("time", *members, "prediction_timedelta", "latitude", "longitude")
    fields = fields[..., rows, :].astype(np.float32)
    data = xr.Dataset(
        {
            "2m_temperature": (dims, fields[..., 1, :, :], {"units": "K"}),
            "geopotential": ((*dims[:-2], "level", *dims[-2:]), fields[..., :1, :, :], {"units": "m2 s-2"}),
        },
        members
        | {
            "time": SmallStore(GRID, 12).times[:8].astype("datetime64[ns]"),
            "prediction_timedelta": np.array(LEADS, "m8[h]").astype("m8[ns]"),
            "level": [500],
            "latitude": GRID.latitude[rows],
            "longitude": GRID.longitude,
        },
    )
    data.to_zarr(path, zarr_format=2, consolidated=True)
    return path


@pytest.fixture(scope="module")
def store():
    return SmallStore(GRID, 12)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, store):
    """Scores of `one`, which lacks some points of t2m, of `two`, which lacks another and the row at the south pole."""
    folder = tmp_path_factory.mktemp("shared")
    truth = np.stack([store.state[np.arange(8) + hours // 24][:, [0, 3]] for hours in LEADS], 1)
    errors = np.random.default_rng(0).normal(0, [[[30.0]], [[2.0]]], truth.shape)
    one, two = truth + errors, truth + 2 * errors
    one[:, :, 1, GAP], two[:, :, 1, LESS] = np.nan, np.nan
    written(folder / "one.zarr", one)
    written(folder / "two.zarr", two, slice(0, -1))
    scores = evaluate(folder / "one.zarr", store, [folder / "two.zarr"], SETTINGS, common=True)
    write_scores(scores, folder / "one.scores.nc")
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The cases and the mean errors that a page shows; empty pictures, which are quick to draw."""
    shown = []

    def draw(case, *_):
        shown.append(case)
        return Figure(figsize=(3, 2))

    def draw_mean(case, field):
        shown.append(field)
        return Figure(figsize=(3, 2))

    monkeypatch.setattr(map_groups, "panel_figure", draw)
    monkeypatch.setattr(panels, "map_figure", draw)
    monkeypatch.setattr(mean_error, "mean_error_figure", draw_mean)
    monkeypatch.setattr(mean_error, "rmse_figure", draw_mean)
    return shown


def blanks(shown):
    """(channel, where forecast and truth are blank) of each case; all of them on the rows that both forecasts have."""
    found = []
    for case in shown:
        assert case.grid.shape == case.forecast.shape == (8, 16)
        np.testing.assert_array_equal(np.isnan(case.forecast), np.isnan(case.truth))
        found.append((case.channel, np.isnan(case.truth)))
    return found


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_page_shows_what_all_forecasts_share(scored, store, drawn, tmp_path, name):
    scores = read_scores(scored / "one.scores.nc")
    out = write_report(scores, tmp_path / "r.html", scored / f"{name}.zarr", store, channels=["t2m", "z500"])
    assert out.is_file()
    cases = [one for one in drawn if not isinstance(one, np.ndarray)]
    assert {channel for channel, _ in blanks(cases)} == {"t2m", "z500"}
    for channel, blank in blanks(cases):
        np.testing.assert_array_equal(blank, (GAP | LESS)[:-1] if channel == "t2m" else np.zeros((8, 16), bool))
    means = [one for one in drawn if isinstance(one, np.ndarray)]  # mean error, then RMSE: t2m, then z500, at two leads
    assert len(means) == 8
    np.testing.assert_array_equal(np.isnan(means[0]), (GAP | LESS)[:-1])
    fields = xr.open_zarr(scored / f"{name}.zarr")["2m_temperature"].isel(prediction_timedelta=0).values[:, :8]
    error = fields.astype(np.float64) - store.state[1:9, 3, :8]
    seen = ~(GAP | LESS)[:-1]
    np.testing.assert_allclose(means[0][seen], error.mean(0)[seen], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(means[1][seen], np.sqrt((error**2).mean(0))[seen], rtol=1e-4)


def test_the_error_of_a_map_is_the_score_of_its_case(scored, store):
    scores = read_scores(scored / "one.scores.nc")
    file = ForecastFile(scored / "one.zarr", 24)
    shared = on_scored_points(file, store, scores)
    for channel in ("t2m", "z500"):
        case = load_case(file, shared, channel, 48, file.init_times[3])
        own = scores["mse_by_case"].sel(forecast="one", region="global", channel=channel).isel(init_time=3, lead_time=1)
        assert case.rmse == pytest.approx(float(own) ** 0.5, rel=1e-4)
    assert on_scored_points(file, shared, scores) is shared
    again = on_scored_points(file, store, scores)  # its rows are kept already
    np.testing.assert_array_equal(load_case(file, again, "z500", 48, file.init_times[3]).forecast, case.forecast)


def test_a_row_less_at_the_north_pole(scored, store, tmp_path):
    """Rows kept twice stay where they are."""
    truth = np.stack([store.state[np.arange(8) + hours // 24][:, [0, 3]] for hours in LEADS], 1)
    written(tmp_path / "a.zarr", truth)
    written(tmp_path / "b.zarr", truth + 1, slice(1, None))
    scores = evaluate(tmp_path / "a.zarr", store, [tmp_path / "b.zarr"], SETTINGS, common=True)
    file = ForecastFile(tmp_path / "a.zarr", 24)
    for _ in range(2):
        case = load_case(file, on_scored_points(file, store, scores), "z500", 24, file.init_times[0])
        np.testing.assert_array_equal(case.forecast, truth[0, 0, 0, 1:].astype(np.float32))
        assert case.rmse == 0


def test_scores_that_do_not_say_which_points(scored, store, drawn, tmp_path):
    """Those of before: the forecast's own are left out."""
    scores = read_scores(scored / "one.scores.nc").drop_vars("points_left_out")
    write_report(scores, tmp_path / "r.html", scored / "one.zarr", store, channels=["t2m"])
    found = blanks([one for one in drawn if not isinstance(one, np.ndarray)])
    np.testing.assert_array_equal(found[0][1], GAP[:-1])


def test_pictures_in_a_folder_are_of_what_was_scored(scored, store, drawn, tmp_path, monkeypatch):
    """Lead times and initial times that some forecast lacks, too; the forecast is that of `one.scores.nc`."""
    monkeypatch.setattr(report_to_file, "open_store", lambda path: store)
    monkeypatch.setattr(report_to_file, "write_report", lambda *_, **__: None)
    page = Page(scored / "one.scores.nc", store=tmp_path, maps=True, headline=["t2m"], output=tmp_path / "r.html")
    assert [path.name[:8] for path in write_page(page).maps] == ["t2m_024h", "t2m_048h"]
    for _, blank in blanks(drawn):
        np.testing.assert_array_equal(blank, (GAP | LESS)[:-1])
    some = read_scores(scored / "one.scores.nc").isel(lead_time=[1], init_time=[2])
    write_scores(some, tmp_path / "one.scores.nc")
    page = Page(tmp_path / "one.scores.nc", scored / "one.zarr", store=tmp_path, maps=True, headline=["t2m"])
    assert [path.name for path in write_page(page).maps] == ["t2m_048h_2020-01-03T00.png"]


def test_an_ensemble_with_gaps(store, drawn, tmp_path, monkeypatch):
    truth = np.stack([store.state[np.arange(8) + hours // 24][:, [0, 3]] for hours in LEADS], 1)
    members = truth[:, None] + np.random.default_rng(1).normal(0, 2, (8, 3, *truth.shape[1:]))
    members[:, :, :, 1, GAP] = np.nan
    path = written(tmp_path / "ens.zarr", members)
    scores = evaluate(path, store, settings=SETTINGS, common=True)
    text = write_report(scores, tmp_path / "r.html", path, store, channels=["t2m"]).read_text()
    assert '<section id="members">' in text
    for _, blank in ((case.channel, np.isnan(case.forecast)) for case in drawn if not isinstance(case, np.ndarray)):
        np.testing.assert_array_equal(blank, GAP)


def test_points_stay_with_merged_scores(scored):
    scores = read_scores(scored / "one.scores.nc")
    merged = merge_scores([scores, scores], ["run", "rival"])
    np.testing.assert_array_equal(
        merged["points_left_out"].sel(channel="t2m"), scores["points_left_out"].sel(channel="t2m")
    )
    np.testing.assert_array_equal(scores["points_left_out"].sel(channel="t2m"), (GAP | LESS)[:-1])
    assert not scores["points_left_out"].sel(channel="z500").any()


def test_rows_left_out_are_blank_on_the_globe():
    """They were coloured by their neighbours, up to the pole."""
    for rows, blank in ((slice(0, -2), [False, True]), (slice(2, None), [True, False]), (slice(None), [False, False])):
        grid = Grid(GRID.latitude[rows], GRID.longitude)
        _, latitude, field = closed_field(grid, np.ones(grid.shape))
        assert latitude[[0, -1]].tolist() == [90, -90]
        assert np.isnan(field[[0, -1]]).all(1).tolist() == blank
    gaussian = Grid(np.array([85.76, 80.27, 74.74, -74.74, -80.27, -85.76]), GRID.longitude)  # of N16
    assert np.isfinite(closed_field(gaussian, np.ones(gaussian.shape))[2]).all()


def test_the_error_of_a_field_with_a_blank_is_of_the_rest():
    forecast, truth = np.full((2, *GRID.shape), 3.0), np.ones((2, *GRID.shape))
    forecast[:, GAP], truth[:, GAP] = np.nan, np.nan
    np.testing.assert_allclose(map_rmse(GRID, forecast, truth), 2)
