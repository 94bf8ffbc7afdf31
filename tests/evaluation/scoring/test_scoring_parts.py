"""Evaluation in parts: interrupted and gone on with, on a cluster; and an ensemble with everything that is scored."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import LocalCluster
from moving_weather import CHANNELS, TIMES, weather, weather_store

from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.forecast_identity import identity
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter
from weatherfm.evaluation.metrics.spectra import spectra_means, spectra_transforms
from weatherfm.evaluation.results.lookup import provenance_of
from weatherfm.evaluation.scoring import in_parts as scoring_parts
from weatherfm.evaluation.scoring.cases_to_score import Choice
from weatherfm.evaluation.scoring.kept_parts import remove_parts
from weatherfm.evaluation.scoring.scorer import Scorer

LEADS = (6, 24)
INITS = TIMES[np.datetime64("2000-02-22T00") <= TIMES][:64:2].astype("datetime64[s]")
MEMBERS = 5
SETTINGS = EvaluationConfig(events=["t850 > 275", "z500<55000"], by=["month"])


@pytest.fixture(autouse=True)
def many_parts(monkeypatch):
    monkeypatch.setattr(scoring_parts, "_FEWEST", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(store, a single forecast, an ensemble)."""
    folder = tmp_path_factory.mktemp("parts")
    store = open_store(weather_store(folder / "s.zarr", climatology_window=None))
    return store, single(folder / "single.zarr", store), ensemble(folder / "ensemble.zarr", store)


