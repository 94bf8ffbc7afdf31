"""What is fitted before scoring: by group of channels, kept, found again, in memory one group at a time, never sent."""

from __future__ import annotations

import io
import pickle
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from distributed import LocalCluster
from small_store import SmallStore, days

from weatherfm.data_pipeline.store_config import Period
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation import evaluate as evaluation
from weatherfm.evaluation.baselines.persistence_and_climatology import normals_at, states_at
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter
from weatherfm.evaluation.metrics.events import parse_event
from weatherfm.evaluation.scoring import fitted as fitted_module
from weatherfm.evaluation.scoring import fitting as fitting_module
from weatherfm.evaluation.scoring import in_parts
from weatherfm.evaluation.scoring.fitted import RidgeInputs, ToFit, arrays_of, fitted_of
from weatherfm.evaluation.scoring.fitting import Fitting, fitted_elsewhere
from weatherfm.evaluation.scoring.kept_parts import KeptParts
from weatherfm.evaluation.scoring.scorer import Scorer

LEADS = (24, 48)
FITS = ("damped_persistence", "ridge_regression")
SETTINGS = EvaluationConfig(regions=["global"], by=[], events=["t850 > 280", "t2m > 285"], ridge_regression=True)


class Trained(SmallStore):
    """400 days, the first 300 to learn from."""

    def __init__(self, shape=(4, 8), channels=None, count=400, train=300) -> None:
        super().__init__(regular_grid(shape), count)
        self.times = days("2001-01-01", count)
        if channels is not None:
            self.channels = channels
            self.mean, self.std = np.full(len(channels), 280.0), np.full(len(channels), 10.0)
            self.state = np.resize(self.state[:, 1], (len(channels), *self.state[:, 1].shape)).swapaxes(0, 1)
        last = self.times[train - 1].astype("datetime64[D]")
        self.periods = self.periods | {"train": Period.model_validate(f"2001-01-01/{last}")}
        self.climatology_period = self.periods["train"]


def forecast(path, store, inits, leads=LEADS):
    """Truth, a few degrees off."""
    writer = ForecastWriter(path, ForecastContents(store.channels, store.grid, inits, leads, {"name": "model"}))
    for block in writer.remaining():
        for i, hours in enumerate(leads):
            writer.write(block, i, store.read(store.index_of(inits[block] + np.timedelta64(hours, "h"))) + 3)
        writer.block_done(block)
    writer.finish()
    return path


@pytest.fixture(scope="module")
def store():
    return Trained()


@pytest.fixture(scope="module")
def path(store, tmp_path_factory):
    return forecast(tmp_path_factory.mktemp("fits") / "f.zarr", store, store.times[310:326])


@pytest.fixture(scope="module")
def whole(store, path):
    return evaluate(path, store, settings=SETTINGS)


@pytest.fixture
def channel_by_channel(monkeypatch):
    monkeypatch.setattr(evaluation, "_WINDOW_BYTES", 1)
    monkeypatch.setattr(in_parts, "_FEWEST", 4)


def count_fits(monkeypatch) -> list[tuple[str, tuple[str, ...]]]:
    """(What, channels) of every fit from now on."""
    counted = []
    for name in ("fit_damped_persistence", "fit_ridge_regression"):
        fit = getattr(fitted_module, name)

        def noted(of, channels, *others, name=name, fit=fit):
            counted.append((name, tuple(channels)))
            return fit(of, channels, *others)

        monkeypatch.setattr(fitted_module, name, noted)
    find = fitting_module.ridge_predictors
    monkeypatch.setattr(
        fitting_module, "ridge_predictors", lambda *given: counted.append(("ridge", ())) or find(*given)
    )
    return counted


def test_groups_of_channels_do_not_change_scores(store, path, whole, channel_by_channel):
    names = ["damped_persistence", "ridge_regression"]
    assert whole["forecast"].values.tolist()[-2:] == names
    found = evaluate(path, store, settings=SETTINGS)
    xr.testing.assert_allclose(found, whole, rtol=1e-6)  # components are of all channels in either


