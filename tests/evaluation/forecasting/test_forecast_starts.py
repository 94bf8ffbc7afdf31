"""Which initial times `--init` means, and what is said where states are missing."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from small_store import SmallStore, TestModel, days, drift

from weatherfm.data_pipeline.store.states import StoreStates, as_states
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.on_disk import choose_init_times, make_forecast
from weatherfm.evaluation.forecasting.trained_steps import untrained_steps, warn_of_untrained


def chosen(store, init: str | None, inputs=(0,), **settings) -> list[str]:
    config = ForecastConfig(lead_times=["24h", "72h"], init=init, **settings)
    return [str(time.astype("datetime64[h]")) for time in choose_init_times(store, config, list(inputs))]


@pytest.fixture
def store() -> SmallStore:
    return SmallStore(count=40, step_hours=12)  # 2020-01-01T00 .. 2020-01-20T12


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("2020-01-20T12", ["2020-01-20T12"]),  # the last state there is: no truth follows
        ("2020-01-20 12:00", ["2020-01-20T12"]),
        ("2020-01-20T12:00:00Z", ["2020-01-20T12"]),
        ("latest", ["2020-01-20T12"]),
        ("2020-01-20", ["2020-01-20T00"]),
        ("2020-01-19/2020-01-31", ["2020-01-19T00", "2020-01-20T00"]),
        ("2020-01-20T12, 2020-01-02 ,2020-01-02T00", ["2020-01-02T00", "2020-01-20T12"]),  # ascending, each once
    ],
)
def test_forms(store, init, expected):
    assert chosen(store, init) == expected


def test_a_year_is_all_its_days(store):
    assert len(chosen(store, "2020")) == 20
    assert len(chosen(store, "2020", init_every="12h")) == 40


def test_the_default_is_what_can_be_scored(store):
    assert chosen(store, None)[-1] == "2020-01-17T00"  # the truth at 72 h is in the store


def test_yaml_may_write_years_days_and_lists():
    import yaml

    for text, expected in [
        ("2018", "2018"),
        ("2018-10-01", "2018-10-01"),
        ("[2018-10-01T06, 2018-10-02]", "2018-10-01T06,2018-10-02"),
        ("2018-10-01T06:00:00", "2018-10-01T06:00:00"),
        ("null", None),
    ]:
        assert ForecastConfig(init=yaml.safe_load(text)).init == expected
    assert ForecastConfig.model_validate(ForecastConfig(init="2018").model_dump(mode="json")).init == "2018"


def test_inputs_may_lie_before_the_period(store):
    assert chosen(store, "2020-01-05", inputs=(-24, 0)) == ["2020-01-05T00"]


def test_what_a_period_lacks_is_left_out_and_said(store, caplog):
    store.times = np.delete(store.times, 8)  # 2020-01-05T00
    with caplog.at_level(logging.WARNING):
        assert chosen(store, "2020-01-04/2020-01-06", inputs=(-24, 0)) == ["2020-01-04T00"]
    assert "1 of 2 initial times in 2020-01-04/2020-01-06 left out" in caplog.text
    assert "lacks some of their states at -24h, 0h" in caplog.text


def test_latest_goes_back_to_a_time_that_has_its_inputs(store, caplog):
    store.times = np.delete(store.times, 37)  # 2020-01-19T12, a day before the last
    with caplog.at_level(logging.WARNING):
        assert chosen(store, "latest", inputs=(0, -24)) == ["2020-01-20T00"]
    assert "the latest time of small.zarr, 2020-01-20T12, lacks" in caplog.text


@pytest.mark.parametrize(
    ("init", "inputs", "words"),
    [
        ("2020-01-21T00", (0,), r"lacks 2020-01-21T00.*it has 40 times from 2020-01-01T00 to 2020-01-20T12"),
        ("2020-01-01T12", (-24, 0), r"lacks 2019-12-31T12, which forecasts from 2020-01-01T12 start from"),
        ("2020-01-01", (-24, 0), r"lacks 2019-12-31T00"),
        ("2021", (0,), r"has no state in 2021-01-01/2021-12-31, only 40 times"),
        ("tomorrow", (0,), r"'tomorrow' are not understood.*write days \(2018"),
        ("2020-13-01T00", (0,), "no date"),
        ("2020-01-01T00,2020-30-01", (0,), "'2020-30-01': the calendar has no such day"),
        ("2020-02-30", (0,), r"^initial times '2020-02-30': the calendar has no such day; write days [^\n]*$"),
        ("2020-01-09/2020-01-02", (0,), r"^initial times '2020-01-09/2020-01-02' end before they start; swap [^\n]*$"),
        ("2021-2020", (0,), r"^initial times '2021-2020' are not understood; write days [^\n]*$"),
        (" , ", (0,), "no initial time in"),
        ("2020-01-01T00:30", (0,), "not understood"),
    ],
)
def test_refused(store, init, inputs, words):
    with pytest.raises(InputError, match=words):
        chosen(store, init, inputs)


def test_latest_of_what_is_empty_or_too_short():
    store = SmallStore(count=2)
    with pytest.raises(
        InputError, match=r"no time to forecast from: states at -72h, 0h are needed, and it has 2 times"
    ):
        chosen(store, "latest", (0, -72))
    store.times = store.times[:0]
    with pytest.raises(InputError, match=r"small.zarr has no time to forecast from.*it has no times; add states"):
        chosen(store, "latest")


def test_of_states_that_are_no_store_the_default_is_the_latest(store):
    assert chosen(as_states(store), None) == ["2020-01-20T12"]


def test_the_last_day_of_a_store_needs_no_truth(store, tmp_path):
    inits = choose_init_times(store, ForecastConfig(init="latest"), [0])
    path = make_forecast(TestModel(store.domain(), drift), store, inits, ForecastConfig(), tmp_path / "f.zarr", {})
    assert (path / "zarr.json").exists()


@pytest.mark.parametrize(
    ("given", "count", "last"),
    [("24h..365d/24h", 365, 8760), (["6h", "12h..1d/12h"], 3, 24), ("6h..20h/6h", 3, 18), ("48h", 1, 48)],
    ids=str,
)
def test_ranges_of_lead_times(given, count, last):
    leads = ForecastConfig(lead_times=given).lead_times
    assert (len(leads), leads[-1]) == (count, last)


@pytest.mark.parametrize("given", ["24h..365d", "24h..12h/6h", "1h..9999999h/1h", "6h..24h/0h"])
def test_ranges_refused(given):
    with pytest.raises(ValueError, match="range"):
        ForecastConfig(lead_times=given)


PROVENANCE = {"settings": {"training": {"lead_times": ["6h", "3d"]}}}


def test_steps_that_were_not_trained_are_said(caplog):
    direct = ForecastConfig(lead_times=["6h", "24h", "72h", "96h"])
    rollout = ForecastConfig(lead_times=["6h", "24h"], mode="rollout", rollout_step="6h")
    assert untrained_steps(direct, PROVENANCE) == [24, 96]
    assert untrained_steps(rollout, PROVENANCE) == []  # of a rollout the step counts, not the lead time
    assert untrained_steps(direct, {}) == []  # weights that do not tell
    with caplog.at_level(logging.WARNING):
        warn_of_untrained(direct, PROVENANCE)
        warn_of_untrained(rollout, PROVENANCE)
    assert len(caplog.records) == 1
    assert "not trained for steps of 24h, 96h, only of 6h, 72h" in caplog.text


def test_a_forecast_tells_what_was_not_trained(store, tmp_path):
    from weatherfm.evaluation.forecasts.reader import ForecastFile

    config = ForecastConfig(lead_times=["6h", "24h"])
    model = TestModel(store.domain(), drift)
    path = make_forecast(model, store, store.times[:1], config, tmp_path / "f.zarr", {"training": PROVENANCE})
    assert ForecastFile(path).provenance["untrained_steps_hours"] == [24]


def test_store_states_have_the_face_of_states(store):
    states = StoreStates(store)
    assert as_states(states) is states
    assert states.read(days("2020-01-02", 2), ["t2m"]).shape == (2, 1, 1, 8, 16)
