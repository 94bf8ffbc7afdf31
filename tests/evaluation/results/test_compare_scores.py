"""Which scores may be compared, and what stands in their merged dataset."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.evaluation.results.comparison import differences_between, merge_scores
from weatherfm.evaluation.results.lookup import lead_hours, provenance_of
from weatherfm.evaluation.results.scores_file import build_scores, read_scores, write_scores

GRID = regular_grid((4, 8))
DAYS = np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]")
RECORD = {
    "code_version": "1",
    "weights": "cell areas",
    "climatology_period": "1990/2010",
    "climatology_window_days": 61,
    "statistics_period": "1990/2010",
    "missing_data": "none",
    "simulated": False,
    "regions": {"global": "-90 .. 90 N"},
    "baselines": {"persistence": "the state", "damped_persistence": "fitted on 1990/2010"},
}
PERIODS, REGIONS, LEADS, CHANNELS = ["all", "DJF"], ["global", "tropics"], [24, 72], ["z500", "t850", "t2m"]
BASELINES = ("persistence", "climatology", "damped_persistence")


def value(forecast: str, *labels) -> float:
    """A score that is a property of its labels alone, so that any merging can be checked."""
    text = "/".join(map(str, (forecast, *labels)))
    return 1 + sum(ord(letter) * (i + 1) for i, letter in enumerate(text)) % 997 / 997


def table(forecast: str, *labels) -> np.ndarray:
    sizes = [len(names) for names in labels]
    flat = [value(forecast, *(names[i] for names, i in zip(labels, at, strict=True))) for at in np.ndindex(*sizes)]
    return np.reshape(flat, sizes)


def made(
    models=("model",), channels=CHANNELS, leads=LEADS, regions=REGIONS, grid=GRID, days=DAYS, seen="", **changes
) -> xr.Dataset:
    """Scores of these models; `seen` stands for the truth, `changes` are of the record."""
    events, crps = changes.pop("events", None), changes.pop("crps", False)
    changes["regions"] = changes.pop("defined", RECORD["regions"])
    names = [*models, *BASELINES]
    dims, labels = ("period", "region", "lead_time", "channel"), (PERIODS, regions, leads, channels)
    variables = {}
    for name in names:
        found = {metric: (dims, table(name + seen + metric, *labels)) for metric in ("rmse", "mse")}
        if name in models:
            against = np.stack([table(f"{name} vs {other}", *labels[1:]) for other in names])
            against[names.index(name)] = np.nan
            found["rmse_p_value"] = (("reference", *dims[1:]), against)
        if crps:
            found["crps"] = (dims, table(name + "crps", *labels))
        if events:
            found["brier"] = (("period", "region", "lead_time", "event"), table(name, *labels[:3], events))
        variables[name] = found
        spectrum = ("lead_time", "channel", "total_wavenumber")
        if name in models:
            found["spherical_spectrum"] = (spectrum, table(name, leads, channels, [0, 1]))
            found["spherical_spectrum_truth"] = (spectrum, table("truth", leads, channels, [0, 1]))
    record = RECORD | changes
    record["weights_sha256"] = {name: f"hash of {name}" for name in models}
    record["forecasts"] = {name: {"address": f"{name}.zarr"} for name in models}
    coordinates = {
        "period": PERIODS,
        "region": regions,
        "lead_time": leads,
        "channel": channels,
        "event": events or [],
        "reference": names,
        "total_wavenumber": [0, 1],
    }
    return build_scores(variables, dict.fromkeys(names, 1), coordinates, grid, days, record)


def test_scores_made_alike_are_comparable():
    assert differences_between(made(), made()) == []
    others = made(["b"], channels=["t2m"], regions=["global"], leads=[72, 120])
    assert differences_between(made(["a"]), others) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "cos(latitude)"}, r"weights \(cell areas / cos\(latitude\)\)"),
        ({"climatology_period": "1980/2010"}, r"climatology_period \(1990/2010 / 1980/2010\)"),
        ({"climatology_window_days": 31}, r"climatology_window_days \(61 / 31\)"),
        ({"statistics_period": "1980/2000"}, "statistics_period"),
        ({"missing_data": "left out"}, r"missing_data \(none / left out\)"),
        ({"simulated": True}, "simulated"),
        ({"defined": {"global": "-80 .. 80 N"}}, r"region global \(-90 .. 90 N / -80 .. 80 N\)"),
        ({"baselines": {"damped_persistence": "fitted on 2000"}}, "baseline damped_persistence"),
        ({"days": DAYS[1:]}, r"initial times \(10 from 2020-01-01T00 to 2020-01-10T00 / 9 from 2020-01-02T00"),
        ({"grid": regular_grid((6, 8))}, r"grid \(4 x 8 global.* / 6 x 8 global"),
        ({"seen": "other"}, r"truth \(the scores of persistence and climatology and damped_persistence differ"),
    ],
)
def test_scores_made_otherwise_are_refused(change, words):
    with pytest.raises(InputError, match=f"cannot be compared, they differ. a / b: {words}.*Evaluate the forecasts"):
        merge_scores([made(), made(**change)], ["a", "b"])


@pytest.mark.parametrize("attribute", ["format", "code_version"])
def test_other_versions_are_refused(attribute):
    other = made()
    other.attrs[attribute] = "0.0.1"
    with pytest.raises(InputError, match=rf"differ. a / b: {attribute} \(.* / 0\.0\.1\)"):
        merge_scores([made(), other], ["a", "b"])


def test_all_differences_are_named_at_once():
    with pytest.raises(InputError) as told:
        merge_scores([made(), made(weights="none", climatology_window_days=1, days=DAYS[:3])], ["a", "b"])
    assert all(word in str(told.value) for word in ("weights", "climatology_window_days", "initial times"))
    assert "truth" not in str(told.value)  # other cases explain other scores of the baselines


def test_definitions_of_what_only_one_file_has_do_not_matter():
    one = made(baselines={"persistence": "the state"})
    assert differences_between(one, made()) == []


def test_nothing_in_common_is_refused():
    with pytest.raises(InputError, match="share no channel: z500 / t2m"):
        differences_between(made(channels=["z500"]), made(channels=["t2m"]))
    with pytest.raises(InputError, match="share no lead time: 24 h / 72 h, 120 h"):
        merge_scores([made(leads=[24]), made(leads=[72, 120])], ["a", "b"], force=True)


def test_merged_scores_hold_every_forecast_once_and_unchanged():
    merged = merge_scores([made(["m", "hres"]), made(["n"])], ["one", "two"])
    assert merged["forecast"].values.tolist() == ["m", "hres", "n", *BASELINES]
    assert merged["kind"].values.tolist() == ["model"] * 3 + ["baseline"] * 3
    assert "differences" not in merged.attrs
    for name in merged["forecast"].values:
        expected = table(name + "mse", PERIODS, REGIONS, LEADS, CHANNELS)
        np.testing.assert_array_equal(merged["mse"].sel(forecast=name), expected)
    assert merged["units"].sel(channel="t2m") == "K"
    assert merged["init_time"].size == 10
    assert provenance_of(merged)["weights_sha256"] == {name: f"hash of {name}" for name in ("m", "hres", "n")}
    xr.testing.assert_equal(merged["spherical_spectrum_truth"], made()["spherical_spectrum_truth"])
    assert np.isfinite(merged["spherical_spectrum"].sel(forecast=["m", "hres", "n"])).all()


def test_one_file_stays_as_it_is():
    xr.testing.assert_identical(merge_scores([made()], ["one"]), made())


def test_only_what_all_files_hold_is_kept():
    other = made(["n"], channels=["t2m", "z500"], leads=[72, 120], regions=["tropics"]).isel(period=[0])
    merged = merge_scores([made(["m"]), other], ["one", "two"])
    assert merged["channel"].values.tolist() == ["z500", "t2m"]  # in the order of the first
    assert lead_hours(merged) == [72]
    assert merged["region"].values.tolist() == ["tropics"]
    assert merged["period"].values.tolist() == ["all"]
    expected = value("nrmse", "all", "tropics", 72, "z500")
    assert merged["rmse"].sel(forecast="n", channel="z500").item() == expected


def test_names_are_told_apart_by_file():
    merged = merge_scores([made(["model", "hres"]), made(["model"]), made(["model"])], ["run", "other", "run"])
    models = merged["forecast"].values[merged["kind"].values == "model"].tolist()
    assert models == ["model (run)", "hres", "model (other)", "model (run 2)"]
    assert set(provenance_of(merged)["forecasts"]) == set(models)


def test_p_values_stay_within_their_file():
    merged = merge_scores([made(["m"]), made(["n"])], ["one", "two"])
    assert merged["reference"].values.tolist() == ["m", *BASELINES, "n"]
    p = merged["rmse_p_value"]
    assert np.isnan(p.sel(forecast="m", reference="n")).all()
    assert np.isnan(p.sel(forecast="n", reference="m")).all()
    for name in ("m", "n"):
        expected = table(f"{name} vs climatology", REGIONS, LEADS, CHANNELS)
        np.testing.assert_array_equal(p.sel(forecast=name, reference="climatology"), expected)


def test_variables_of_one_file_are_nan_for_the_others():
    ensemble = made(["e"], crps=True, events=["t2m > 300", "t2m < 250"])
    for order in ([made(["m"]), ensemble], [ensemble, made(["m"])]):
        merged = merge_scores(order, ["one", "two"])
        assert np.isnan(merged["crps"].sel(forecast="m")).all()
        assert np.isfinite(merged["crps"].sel(forecast="e")).all()
        assert merged["event"].values.tolist() == ["t2m > 300", "t2m < 250"]  # not sorted
        assert np.isfinite(merged["brier"].sel(forecast="e")).all()


def test_other_scores_are_refused_or_labelled():
    first = made(["m"])
    other = made(["n"], days=DAYS[1:], seen="later", simulated=True)
    with pytest.raises(
        InputError, match=r"cannot be compared.*one / two: simulated.*one / two: initial times.*--force"
    ):
        merge_scores([first, other], ["one", "two"])
    merged = merge_scores([first, other], ["one", "two"], force=True)
    told = json.loads(merged.attrs["differences"])
    assert len(told) == 2
    assert told[0].startswith("one / two: simulated (False / True)")
    assert merged.attrs["simulated"] == "true"


def test_forced_models_keep_the_baselines_they_were_scored_with():
    merged = merge_scores([made(["m"]), made(["n"], days=DAYS[1:], seen="later")], ["one", "two"], force=True)
    baselines = merged["forecast"].values[merged["kind"].values == "baseline"].tolist()
    assert baselines == [*BASELINES, *(f"{name} (two)" for name in BASELINES)]
    expected = table("persistencelatermse", PERIODS, REGIONS, LEADS, CHANNELS)
    np.testing.assert_array_equal(merged["mse"].sel(forecast="persistence (two)"), expected)
    p = merged["rmse_p_value"]
    assert np.isfinite(p.sel(forecast="n", reference="persistence (two)")).all()
    assert np.isnan(p.sel(forecast="n", reference="persistence")).all()


def test_scores_without_periods_or_tests_merge_too():
    bare = [made([name]).sel(period="all", drop=True).drop_vars("rmse_p_value") for name in ("m", "n")]
    merged = merge_scores([scores.drop_dims("reference") for scores in bare], ["one", "two"])
    assert merged["rmse"].dims == ("forecast", "region", "lead_time", "channel")
    assert np.isfinite(merged["rmse"]).all()


def test_limited_areas_and_files(tmp_path):
    """The coordinates survive the file, so scores read back compare like those made."""
    area = Grid(np.arange(60, 29, -1.5), np.arange(-20, 15, 1.5))
    paths = [write_scores(made([name], grid=area), tmp_path / f"{name}.nc") for name in ("m", "n")]
    merged = merge_scores([read_scores(path) for path in paths], ["m", "n"])
    again = read_scores(write_scores(merged, tmp_path / "merged.nc"))
    xr.testing.assert_equal(again, merged)
    with pytest.raises(InputError, match="grid"):
        merge_scores([read_scores(paths[0]), made()], ["a", "b"])