def test_damped_persistence_by_hand(store, path, channel_by_channel):
    """The whole way from the training days to the score, in double precision."""
    found = evaluate(path, store, settings=SETTINGS)["rmse"].sel(forecast="damped_persistence", period="all")
    weights = store.grid.area_weights / store.grid.area_weights.sum()
    starts, inits = store.times[:298], store.times[310:326]

    def anomaly(times):
        return (states_at(store, store.channels, times) - normals_at(store, store.channels, times)).astype(np.float64)

    for lead, hours in enumerate(LEADS):
        later = np.timedelta64(hours, "h")
        share = (anomaly(starts) * anomaly(starts + later)).sum(0) / np.square(anomaly(starts)).sum(0)
        error = np.clip(share, 0, 1) * anomaly(inits) - anomaly(inits + later)
        expected = np.sqrt((np.square(error) * weights).sum((2, 3)).mean(0))
        np.testing.assert_allclose(found.sel(region="global").isel(lead_time=lead), expected, rtol=1e-5)


def test_interrupted_it_does_not_fit_again(store, path, whole, tmp_path, monkeypatch, channel_by_channel):
    """In the middle of the third group: two are scored, and the third is fitted."""
    counted, scored = count_fits(monkeypatch), []
    score = Scorer.score

    def interrupted(self, *given):
        if len(scored) == 10:
            raise KeyboardInterrupt
        scored.append(1)
        return score(self, *given)

    monkeypatch.setattr(Scorer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(path, store, settings=SETTINGS, parts=tmp_path / "parts")
    three = [(f"fit_{what}", (name,)) for name in store.channels[:3] for what in FITS]
    assert counted == [("ridge", ()), *three]
    assert sorted(file.name for file in (tmp_path / "parts").glob("*.fit")) == [
        *("000.fit", "001.fit", "002.fit", "predictors.fit")
    ]
    counted.clear()
    monkeypatch.setattr(Scorer, "score", score)
    again = evaluate(path, store, settings=SETTINGS, parts=tmp_path / "parts")
    assert counted == [("fit_damped_persistence", ("t2m",)), ("fit_ridge_regression", ("t2m",))]
    xr.testing.assert_allclose(again, whole, rtol=1e-6)
    counted.clear()
    evaluate(path, store, settings=SETTINGS, parts=tmp_path / "parts")
    assert counted == []


def test_a_damaged_fit_is_fitted_anew(store, path, tmp_path, monkeypatch, channel_by_channel, caplog):
    parts = tmp_path / "parts"
    first = evaluate(path, store, settings=SETTINGS, parts=parts)
    content = bytearray((parts / "001.fit").read_bytes())
    content[len(content) // 2] ^= 1
    (parts / "001.fit").write_bytes(content)
    (parts / "002.fit").write_bytes((parts / "000.fit").read_bytes())
    (parts / "predictors.fit").write_bytes(b"no")
    for file in parts.glob("*.part"):
        file.unlink()
    counted = count_fits(monkeypatch)
    caplog.clear()
    xr.testing.assert_identical(evaluate(path, store, settings=SETTINGS, parts=parts), first)
    assert {channels for what, channels in counted if what != "ridge"} == {("t850",), ("t500",)}
    for name in ("001", "002", "predictors"):
        assert f"{name}.fit is damaged (its checksum is not that of its content) and fitted again" in caplog.text


def test_fits_of_other_work_are_not_taken(store, path, tmp_path, monkeypatch):
    evaluate(path, store, settings=SETTINGS, parts=tmp_path)
    counted = count_fits(monkeypatch)
    evaluate(path, store, settings=SETTINGS.model_copy(update={"ridge_regression": False}), parts=tmp_path)
    assert counted == [("fit_damped_persistence", store.channels)]


def test_all_that_is_fitted_comes_back_from_its_file(store, tmp_path):
    kept = KeptParts(tmp_path, "this work")
    inits, events = store.times[310:320], (parse_event("t850 > 280"),)
    ridge = RidgeInputs(store.channels, (0,), 298, 74)
    wanted = ToFit(("t850", "t2m"), LEADS, events, (1, 2), True, False, ridge)
    made = Fitting(store, inits, kept, shown=False).of("000", wanted)
    again = fitted_elsewhere("000", wanted, kept)
    for one in ("damped", "ridge", "frequency"):
        for name, value in vars(getattr(made, one)).items():
            found = getattr(getattr(again, one), name)
            assert type(found) is type(value), name
            np.testing.assert_array_equal(found, value)
            assert getattr(found, "dtype", None) == getattr(value, "dtype", None)
    assert again.seeps is made.seeps is None
    assert arrays_of(fitted_of({})) == arrays_of(fitted_elsewhere("009", ToFit(), kept)) == {}
    with pytest.raises(InputError, match=r"a worker of the cluster does not see .*, where what was fitted is kept"):
        fitted_elsewhere("001", wanted, kept)


def test_the_bar_counts_the_times_that_are_fitted(store, monkeypatch):
    bars = []

    class Bar(fitting_module.tqdm):
        def __init__(self, total, desc, **others):
            super().__init__(total=total, desc=desc, **others | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(fitting_module, "tqdm", Bar)
    ridge = RidgeInputs(store.channels, (0,), 298, 74)
    wanted = ToFit(("t850", "t2m"), LEADS, (parse_event("t850 > 280"),), (1, 2), True, False, ridge)
    Fitting(store, store.times[310:320], KeptParts(None, "")).of("000", wanted)
    assert [bar.desc for bar in bars] == ["fit t850 and 1 more"]
    assert bars[0].total == bars[0].n == 298 + 31 + 28 + 298 * len(LEADS)  # damped, two months, ridge by lead time


class Lean(Trained):
    """Gives fields of what is asked for alone, and no climatology beside zero."""

    def climatology_at(self, times, channels=None):
        return np.zeros((len(times), len(channels), *self.grid.shape), np.float32)


def peak_of(store, tmp_path, channels, leads) -> int:
    """Bytes that scoring so many channels takes at most."""
    settings = EvaluationConfig(regions=["global"], by=[], spectra=False, seeps=False)
    choice = evaluation.Choice(store.channels[:channels])
    tracemalloc.start()
    try:
        scores = evaluate(tmp_path / "f.zarr", store, settings=settings, choice=choice, workers=1)
        assert np.isfinite(scores["rmse"].sel(forecast="damped_persistence")).all()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_one_group_however_many_channels(tmp_path, monkeypatch):
    """Fields of 32 KB, 8 lead times: the fit of a channel is 0.26 MB, of all eight 2.1 MB."""
    monkeypatch.setattr(evaluation, "_WINDOW_BYTES", 1)
    store = Lean((64, 128), tuple(f"t{50 * (i + 1)}" for i in range(8)), count=50, train=24)
    leads = tuple(24 * (i + 1) for i in range(8))
    forecast(tmp_path / "f.zarr", store, store.times[30:32], leads)
    peak_of(store, tmp_path, 1, leads)  # what is imported or made once
    one, all_of_them = (peak_of(store, tmp_path, channels, leads) for channels in (1, 8))
    assert all_of_them < one + 4 * (4 * len(leads) * 64 * 128)


def test_a_cluster_is_sent_places_and_no_numbers(store, path, whole, tmp_path, monkeypatch, channel_by_channel):
    """Before, coefficients of all groups travelled with what is shared, 33 KB a group here."""
    sent, counted = [], count_fits(monkeypatch)
    run = in_parts.run_tasks

    def looked_at(calls, workers, shared, scheduler):
        calls = list(calls)
        sent.append((len(calls), len(pickle.dumps(shared)), max(len(pickle.dumps(call)) for call in calls)))
        return run(calls, workers, shared, scheduler)

    monkeypatch.setattr(in_parts, "run_tasks", looked_at)
    monkeypatch.setattr(in_parts, "open_store", lambda place: Trained())
    settings = SETTINGS.model_copy(update={"spectra": False})
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        found = evaluate(path, store, settings=settings, parts=tmp_path, scheduler=cluster.scheduler_address)
    for name in found.data_vars:
        xr.testing.assert_allclose(found[name], whole[name], rtol=1e-6)
    assert [calls for calls, _, _ in sent] == [1, 3, 16]
    assert max(shared for _, shared, _ in sent) < 8000
    assert max(call for *_, call in sent) < 1000
    assert sorted(counted) == sorted(
        [("ridge", ())] + [(f"fit_{what}", (name,)) for name in store.channels for what in FITS]
    )


def test_a_cluster_without_a_folder_is_refused(store, path):
    with pytest.raises(InputError, match=r"on a cluster keeps what is fitted in a folder .* give one as `parts`"):
        evaluate(path, store, settings=SETTINGS, scheduler="tcp://nowhere:1")
