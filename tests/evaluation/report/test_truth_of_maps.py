"""Maps are of the truth that was scored: another store, or one that was prepared anew, is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from invented_source import data_config
from matplotlib.figure import Figure
from moving_weather import CHANNELS, GRID, TIMES, weather

from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.data_pipeline.store.records.replaced_while_read import told_of
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate_to_file import score
from weatherfm.evaluation.figures.maps import map_groups, mean_error
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.report.scored_points import require_scored_truth
from weatherfm.evaluation.report_to_file import Page, write_page
from weatherfm.evaluation.results.scores_file import read_scores

VALUES = weather()
SETTINGS = EvaluationConfig(regions=["global"], by=[], damped_persistence=False, spectra=False)
END = 240  # times of the store that was scored


def source(values=VALUES, count=END):
    coordinates = {"time": TIMES, "channel": list(CHANNELS), "latitude": GRID.latitude, "longitude": GRID.longitude}
    state = xr.DataArray(values, dims=tuple(coordinates), coords=coordinates).isel(time=slice(count))
    return SourceData(state.chunk({"time": 40}), None, {"made": "for a test"}, simulated=False)


def config(path, last="2000-02-29", train="2000-01-01/2000-02-20"):
    return data_config(path, channels=list(CHANNELS), train=train, test=f"2000-02-22/{last}")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """(folder with a store, a forecast of a day and its scores)"""
    folder = tmp_path_factory.mktemp("truth")
    prepare(config(folder / "s.zarr"), source())
    inits = np.flatnonzero(np.datetime64("2000-02-22") <= TIMES)[:4]
    fields = VALUES[inits + 1][:, None]
    data = xr.Dataset(
        {"mean_sea_level_pressure": (("time", "prediction_timedelta", "latitude", "longitude"), fields[:, :, 2] + 100)},
        {
            "time": TIMES[inits].astype("datetime64[ns]"),
            "prediction_timedelta": np.array([6], "m8[h]").astype("m8[ns]"),
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )
    data["mean_sea_level_pressure"].attrs["units"] = "Pa"
    data.to_zarr(folder / "forecast.zarr", zarr_format=2)
    score(str(folder / "forecast.zarr"), folder / "s.zarr", SETTINGS, folder / "scores.nc")
    return folder


@pytest.fixture
def quick(monkeypatch):
    for place, name in (
        (map_groups, "panel_figure"),
        (mean_error, "mean_error_figure"),
        (mean_error, "rmse_figure"),
    ):
        monkeypatch.setattr(place, name, lambda *_: Figure(figsize=(3, 2)))


def test_the_store_of_the_scores_is_shown(scored, quick, tmp_path):
    page = Page(scored / "scores.nc", store=scored / "s.zarr", output=tmp_path / "r.html")
    assert '<section id="maps">' in write_page(page).page.read_text()


def test_a_forecast_of_others_that_was_replaced_is_refused_by_its_errors(scored, quick, tmp_path):
    """It says nothing of itself. By hand: its errors were 100 Pa everywhere, and are 50."""
    path = shutil.copytree(scored, tmp_path / "moved") / "forecast.zarr"
    pressure = zarr.open_array(path / "mean_sea_level_pressure", mode="r+")
    pressure[:] = pressure[:] - 50
    page = Page(tmp_path / "moved" / "scores.nc", store=scored / "s.zarr", output=tmp_path / "r.html")
    with pytest.raises(InputError, match=r"is not what was scored: from .* the RMSE of msl at 6 h is 50, and 100 in"):
        write_page(page)
    assert not (tmp_path / "r.html").exists()


def test_another_store_is_refused_by_name(scored, quick, tmp_path):
    """It was taken in silence: maps, errors and means were of another truth than the scores."""
    other = prepare(config(tmp_path / "other.zarr"), source(VALUES[::-1]))
    page = Page(scored / "scores.nc", store=tmp_path / "other.zarr", output=tmp_path / "r.html")
    with pytest.raises(InputError) as caught:
        write_page(page)
    told, first = str(caught.value), open_store(scored / "s.zarr")
    assert f"{tmp_path / 'other.zarr'} (checksum {other.manifest['checksum'][:12]})" in told
    assert f"{scored / 's.zarr'}, checksum {first.manifest['checksum'][:12]}" in told
    assert "where it was prepared anew, evaluate again" in told
    assert not (tmp_path / "r.html").exists()


def test_a_store_prepared_anew_is_another(scored, tmp_path):
    """Test days were corrected: statistics, climatology and times are as before."""
    values = VALUES.copy()
    values[END - 8] += 1
    anew = prepare(config(tmp_path / "s.zarr"), source(values))
    with pytest.raises(InputError, match="evaluate again"):
        require_scored_truth(anew, read_scores(scored / "scores.nc"))


def test_a_store_that_was_appended_to_is_the_same(scored, quick, tmp_path):
    prepare(config(tmp_path / "s.zarr"), source())
    before = open_store(tmp_path / "s.zarr")
    longer = append(config(tmp_path / "s.zarr", "2000-03-15"), source(count=None))
    assert len(longer.times) > before.manifest["times"]["count"] == END
    assert longer.manifest["checksum"] != before.manifest["checksum"]
    page = Page(scored / "scores.nc", scored / "forecast.zarr", store=tmp_path / "s.zarr", output=tmp_path / "r.html")
    assert '<section id="maps">' in write_page(page).page.read_text()


def test_more_training_days_make_another_store(scored, tmp_path):
    prepare(config(tmp_path / "s.zarr"), source())
    longer = append(config(tmp_path / "s.zarr", "2000-03-15", "2000-01-01/2000-02-21"), source(count=None))
    with pytest.raises(InputError, match="is not that of these scores"):
        require_scored_truth(longer, read_scores(scored / "scores.nc"))


def test_scores_of_before(scored):
    """They name the store by its checksum alone, or not at all."""
    scores, store = read_scores(scored / "scores.nc"), open_store(scored / "s.zarr")
    record = scores.attrs["provenance"]
    scores.attrs["provenance"] = '{"store_checksum": "0123456789abcdef"}'
    with pytest.raises(InputError, match=r"is not that of these scores \(checksum 0123456789ab\)"):
        require_scored_truth(store, scores)
    for text in ("{}", record):
        scores.attrs["provenance"] = text
        require_scored_truth(store, scores)
    assert told_of(store.manifest)["count"] == END