def forecasts(member: int) -> np.ndarray:
    """[init, lead, channel, lat, lon]: what comes, spoilt in proportion to the channel's spread."""
    rng = np.random.default_rng(member)
    fields = np.stack([weather()[np.searchsorted(TIMES, INITS) + hours // 6] for hours in LEADS], axis=1)
    spread = fields.std((0, 1, 3, 4), keepdims=True)
    return (fields + 0.02 * spread * rng.standard_normal(fields.shape)).astype(np.float32)


def single(path, store, inits=INITS):
    writer = ForecastWriter(path, ForecastContents(CHANNELS, store.grid, inits, LEADS, {"name": "single"}))
    fields = forecasts(99)
    for block in writer.remaining():
        for lead_index in range(len(LEADS)):
            writer.write(block, lead_index, fields[block, lead_index])
        writer.block_done(block)
    writer.finish()
    return path


def ensemble(path, store):
    fields = np.stack([forecasts(member) for member in range(MEMBERS)], axis=1)
    dims = ("time", "number", "prediction_timedelta", "latitude", "longitude")
    names = {"geopotential": (500, 0, "m2 s-2"), "temperature": (850, 1, "K")}
    variables = {name: (dims, fields[:, :, :, i], {"units": units}) for name, (_, i, units) in names.items()}
    data = xr.Dataset(
        variables | {"mean_sea_level_pressure": (dims, fields[:, :, :, 2], {"units": "Pa"})},
        {"time": INITS.astype("datetime64[ns]"), "number": range(MEMBERS), "latitude": store.grid.latitude}
        | {"longitude": store.grid.longitude, "prediction_timedelta": np.array(LEADS, "m8[h]").astype("m8[ns]")},
    )
    for name, (level, _, _) in names.items():  # WeatherBench2 has one level dim for all; NaN where there is none
        data[name] = data[name].expand_dims(level=[500, 850]).where(xr.DataArray([500, 850], dims="level") == level)
    data.to_zarr(path, zarr_format=2, consolidated=True)
    return path


@pytest.fixture(scope="module")
def whole(made):
    store, one, many = made
    return evaluate(one, store, [many], SETTINGS)


def test_everything_is_there(whole):
    assert whole["forecast"].values.tolist() == [
        *("single", "ensemble", "ensemble_mean"),
        *("persistence", "climatology", "damped_persistence", "probabilistic_climatology"),
    ]
    assert whole["members"].values[:4].tolist() == [1, MEMBERS, 1, 1]
    assert whole["period"].values.tolist() == ["all", "Feb", "Mar"]
    assert whole["event"].values.tolist() == ["t850 > 275", "z500 < 55000"]
    for name in ("crps", "rmse", "brier"):
        assert np.isfinite(whole[name].sel(period="all")).all(), name
    alone = whole["crps"].sel(forecast=["single", "persistence"])
    xr.testing.assert_equal(alone, whole["mae"].sel(forecast=["single", "persistence"]).rename("crps"))
    assert np.isnan(whole["crps_fair"].sel(forecast="single")).all()
    assert (whole["rmse_p_value"].sel(forecast="ensemble", reference="persistence", region="global") < 0.05).all()
    assert (whole["crps_fair_skill_low"].sel(forecast="ensemble", reference="probabilistic_climatology") > 0).all()
    assert (whole["rmse"].sel(forecast="damped_persistence") <= whole["rmse"].sel(forecast="persistence") * 1.02).all()
    sampled = whole["members"].sel(forecast="probabilistic_climatology").item()
    assert provenance_of(whole)["baselines"]["probabilistic_climatology"].startswith(
        f"{sampled} states of the training"
    )


def test_values_of_the_ensemble_against_whole_arrays(made, whole):
    store = made[0]
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    members = np.stack([forecasts(member) for member in range(MEMBERS)]).astype(np.float64)
    truth = np.stack([weather()[np.searchsorted(TIMES, INITS) + hours // 6] for hours in LEADS], 1).astype(np.float64)
    skill = np.abs(members - truth).mean(0)
    pairs = np.abs(members[:, None] - members[None]).sum((0, 1))
    found = whole.sel(forecast="ensemble", period="all", region="global")
    for name, count in (("crps", MEMBERS**2), ("crps_fair", MEMBERS * (MEMBERS - 1))):
        expected = ((skill - pairs / count / 2) * weights).sum((-2, -1)).mean(0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)  # members are in single precision
    error = np.sqrt((np.square(members.mean(0) - truth) * weights).sum((-2, -1)).mean(0))
    np.testing.assert_allclose(found["rmse"], error, rtol=1e-6)
    happened = ((members[:, :, :, 1] > 275).mean(0) - (truth[:, :, 1] > 275)) ** 2
    brier = (happened * weights).sum((-2, -1)).mean(0)
    np.testing.assert_allclose(found["brier"].sel(event="t850 > 275"), brier, rtol=1e-12)
    below = (members < truth).sum(0)
    shares = [((below == rank) * weights).sum((-2, -1)).mean(0) for rank in range(MEMBERS + 1)]
    histogram = whole["rank_histogram"].sel(forecast="ensemble", region="global").isel(rank=slice(MEMBERS + 1))
    np.testing.assert_allclose(
        histogram.transpose("rank", "lead_time", "channel"), shares, atol=5e-4
    )  # of ties, few in single precision


def test_brier_score_of_the_frequency_on_training_days(made, whole):
    """By hour at every point, as the store's climatology is one mean, by hand; and the skill of all against it."""
    store = made[0]
    days = TIMES[store.periods["train"].contains(TIMES)].astype("datetime64[s]")
    states = weather()[np.searchsorted(TIMES, days)]
    hours = days.astype("datetime64[h]").astype(int) % 24
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    expected = []
    for lead in LEADS:
        scores = []
        for valid in INITS + np.timedelta64(lead, "h"):
            alike = states[hours == valid.astype("datetime64[h]").astype(int) % 24]
            chance = (alike[:, 1] > 275).mean(0)
            happened = weather()[np.searchsorted(TIMES, valid), 1] > 275
            scores.append((np.square(chance - happened) * weights).sum())
        expected.append(np.mean(scores))
    here = {"event": "t850 > 275", "period": "all", "region": "global"}
    assert whole["brier_climatology"].dims == ("period", "region", "lead_time", "event")
    np.testing.assert_allclose(whole["brier_climatology"].sel(here), expected, rtol=1e-6)
    assert np.isfinite(expected).all()
    skill = 1 - whole["brier"].sel(here) / np.asarray(expected)
    np.testing.assert_allclose(whole["brier_skill"].sel(here), skill.transpose("forecast", "lead_time"), atol=1e-7)
    assert (whole["brier_skill"].sel(here).sel(forecast="ensemble") > 0.5).all()


def test_the_mean_of_the_ensemble_is_a_forecast_of_its_own(made, whole):
    """As if it had been written to a file and scored as a single forecast; and the members beside it."""
    store = made[0]
    assert whole["kind"].values.tolist() == ["model", "model", "mean", *["baseline"] * 4]
    own, ensemble = whole.sel(forecast="ensemble_mean"), whole.sel(forecast="ensemble")
    for name in ("rmse", "mse", "mae", "bias", "acc", "activity", "activity_ratio"):
        np.testing.assert_array_equal(own[name], ensemble[name])
    np.testing.assert_array_equal(own["crps"], own["mae"])
    assert np.isnan(own["crps_fair"]).all()
    assert np.isnan(own["rmse_p_value"]).all()  # its differences are those of the ensemble
    fields = np.stack([forecasts(member) for member in range(MEMBERS)]).astype(np.float64)
    truth = np.stack([weather()[np.searchsorted(TIMES, INITS) + hours // 6] for hours in LEADS], 1).astype(np.float64)
    transforms = spectra_transforms(store.grid)
    for lead in range(len(LEADS)):
        expected = spectra_means(fields.mean(0)[:, lead], truth[:, lead], transforms)["spherical_forecast"].mean(0)
        np.testing.assert_allclose(own["spherical_spectrum"].isel(lead_time=lead), expected, rtol=1e-9)
    shortest = {"total_wavenumber": slice(-3, None)}
    ratio = own["spherical_spectrum"].isel(shortest) / ensemble["spherical_spectrum"].isel(shortest)
    assert (ratio < 1).all()  # the members' noise, a fifth of which is left
    happened = ((fields.mean(0)[:, :, 1] > 275) != (truth[:, :, 1] > 275)) * store.grid.area_weights
    brier = own["brier"].sel(event="t850 > 275", period="all", region="global")
    np.testing.assert_allclose(brier, happened.mean((-2, -1)).mean(0), rtol=1e-12)
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    normal = np.stack([store.climatology_at(INITS + np.timedelta64(hours, "h")) for hours in LEADS], 1)
    found = ensemble.sel(period="all", region="global")
    error = np.sqrt((np.square(fields - truth) * weights).sum((-2, -1)).mean((0, 1)))
    np.testing.assert_allclose(found["member_rmse"], error, rtol=1e-6)
    sizes = [(np.square(some - normal) * weights).sum((-2, -1)) for some in (fields, truth)]
    ratio = np.sqrt(sizes[0].mean((0, 1)) / sizes[1].mean(0))
    np.testing.assert_allclose(found["member_activity_ratio"], ratio, rtol=1e-6)


def test_without_the_mean_of_the_ensemble(made, whole):
    store, _, many = made
    settings = SETTINGS.model_copy(update={"ensemble_mean": False, "spectra": False})
    scores = evaluate(many, store, settings=settings, choice=Choice(CHANNELS))
    assert scores["forecast"].values[:2].tolist() == ["ensemble", "persistence"]
    same = [one["rmse"].sel(forecast="ensemble") for one in (scores, whole)]
    np.testing.assert_allclose(*same, rtol=1e-12)
    with pytest.raises(InputError, match=r"'ensemble_mean' is what the mean of an ensemble is called, and .*single"):
        evaluate(many, store, [f"ensemble_mean={made[1]}"], SETTINGS, Choice(CHANNELS))
    evaluate(many, store, [f"ensemble_mean={made[1]}"], settings, Choice(CHANNELS))


def test_each_field_of_the_ensemble_is_read_once(made, monkeypatch):
    reads = []
    read = ForecastFile.read

    def counted(self, inits, lead_time, *others):
        reads.extend((int(init), lead_time) for init in inits)
        return read(self, inits, lead_time, *others)

    monkeypatch.setattr(ForecastFile, "read", counted)
    settings = EvaluationConfig(spectra=False, damped_persistence=False)
    evaluate(made[2], made[0], settings=settings, choice=Choice(CHANNELS))
    assert len(reads) == len(set(reads)) == len(INITS) * len(LEADS)


def test_months_are_told_apart_by_the_valid_time(made, whole):
    store = made[0]
    march = INITS[np.datetime64("2000-02-29T18") <= INITS]
    truth = weather()[np.searchsorted(TIMES, march) + 1].astype(np.float64)
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    error = forecasts(99)[-len(march) :, 0] - truth
    expected = np.sqrt((np.square(error) * weights).sum((-2, -1)).mean(0))
    found = whole["rmse"].sel(forecast="single", period="Mar", region="global").isel(lead_time=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_interrupted_it_goes_on_with_what_is_left(made, whole, tmp_path, monkeypatch):
    store, one, many = made
    scored: list[int] = []
    score = Scorer.score

    def interrupted(self, init_times, done):
        if len(scored) == 7:
            raise KeyboardInterrupt
        scored.append(len(init_times))
        return score(self, init_times, done)

    monkeypatch.setattr(Scorer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(one, store, [many], SETTINGS, parts=tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("*.part"))) == 7
    monkeypatch.setattr(Scorer, "score", lambda *given: scored.append(len(given[1])) or score(*given))
    again = evaluate(one, store, [many], SETTINGS, parts=tmp_path / "parts")
    assert sum(scored) == len(INITS)
    xr.testing.assert_allclose(again, whole, rtol=1e-12)


def test_parts_of_other_work_are_not_taken(made, tmp_path):
    store, one, _ = made
    evaluate(one, store, settings=SETTINGS, parts=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.part")}
    fewer = SETTINGS.model_copy(update={"regions": ["tropics"]})
    assert evaluate(one, store, settings=fewer, parts=tmp_path)["region"].values.tolist() == ["tropics"]
    assert all(path.stat().st_mtime_ns > before[path] for path in tmp_path.glob("*.part"))


def test_a_chunk_that_was_replaced_is_noticed(made, tmp_path):
    """Of a Zarr v3 forecast: other bytes of the same length, with the time of modification of before."""
    copy = Path(shutil.copytree(made[1], tmp_path / "f.zarr"))
    before = identity(ForecastFile(copy))
    assert identity(ForecastFile(copy)) == before
    chunk = max(
        (path for path in copy.rglob("*") if path.is_file() and "geopotential" in path.parts and "c" in path.parts),
        key=lambda path: path.name,
    )
    held, found = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    os.utime(chunk, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert chunk.stat().st_size == found.st_size
    assert identity(ForecastFile(copy)) != before


def test_a_chunk_behind_a_link_is_noticed(made, tmp_path):
    copy, elsewhere = Path(shutil.copytree(made[1], tmp_path / "f.zarr")), tmp_path / "elsewhere"
    (copy / "geopotential").rename(elsewhere)
    (copy / "geopotential").symlink_to(elsewhere)
    before = identity(ForecastFile(copy))
    chunk = next(path for path in elsewhere.glob("c/**/*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes() + b"1")
    assert identity(ForecastFile(copy)) != before
    (elsewhere / "round").symlink_to(copy)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        ForecastFile(copy)


def test_a_folder_may_be_called_like_a_name_and_a_path(made, tmp_path):
    folder = Path(shutil.copytree(made[1], tmp_path / "a=b.zarr"))
    with chdir(tmp_path):
        own = evaluate("a=b.zarr", made[0], settings=SETTINGS.model_copy(update={"spectra": False}))
        assert own["forecast"].values[0] == "single"
        named = evaluate(f"x={folder}", made[0], settings=SETTINGS.model_copy(update={"spectra": False}))
        assert named["forecast"].values[0] == "x"


def test_a_choice_is_scored_as_if_there_were_nothing_else(made, whole):
    """Channel, lead time, half of the days: by the errors of each case, by hand."""
    store, one, _ = made
    settings = SETTINGS.model_copy(update={"events": [], "spectra": False})
    choice = Choice(("t850",), (24,), f"{INITS[2].astype('datetime64[D]')}/{INITS[11].astype('datetime64[D]')}", 36)
    found = evaluate(one, store, settings=settings, choice=choice)
    days = INITS[2:12:3]  # of twelve hours, to the end of the last day
    np.testing.assert_array_equal(found["init_time"].values.astype("datetime64[s]"), days)
    assert found["channel"].values.tolist() == ["t850"]
    assert found["lead_time"].values.tolist() == [np.timedelta64(24, "h").astype("timedelta64[ns]").astype(int)]
    error = forecasts(99)[np.searchsorted(INITS, days), 1, 1] - weather()[np.searchsorted(TIMES, days) + 4, 1]
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    expected = np.sqrt((np.square(error, dtype=np.float64) * weights).sum((1, 2)).mean())
    mine = found["rmse"].sel(period="all", region="global").isel(forecast=0, lead_time=0, channel=0)
    np.testing.assert_allclose(mine, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(lead_times=(12,)), "has no lead time 12h to score; it has 6h, 24h"),
        (Choice(init="1990"), "no initial time in '1990'; there are"),
        (Choice(init="soon"), "'soon' are not understood"),
        (Choice(init=","), "no initial time in ','"),
        (Choice(("u10",)), "u10"),
        (Choice(every=7), "--every is 7h, and initial times of"),
    ],
)
def test_a_choice_of_what_is_not_there_is_refused(made, choice, said):
    with pytest.raises(InputError, match=re.escape(said)):
        evaluate(made[1], made[0], settings=SETTINGS, choice=choice)


def test_a_cluster_gives_the_same(made, whole, tmp_path):
    store, one, many = made
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        found = evaluate(one, store, [many], SETTINGS, parts=tmp_path, scheduler=cluster.scheduler_address)
    xr.testing.assert_allclose(found, whole, rtol=1e-12)


def test_threads_and_parts_do_not_change_scores(made, whole, monkeypatch):
    store, one, many = made
    monkeypatch.setattr(scoring_parts, "_PARTS", 1)
    xr.testing.assert_allclose(evaluate(one, store, [many], SETTINGS, workers=1), whole, rtol=1e-12)


def test_common_cases_alone_are_scored_when_asked_for(made, tmp_path):
    store, one, _ = made
    less = xr.open_zarr(one, chunks=None, decode_timedelta=True).load()
    less = less.isel(time=slice(0, -2), prediction_timedelta=[1]).drop_vars("temperature").drop_encoding()
    less.attrs = {}
    less.to_zarr(tmp_path / "less.zarr", zarr_format=2, consolidated=True)
    with pytest.raises(InputError, match="lead times 6h"):
        evaluate(one, store, [tmp_path / "less.zarr"], SETTINGS)
    settings = EvaluationConfig()
    scores = evaluate(one, store, [tmp_path / "less.zarr"], settings, common=True)
    assert scores["channel"].values.tolist() == ["z500", "msl"]
    left = provenance_of(scores)["left_out"]
    assert left == {"channels": ["t850"], "lead_times": ["6h"], "init_times": [str(time) for time in INITS[-2:]]}
    last = less.isel(time=[0]).assign_coords(time=less["time"][:1] - np.timedelta64(365, "D"))
    last.to_zarr(tmp_path / "last.zarr", zarr_format=2, consolidated=True)
    with pytest.raises(InputError, match="share no init times"):
        evaluate(one, store, [tmp_path / "last.zarr"], settings, common=True)


def test_events_of_what_is_not_scored_are_refused(made):
    store, one, _ = made
    with pytest.raises(InputError, match=r"event 'tp > 0\.001' is about tp, which is not scored; scored are z500"):
        evaluate(one, store, settings=EvaluationConfig(events=["tp > 0.001"]))


@pytest.mark.parametrize("which", [1, 2], ids=["zarr-3", "zarr-2"])
def test_a_forecast_written_anew_is_scored_anew(made, tmp_path, which):
    """Of the same days and channels, with other values: parts of the old one must not be taken."""
    store, given = made[0], made[which]
    path = shutil.copytree(given, tmp_path / "again.zarr")
    before = evaluate(f"again={path}", store, (), SETTINGS, Choice(CHANNELS), parts=tmp_path / "parts")
    data = xr.open_zarr(path, chunks=None, decode_timedelta=True).load()
    shutil.rmtree(path)
    changed = data.assign(mean_sea_level_pressure=data["mean_sea_level_pressure"] + 1).drop_encoding()
    changed.to_zarr(path, zarr_format=(3, 2)[which - 1], consolidated=which == 2)
    after = evaluate(f"again={path}", store, (), SETTINGS, Choice(CHANNELS), parts=tmp_path / "parts")
    rise = (after["bias"] - before["bias"]).sel(forecast="again", channel="msl")
    np.testing.assert_allclose(rise.sel(period="all"), 1, atol=0.01)  # pressures are in single precision


@pytest.mark.parametrize("which", [1, 2], ids=["zarr-3", "zarr-2"])
@pytest.mark.parametrize("older", [False, True])
def test_a_single_chunk_written_anew_is_scored_anew(made, tmp_path, which, older):
    """In place, deep in a folder, or by a file that is older than its neighbours."""
    store, given = made[0], made[which]
    path = shutil.copytree(given, tmp_path / "again.zarr")
    before = evaluate(f"again={path}", store, (), SETTINGS, Choice(CHANNELS), parts=tmp_path / "parts")
    stamps = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    pressure = zarr.open_array(path / "mean_sea_level_pressure", mode="r+")
    pressure[:1] = pressure[:1] + 1
    for file, stamp in stamps.items():
        if older and file.stat().st_mtime_ns != stamp:
            os.utime(file, ns=(stamp, stamp - 10**12))
    after = evaluate(f"again={path}", store, (), SETTINGS, Choice(CHANNELS), parts=tmp_path / "parts")
    assert not np.array_equal(after["bias"].sel(channel="msl")[0], before["bias"].sel(channel="msl")[0])


def test_a_damaged_fingerprint_is_one_of_other_work(made, tmp_path):
    first = evaluate(made[1], made[0], settings=SETTINGS, parts=tmp_path)
    (tmp_path / "fingerprint").write_bytes(b"\xff\xfe")
    xr.testing.assert_identical(evaluate(made[1], made[0], settings=SETTINGS, parts=tmp_path), first)


def test_parts_may_lie_behind_a_link(made, tmp_path):
    """On another disk; the link stays."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "parts").symlink_to(tmp_path / "scratch")
    evaluate(made[1], made[0], settings=SETTINGS, parts=tmp_path / "parts")
    assert any((tmp_path / "scratch").glob("*.part"))
    fewer = SETTINGS.model_copy(update={"regions": ["tropics"]})
    evaluate(made[1], made[0], settings=fewer, parts=tmp_path / "parts")
    assert (tmp_path / "parts").is_symlink()
    remove_parts(tmp_path / "parts")
    assert not any((tmp_path / "scratch").iterdir())
    remove_parts(tmp_path / "nothing")


def test_a_damaged_part_is_scored_again(made, tmp_path):
    store, one, _ = made
    first = evaluate(one, store, settings=SETTINGS, parts=tmp_path)
    (tmp_path / "000-003.part").write_bytes(b"PK")
    whole = (tmp_path / "000-004.part").read_bytes()
    (tmp_path / "000-004.part").write_bytes(whole[: len(whole) // 2])
    xr.testing.assert_identical(evaluate(one, store, settings=SETTINGS, parts=tmp_path), first)
