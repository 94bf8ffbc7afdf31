from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray as xr
from small_store import CHANNELS, EUROPE, SmallStore, TestModel, drift, identity

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store_config import DataConfig, Period
from weatherfm.errors import InputError
from weatherfm.evaluation import evaluate as evaluate_module
from weatherfm.evaluation.baselines.persistence_and_climatology import FieldWindow
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import forecast_init_times, make_forecast
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.results.comparison import differences_between, merge_scores
from weatherfm.evaluation.results.lookup import lead_hours, provenance_of
from weatherfm.evaluation.results.scores_file import read_scores, write_scores
from weatherfm.evaluation.results.text_table import headline_channels, score_table
from weatherfm.evaluation.scoring import scorer as scoring
from weatherfm.evaluation.scoring.cases_to_score import Choice

LEADS = (24, 72)
INITS = slice(2, 12)
MINUTE = np.timedelta64(1, "m")


def forecast(store, path, rule=drift, provenance=None, inits=INITS):
    config = ForecastConfig(lead_times=[f"{hours}h" for hours in LEADS])
    model = TestModel(store.domain(), rule)
    return make_forecast(model, store, store.times[inits], config, path, provenance or {"weights_sha256": "abc"})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(store, path) of a forecast that nobody changes."""
    store = SmallStore()
    return store, forecast(store, tmp_path_factory.mktemp("forecast") / "f.zarr")


@pytest.fixture
def store():
    return SmallStore()


@pytest.fixture
def foreign(made, tmp_path):
    """Writes the forecast anew as others would, after a change of the dataset; gives the path."""

    def write(change):
        dataset = xr.open_zarr(made[1], chunks=None).load()
        path = tmp_path / "other.zarr"
        changed = change(dataset).drop_encoding()
        changed.attrs = {}
        changed.to_zarr(path, zarr_format=2, consolidated=True)
        return path

    return write


@pytest.fixture(scope="module")
def scores(made):
    return evaluate(made[1], made[0])


def test_dims_names_and_provenance(made, scores):
    store = made[0]
    assert scores["rmse"].dims == ("forecast", "period", "region", "lead_time", "channel")
    assert scores["forecast"].values.tolist() == ["model", "persistence", "climatology"]
    assert scores["kind"].values.tolist() == ["model", "baseline", "baseline"]
    assert scores["period"].values.tolist() == ["all", "DJF"]
    bands = ["global", "northern_extratropics", "southern_extratropics", "tropics"]
    assert scores["region"].values.tolist()[:4] == bands
    assert lead_hours(scores) == [24, 72]
    assert scores["channel"].values.tolist() == list(CHANNELS)
    assert scores["units"].values.tolist() == ["m2 s-2", "K", "K", "K"]
    deterministic = {"rmse", "mse", "mae", "bias", "acc", "acc_centred", "activity", "activity_ratio"}
    tested = {"rmse_p_value", "rmse_skill_low", "rmse_skill_high"}
    spectra = {f"{kind}_spectrum{of}" for kind in ("zonal", "spherical") for of in ("", "_truth", "_error")}
    assert set(scores.data_vars) == deterministic | tested | spectra | {"mse_by_case"}
    assert all(array.attrs["long_name"] for array in scores.data_vars.values())
    assert scores.attrs["simulated"] == "true"
    assert scores.attrs["cases"] == 10
    record = provenance_of(scores)
    assert record["weights_sha256"] == {"model": "abc"}
    assert record["climatology_period"] == "2010-01-01/2019-12-31"
    assert record["climatology_window_days"] == 61
    assert record["truth"] == store.manifest["source"]
    assert record["forecasts"]["model"]["mode"] == "direct"
    np.testing.assert_array_equal(scores["init_time"], store.times[INITS].astype("datetime64[ns]"))


def test_values_against_whole_arrays(made, scores):
    """The same by one numpy expression over everything at once."""
    store = made[0]
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    cases = np.arange(2, 12)
    for i, hours in enumerate(LEADS):
        truth = store.state[cases + hours // 24].astype(np.float64)
        normal = store.climatology_at(store.times[cases + hours // 24]).astype(np.float64)
        now = store.state[cases].astype(np.float64)
        predicted = (store.state[cases] + hours / 24 * store.std[:, None, None]).astype(np.float64)
        for name, field in {"model": predicted, "persistence": now, "climatology": normal}.items():
            mse = (np.square(field - truth) * weights).sum((2, 3)).mean(0)
            found = scores.sel(forecast=name, region="global", period="all").isel(lead_time=i)
            np.testing.assert_allclose(found["rmse"], np.sqrt(mse), rtol=1e-5)
        covariance = ((now - normal) * (truth - normal) * weights).sum((0, 2, 3))
        spread = [(np.square(x - normal) * weights).sum((0, 2, 3)) for x in (now, truth)]
        found = scores["acc"].sel(forecast="persistence", region="global", period="all").isel(lead_time=i)
        np.testing.assert_allclose(found, covariance / np.sqrt(spread[0] * spread[1]), rtol=1e-10)
    assert np.isnan(scores["acc"].sel(forecast="climatology")).all()
    assert np.isfinite(scores["acc"].sel(forecast=["model", "persistence"])).all()


def test_a_forecast_of_persistence_scores_as_persistence(store, tmp_path):
    scores = evaluate(forecast(store, tmp_path / "f.zarr", identity), store)
    np.testing.assert_allclose(scores["rmse"][0], scores["rmse"].sel(forecast="persistence"), rtol=1e-5)


def test_each_truth_field_is_read_once_whatever_the_blocks(made, scores, monkeypatch):
    monkeypatch.setattr(scoring, "_BLOCK_BYTES", 3 * made[0].state[0].nbytes)
    store = SmallStore()
    xr.testing.assert_allclose(evaluate(made[1], store), scores, rtol=1e-12)
    assert sorted(store.reads) == list(store.times[2:15])


def test_channel_groups_do_not_change_scores(made, scores, monkeypatch):
    monkeypatch.setattr(evaluate_module, "_WINDOW_BYTES", 1)
    xr.testing.assert_allclose(evaluate(*made[::-1]), scores, rtol=1e-12)


def test_the_window_forgets():
    window = FieldWindow(lambda times: np.zeros((len(times), 1)))
    times = np.arange("2020-01-01", "2020-01-05", dtype="datetime64[D]")
    window.at(times)
    window.at(times)
    assert window.reads == 4
    window.forget_before(times[2])
    window.at(times)
    assert window.reads == 6


def test_chosen_channels_and_regions(made, scores):
    some = evaluate(
        made[1],
        made[0],
        settings=EvaluationConfig(regions=["tropics"]),
        choice=Choice(
            (
                "t2m",
                "z500",
            )
        ),
    )
    expected = scores.sel(region=["tropics"], channel=["t2m", "z500"])
    xr.testing.assert_allclose(some, expected, rtol=1e-12)


def test_limited_area(tmp_path):
    store = SmallStore(EUROPE)
    assert evaluate(forecast(store, tmp_path / "f.zarr"), store)["region"].values.tolist() == ["area"]


def test_other_forecasts_on_the_same_cases(made, store, scores, tmp_path):
    other = forecast(store, tmp_path / "f.zarr", identity, {"name": "lazy", "weights_sha256": "def"})
    both = evaluate(made[1], store, [other])
    assert both["forecast"].values.tolist() == ["model", "lazy", "persistence", "climatology"]
    names = ["model", "persistence", "climatology"]
    xr.testing.assert_allclose(both.sel(forecast=names, reference=names), scores, rtol=1e-12)
    assert provenance_of(both)["weights_sha256"] == {"model": "abc", "lazy": "def"}
    assert differences_between(both, scores) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(latitude=slice(None, None, -1)),
        lambda data: data.transpose("prediction_timedelta", "time", "level", "longitude", "latitude"),
        lambda data: data.assign(geopotential=data["geopotential"].assign_attrs(units="m**2 s**-2")),
        lambda data: data.sel(level=[850, 500]),
        lambda data: data.assign(wind_speed=data["2m_temperature"]),
        lambda data: data.assign(orography=data["2m_temperature"].isel(time=0, prediction_timedelta=0, drop=True)),
    ],
    ids=["ascending-latitude", "order-of-dims", "spelling-of-units", "order-of-levels", "unknown-variable", "constant"],
)
def test_files_of_others(store, scores, foreign, change):
    found = evaluate(foreign(change), store, choice=Choice(tuple(CHANNELS)))
    assert found["forecast"].values[0] == "other"
    for name in scores.data_vars:
        np.testing.assert_allclose(found[name], scores[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.drop_vars("2m_temperature"), "lacks 2m_temperature .channel t2m."),
        (lambda d: d.sel(level=[500]), "lacks level 850 .channel t850.*has levels 500 hPa"),
        (lambda d: d.isel(prediction_timedelta=[0]), "lacks lead times 72h.*has 24h"),
        (lambda d: d.isel(time=slice(1, None)), "9 initial times.*10, and 9 are common"),
        (lambda d: d.assign_coords(latitude=d["latitude"] + 1), "regrid the forecast"),
        (lambda d: d.isel(longitude=slice(0, 8)), "regrid the forecast"),
        (lambda d: d.assign(temperature=d["temperature"].assign_attrs(units="degC")), "units 'degC', expected 'K'"),
        (lambda d: d.assign(temperature=d["temperature"].drop_attrs()), "units None.*expected 'K'"),
        (lambda d: d.assign(temperature=d["temperature"].assign_attrs(units="m s-1")), "units 'm s-1'.*expected 'K'"),
        (lambda d: d.expand_dims(run=2), "dims run"),
        (lambda d: d.assign(temperature=d["temperature"].isel(level=0, drop=True)), "temperature.*has dims"),
        (lambda d: d.rename(prediction_timedelta="lead"), "no coordinate 'prediction_timedelta'"),
        (lambda d: d.drop_vars("latitude"), "no coordinate 'latitude'"),
        (lambda d: d.assign_coords(prediction_timedelta=[24, 72]), "prediction_timedelta .* is no time"),
        (lambda d: d.isel(time=[0, *range(0, 9)]), "does not ascend strictly"),
        (lambda d: d.assign_coords(prediction_timedelta=d.prediction_timedelta + MINUTE), "whole hours"),
        (lambda d: d.where((d["time"] != d["time"][3]) | (d["latitude"] < 0)), "z500 from 2020-01-06T00:00:00 at 24h"),
        (lambda d: d.rename(geopotential="z", temperature="a", **{"2m_temperature": "b"}), "no variable we know"),
    ],
)  # fmt: skip
def test_files_of_others_refused(made, store, foreign, change, words):
    path = foreign(change)
    with pytest.raises(InputError, match=words):
        evaluate(made[1], store, [path], choice=Choice(tuple(CHANNELS)))


def test_a_damaged_forecast_is_named(made, store, tmp_path):
    path = shutil.copytree(made[1], tmp_path / "f.zarr")
    (path / "2m_temperature" / "c" / "0" / "1" / "0" / "0").unlink()
    with pytest.raises(InputError, match=r"2m_temperature at 2020-01-03T00:00: chunk .* is not there"):
        evaluate(path, store)


def test_no_forecast_there(store, tmp_path):
    with pytest.raises(InputError, match=r"no forecast .*nothing\.zarr"):
        evaluate(tmp_path / "nothing.zarr", store)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no readable Zarr store"):
        evaluate(tmp_path / "empty", store)


def test_equal_names_are_refused(made, store, tmp_path):
    other = forecast(store, tmp_path / "f.zarr", identity, {"weights_sha256": "def"})
    with pytest.raises(InputError, match="two forecasts are called 'model'"):
        evaluate(made[1], store, [other])
    named = evaluate(made[1], store, [f"lazy={other}"])
    assert named["forecast"].values.tolist()[:2] == ["model", "lazy"]
    with pytest.raises(InputError, match=r"two forecasts are called 'lazy'.*NAME="):
        evaluate(made[1], store, [f"lazy={other}", f"lazy={other}"])
    reserved = forecast(store, tmp_path / "g.zarr", identity, {"name": "climatology"})
    with pytest.raises(InputError, match="called 'climatology'"):
        evaluate(reserved, store)


def test_a_store_that_cannot_be_the_truth(made, store):
    with pytest.raises(InputError, match=r"lacks 2 of the 13 times.*first is 2020-01-14"):
        evaluate(made[1], SmallStore(count=13))
    with pytest.raises(InputError, match="that of the truth is 11 x 7 limited area"):
        evaluate(made[1], SmallStore(EUROPE))
    with pytest.raises(InputError, match="lacks u10 to score against"):
        evaluate(made[1], store, choice=Choice(("u10",)))
    store.state[5, 1, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"truth in small\.zarr .*not finite: t850 at 2020-01-06"):
        evaluate(made[1], store)


@pytest.mark.parametrize("what", ["climatology", "training"])
def test_cases_inside_what_was_learned_from_are_refused(made, store, what):
    period = Period.model_validate("2010-01-01/2020-01-05")
    if what == "climatology":
        store.climatology_period = period
    else:
        store.periods = store.periods | {"train": period}
    with pytest.raises(InputError, match=f"2 of 12 times.*2020-01-04.*{what} period 2010-01-01/2020-01-05"):
        evaluate(made[1], store)


def test_scores_on_disk(scores, tmp_path):
    path = write_scores(scores, tmp_path / "runs" / "scores.nc")
    xr.testing.assert_identical(read_scores(path).drop_encoding(), scores.drop_encoding())
    again = write_scores(scores, tmp_path / "again.nc")
    assert again.read_bytes() == path.read_bytes()
    assert {p.name for p in path.parent.iterdir()} == {"scores.nc"}


def test_unreadable_scores_are_refused(tmp_path):
    with pytest.raises(InputError, match="no scores"):
        read_scores(tmp_path / "scores.nc")
    (tmp_path / "scores.nc").write_text("<html>")
    with pytest.raises(InputError, match="not a readable NetCDF"):
        read_scores(tmp_path / "scores.nc")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(InputError, match="holds no scores"):
        read_scores(tmp_path / "other.nc")


def test_scores_made_alike_are_comparable(made, scores):
    assert differences_between(scores, scores) == []
    fewer = evaluate(made[1], made[0], settings=EvaluationConfig(regions=["global"]), choice=Choice(("t2m",)))
    assert differences_between(scores, fewer) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: setattr(s, "climatology_period", Period.model_validate("2015-2019")), "climatology_period"),
        (lambda s: setattr(s, "climatology_window", 31), "climatology_window_days .61 / 31."),
        (lambda s: setattr(s, "simulated", False), "simulated"),
        (lambda s: setattr(s, "state", s.state + 0.5), "truth"),
    ],
)
def test_scores_made_otherwise_are_not(made, store, scores, change, words):
    change(store)
    with pytest.raises(InputError, match=f"cannot be compared.*{words}"):
        merge_scores([scores, evaluate(made[1], store)], ["a", "b"])


def test_scores_of_other_cases_or_grids_are_not_comparable(store, scores, tmp_path):
    fewer = evaluate(forecast(store, tmp_path / "f.zarr", inits=slice(2, 11)), store)
    with pytest.raises(InputError, match=r"initial times \(10 from 2020-01-03T00 to 2020-01-12T00 / 9 from"):
        merge_scores([scores, fewer], ["a", "b"])
    europe = SmallStore(EUROPE)
    with pytest.raises(InputError, match=r"grid \(8 x 16 global.* / 11 x 7 limited area"):
        merge_scores([scores, evaluate(forecast(europe, tmp_path / "g.zarr"), europe)], ["a", "b"])
    changed = scores.copy()
    changed.attrs["provenance"] = changed.attrs["provenance"].replace("cell areas", "cos(latitude)")
    with pytest.raises(InputError, match="weights"):
        merge_scores([scores, changed], ["a", "b"])
    with pytest.raises(InputError, match="share no channel"):
        differences_between(scores.sel(channel=["t2m"]), scores.sel(channel=["z500"]))


def test_the_table(scores):
    table = score_table(scores)
    lines = table.splitlines()
    assert lines[0] == "model: global, SIMULATED atmosphere, 10 forecasts from 2020-01-03 to 2020-01-12"
    assert lines[1].split()[:3] == ["channel", "lead", "RMSE"]
    assert [line.split()[:2] for line in lines[3:-1]] == [
        [c, h] for c in ("z500", "t850", "t2m") for h in ("24h", "72h")
    ]
    score = scores.sel(channel="t850", region="global", period="all").isel(lead_time=0)
    rmse = [float(score["rmse"].sel(forecast=name)) for name in ("model", "persistence", "climatology")]
    row = lines[5].split()
    assert row[2:5] == [f"{value:.3g}" for value in rmse]
    assert row[5:9] == [f"{100 * (1 - rmse[0] / value):.0f}" if i else "%" for value in rmse[1:] for i in (1, 0)]
    assert row[9:] == [f"{float(score['acc'].sel(forecast='model')):.3f}", "K"]
    assert len({line.index("K") for line in lines[5:] if line.endswith("K")}) == 1  # columns are aligned
    assert lines[-1].startswith("not shown: ")
    assert score_table(scores, ["t500"], "tropics").splitlines()[0].startswith("model: tropics")


def test_the_table_refuses_what_was_not_scored(scores):
    with pytest.raises(InputError, match="headline names u10"):
        score_table(scores, ["u10"])
    with pytest.raises(InputError, match="region 'area' was not scored"):
        score_table(scores, region="area")
    assert headline_channels(scores) == ["z500", "t850", "t2m"]
    assert headline_channels(scores.sel(channel=["t500"])) == ["t500"]


def test_a_forecast_file_knows_itself(made):
    file = ForecastFile(made[1])
    assert (file.name, file.simulated, file.lead_times, file.channels) == ("model", True, LEADS, CHANNELS)
    assert file.grid == made[0].grid


def test_real_reanalysis(real_data, tmp_path):
    """Persistence and climatology from prepare to scores, against numpy on the files themselves."""
    files = sorted((real_data / "era_interim_europe").glob("*.nc"))
    config = DataConfig.model_validate(
        {
            "store": str(tmp_path / "store.zarr"),
            "source": {"kind": "files", "paths": [str(path) for path in files], "levels": {"z": 500, "t": 850}},
            "channels": ["z500", "t850", "msl"],
            "period": "2000-01-01/2001-03-31",
            "train": 2000,
            "test": "2001-01-01/2001-03-31",
            "climatology_window": None,
        }
    )
    store = prepare(config)
    wanted = ForecastConfig(lead_times=["24h", "72h"])
    inits = forecast_init_times(store, wanted, [0, -24])
    assert [str(t) for t in inits[[0, -1]]] == ["2001-01-02T12:00:00", "2001-03-28T12:00:00"]
    path = make_forecast(TestModel(store.domain(), identity), store, inits, wanted, tmp_path / "f.zarr", {})
    scores = evaluate(path, store)
    assert scores.attrs["simulated"] == "false"
    with xr.open_mfdataset(files) as raw:
        raw = raw[["z", "t", "msl"]].sel(time=slice("2000-01-01", "2001-03-31")).load().squeeze(drop=True)
    edges = np.sin(np.deg2rad(np.arange(60.75, 29, -1.5)))
    weights = xr.DataArray(edges[:-1] - edges[1:], {"latitude": raw["latitude"]}, dims="latitude")
    for channel, name in {"z500": "z", "t850": "t", "msl": "msl"}.items():
        field = raw[name].astype("float64")
        later = field.sel(time=inits + np.timedelta64(72, "h"))
        persistence = (field.sel(time=inits).values - later) ** 2
        climatology = (field.sel(time="2000").mean("time") - later) ** 2
        expected = [float(np.sqrt(x.weighted(weights).mean())) for x in (persistence, persistence, climatology)]
        found = scores["rmse"].sel(channel=channel, region="area", period="all", lead_time=np.timedelta64(72, "h"))
        names = ["model", "persistence", "climatology"]
        np.testing.assert_allclose(found.sel(forecast=names), expected, rtol=1e-5)
