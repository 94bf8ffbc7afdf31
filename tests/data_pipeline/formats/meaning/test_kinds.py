"""What is not the state is refused by name, or taken when it is asked for."""

from __future__ import annotations

import logging

import eccodes
import netCDF4
import numpy as np
import pytest
from synthetic_files import TIMES, field, grib_message, open_files, wave, write_netcdf

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

_PACKING = 1e-5


def surface(name="2t", **keys) -> bytes:
    return grib_message(name, kind="surface", **keys)


def refused(path, match, channel="t2m", **settings):
    with pytest.raises(InputError, match=match):
        open_files(path, [channel], **settings)


def grib(tmp_path, *messages: bytes):
    path = tmp_path / "x.grib"
    path.write_bytes(b"".join(messages))
    return path


@pytest.mark.parametrize(("key", "value", "words", "kind"), [
    ("type", "es", "the spread of an ensemble", "spread"),
    ("type", "em", "the mean of an ensemble", "ensemble_mean"),
    ("type", "ep", "a probability", "probability"),
    ("type", "cl", "a climatology", "climatology"),
    ("type", "fcmax", "a maximum", "maximum"),
    ("type", "ef", "an estimate of errors", "error"),
    ("type", "fcstdev", "a standard deviation", "standard_deviation"),
    ("type", "ssd", "of an unknown kind", "ssd"),
    ("stream", "moda", "a monthly mean", "monthly_mean"),
    ("stream", "mnth", "a monthly mean", "monthly_mean"),
    ("stream", "msmm", "a monthly mean", "monthly_mean"),
    ("stream", "sfmm", "a monthly mean", "monthly_mean"),
    ("stream", "clmn", "a monthly mean", "monthly_mean"),
    ("stream", "mofm", "a mean over time", "mean"),
    ("stream", "dame", "a mean over time", "mean"),
    ("stream", "mmsa", "an anomaly", "anomaly"),
    ("stream", "smma", "an anomaly", "anomaly"),
    ("stream", "msda", "a standard deviation", "standard_deviation"),
    ("stream", "eehs", "a climatology", "climatology"),
])  # fmt: skip
def test_types_and_streams_of_ecmwf(tmp_path, key, value, words, kind):
    path = grib(tmp_path, surface(**{key: value}))
    refused(path, rf"t2m is {words} \(GRIB (dataType|stream) {value}\), not the field .*source\.kinds: \[{kind}\]")
    np.testing.assert_allclose(open_files(path, ["t2m"], kinds=[kind]).state[0, 0], wave(TIMES[:1])[0], rtol=_PACKING)


@pytest.mark.parametrize("keys", [
    {"type": "an"}, {"type": "4v"}, {"type": "fc"}, {"type": "cf", "stream": "enfo"},
    {"type": "pf", "stream": "enfo", "number": 3}, {"type": "pf", "stream": "enfh"}, {"type": "fc", "stream": "mmsf"},
    {"type": "fc", "stream": "mmaf"}, {"type": "an", "stream": "enda"},
])  # fmt: skip
def test_states_are_taken(tmp_path, keys):
    data = open_files(grib(tmp_path, surface(**keys)), ["t2m"])
    np.testing.assert_allclose(data.state[0, 0], wave(TIMES[:1])[0], rtol=_PACKING)


@pytest.mark.parametrize(("keys", "words"), [
    ({"productDefinitionTemplateNumber": 2, "derivedForecast": 0}, "the mean of an ensemble .derived forecast 0"),
    ({"productDefinitionTemplateNumber": 2, "derivedForecast": 4}, "the spread of an ensemble .derived forecast 4"),
    ({"productDefinitionTemplateNumber": 12, "derivedForecast": 9}, "a maximum"),
    ({"productDefinitionTemplateNumber": 5}, "a probability .product definition template 5"),
    ({"productDefinitionTemplateNumber": 9}, "a probability"),
    ({"productDefinitionTemplateNumber": 6, "percentileValue": 90}, "a quantile"),
    ({"productDefinitionTemplateNumber": 10, "percentileValue": 90}, "a quantile"),
    ({"productDefinitionTemplateNumber": 7}, "an estimate of errors"),
    ({"productDefinitionTemplateNumber": 15}, "a statistic over an area"),
    ({"stepType": "avg", "stepRange": "0-6"}, "a mean over time .GRIB stepType avg"),
    ({"stepType": "max", "stepRange": "0-6"}, "a maximum"),
    ({"stepType": "min", "stepRange": "0-6"}, "a minimum"),
    ({"stepType": "diff", "stepRange": "0-6"}, "a difference"),
    ({"stepType": "rms", "stepRange": "0-6"}, "a standard deviation"),
    ({"stepType": "sd", "stepRange": "0-6"}, "a standard deviation"),
    ({"stepType": "accum", "stepRange": "0-6"}, "a sum over time"),
])  # fmt: skip
def test_templates_of_edition_2(tmp_path, keys, words):
    """sst: a field whose name does not change with its processing."""
    refused(grib(tmp_path, surface("sst", edition=2, **keys)), f"sst is {words}", "sst")


def test_the_wanted_field_decides(tmp_path):
    base = wave(TIMES[:1])[0]
    path = grib(tmp_path, surface(type="es", values=base * 0 + 1), surface(values=base), surface("msl", type="em"))
    np.testing.assert_allclose(open_files(path, ["t2m"]).state[0, 0], base, rtol=_PACKING)
    assert (open_files(path, ["t2m"], kinds=["spread"]).state.values == 1).all()
    refused(path, "no channel msl: msl is the mean of an ensemble", "msl")
    refused(grib(tmp_path, surface()), "t2m is the field itself, not the spread of an ensemble", kinds=["spread"])


def of_ncep(message: bytes, product: int) -> bytes:
    """An ensemble product of edition 1: octets 41 to 44 of section 1 tell what it is (office note 388)."""
    length = int.from_bytes(message[8:11], "big")
    section = bytearray(message[8 : 8 + min(length, 28)] + bytes(32))
    section[:3], section[4], section[25] = len(section).to_bytes(3, "big"), 7, 2
    section[40:44] = bytes([1, 5, 1, product])
    body = bytes(section) + message[8 + length :]
    return b"GRIB" + (8 + len(body)).to_bytes(3, "big") + b"\1" + body


@pytest.mark.parametrize(("product", "expected"), [(1, None), (3, "mean"), (11, "spread")])
def test_ncep_names_ensemble_products_in_edition_1(tmp_path, product, expected):
    path = grib(tmp_path, of_ncep(grib_message("t", 500, centre=7), product))
    if expected is None:
        np.testing.assert_allclose(open_files(path, ["t500"]).state[0, 0], wave(TIMES[:1])[0], rtol=_PACKING)
    else:
        refused(path, rf"t500 is the {expected} of an ensemble \(NCEP product identifier {product}\)", "t500")


def test_sums_by_nature_stay_sums(tmp_path):
    base = wave(TIMES[:1])[0]
    data = open_files(grib(tmp_path, surface("tp", stepType="accum", stepRange="0-6", values=base)), ["tp"])
    np.testing.assert_allclose(data.state[0, 0], base, rtol=_PACKING)
    assert data.attributes["accumulation"] == {"tp": {"window_hours": 6, "source_hours": 6}}


@pytest.mark.parametrize(("stream", "kind", "hours"), [("moda", "monthly_mean", 24)])
def test_a_monthly_mean_of_sums_is_a_days_sum(tmp_path, stream, kind, hours):
    messages = [surface("tp", stream=stream, date=date) for date in (20200101, 20200201)]
    data = open_files(grib(tmp_path, *messages), ["tp"], kinds=[kind])
    assert data.attributes["accumulation"]["tp"] == {"window_hours": hours, "source_hours": hours}
    assert data.state["time"].values.astype("datetime64[D]").astype(str).tolist() == ["2020-01-01", "2020-02-01"]


def test_spread_of_a_real_ensemble(real_data):
    path = next((real_data / "cases" / "ens-spread").glob("*.grib"))
    refused(path, r"t2m is the spread of an ensemble \(GRIB dataType es\), not the field", lead_time="3h")
    with open(path, "rb") as file:
        messages = iter(lambda: eccodes.codes_grib_new_from_file(file), None)
        keys = [("shortName", "2t"), ("endStep", 3)]
        found = next(m for m in messages if all(str(eccodes.codes_get(m, k)) == str(v) for k, v in keys))
        expected = eccodes.codes_get_values(found).astype(np.float32)
    state = open_files(path, ["t2m"], lead_time="3h", kinds=["spread"]).state.values
    np.testing.assert_array_equal(np.sort(state.ravel()), np.sort(expected))


def test_monthly_means_of_the_data_store(real_data):
    path = real_data / "cases" / "cds-monthly-means" / "data_1.nc"
    refused(path, r"t2m is a monthly mean \(GRIB_stepType avgua\), not the field")
    refused(path, r"tp is a monthly mean \(GRIB_stepType avgad\)", "tp")
    data = open_files(path, ["t2m", "tp"], kinds=["monthly_mean"], allow_gaps=True)
    with netCDF4.Dataset(path) as raw:
        expected = [raw[name][0, 0, 0] for name in ("t2m", "tp")]
    assert expected == [pytest.approx(269.597, abs=1e-3), pytest.approx(0.00156747, rel=1e-5)]
    np.testing.assert_array_equal(data.state.values[0, :, 0, 0], expected)
    assert data.attributes["accumulation"] == {"tp": {"window_hours": 24, "source_hours": 24}}  # not over 744 h
    assert data.attributes["kinds"] == ["monthly_mean"]


@pytest.mark.parametrize(("attributes", "words"), [
    ({"GRIB_dataType": "es"}, "the spread of an ensemble"),
    ({"GRIB_dataType": "fcmean"}, "a mean over time"),
    ({"GRIB_stepType": "avgid"}, "a monthly mean"),
    ({"GRIB_stepType": "max"}, "a maximum"),
    ({"GRIB_stream": "moda"}, "a monthly mean"),
    ({"cell_methods": "time: maximum"}, "a maximum"),
    ({"cell_methods": "area: mean time: standard_deviation"}, "a standard deviation"),
    ({"cell_methods": "realization: mean"}, "the mean of an ensemble"),
    ({"cell_methods": "realization: standard_deviation"}, "the spread of an ensemble"),
    ({"cell_methods": "time: mean within days time: mean over days"}, "a climatology"),
    ({"cell_methods": "time: sum"}, "a sum over time"),
    ({"statistic": "Ensemble Mean"}, "the mean of an ensemble"),
    ({"statistic": "Long Term Mean"}, "a climatology"),
    ({"Grib_Statistical_Interval_Type": "Average"}, "a mean over time"),
])  # fmt: skip
def test_attributes_of_netcdf(tmp_path, attributes, words):
    dataset = field()
    dataset["t2m"].attrs.update(attributes)
    refused(write_netcdf(tmp_path / "x.nc", dataset), f"t2m is {words}")


@pytest.mark.parametrize("attributes", [
    {"cell_methods": "area: mean"}, {"cell_methods": "area: mean time: point"}, {"statistic": "Individual Obs"},
    {"GRIB_dataType": "an", "GRIB_stepType": "instant", "GRIB_stream": "oper"},
])  # fmt: skip
def test_attributes_of_states(tmp_path, attributes):
    dataset = field()
    dataset["t2m"].attrs.update(attributes)
    data = open_files(write_netcdf(tmp_path / "x.nc", dataset), ["t2m"])
    assert data.attributes["means"] == {}


def daily(hours: float, bounds: bool, **shared):
    """Means labelled with the middle of their span."""
    starts = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(round(hours * 3600), "s")
    half = np.timedelta64(round(hours * 1800), "s")
    dataset = field(times=starts + half).assign_attrs(shared)
    dataset["t2m"].attrs["cell_methods"] = "area: time: mean"
    if bounds:
        dataset["time"].attrs["bounds"] = "time_bnds"
        dataset["time_bnds"] = ("time", "bnds"), np.stack([starts, starts + 2 * half], axis=1)
    return dataset


@pytest.mark.parametrize("bounds", [True, False])
def test_daily_means_are_taken_with_a_word(tmp_path, bounds, caplog):
    path = write_netcdf(tmp_path / "x.nc", daily(24, bounds))
    with caplog.at_level(logging.WARNING):
        data = open_files(path, ["t2m"])
    assert [r.message for r in caplog.records if "means over a day or less" in r.message] != []
    assert data.attributes["means"] == {"t2m": "cell_methods 'area: time: mean', over 24 h"}


@pytest.mark.parametrize(("hours", "bounds", "shared"), [
    (48, True, {}), (48, False, {}), (730, True, {}), (24, False, {"frequency": "mon"}),
])  # fmt: skip
def test_longer_means_are_refused(tmp_path, hours, bounds, shared):
    refused(write_netcdf(tmp_path / "x.nc", daily(hours, bounds, **shared)), r"t2m is a (monthly mean|mean over time)")


def test_one_mean_without_bounds_is_of_an_unknown_span(tmp_path):
    refused(write_netcdf(tmp_path / "x.nc", daily(24, False).isel(time=[0])), "over an unknown span")


def test_daily_means_of_a_climate_model(real_data):
    path = next((real_data / "cases" / "cmip6-daily").glob("*IPSL*"))
    data = open_files(path, ["t850"])
    assert "over 24 h" in data.attributes["means"]["t850"]
    assert float(data.state[0, 0, 0, 0]) == pytest.approx(251.4615, abs=1e-4)


def test_a_flux_file_of_ncep(real_data):
    """Cloud of a convective layer is not that of the column; the skin is t at the surface."""
    path = real_data / "cases" / "gfs-flux-r1" / "flxf2006040100.grb"
    refused(path, r"tcc lies on the layer unknown 0 \(GRIB typeOfLevel\), where it is another field", "tcc")
    data = open_files(path, ["t2m", "skt"], rename={"t:surface:0": "skt"})
    assert data.state["time"].values[0] == np.datetime64("2006-04-01T00")
    at = data.state.sel(latitude=-0.9524, longitude=358.125, method="nearest").values[0]
    assert at[0] == pytest.approx(300.156, abs=1e-3)
    with open(path, "rb") as file:
        messages = iter(lambda: eccodes.codes_grib_new_from_file(file), None)
        skin = next(
            m for m in messages if [eccodes.codes_get(m, k) for k in ("shortName", "typeOfLevel")] == ["t", "surface"]
        )
        nearest = eccodes.codes_grib_find_nearest(skin, -0.9524, 358.125)[0]
    assert at[1] == pytest.approx(nearest.value, abs=1e-3)
    assert np.isfinite(data.state.values).all()


@pytest.mark.parametrize(("kind", "level", "taken"), [
    ("entireAtmosphere", 0, True), ("surface", 0, True), ("cloudTop", 0, False), ("isobaricInhPa", 500, False),
    ("hybrid", 1, False),
])  # fmt: skip
def test_layers_of_a_column(tmp_path, kind, level, taken):
    """An instantaneous cloud cover as NCEP writes it in edition 1: one name for all layers."""
    keys = {"centre": 7, "table2Version": 2, "indicatorOfParameter": 71, "typeOfLevel": kind}
    message = eccodes.codes_new_from_message(grib_message("t", 500))
    for key, value in {**keys, **({"level": level} if level else {})}.items():
        eccodes.codes_set(message, key, value)
    assert eccodes.codes_get(message, "shortName") == "tcc"
    path = tmp_path / "x.grib"
    path.write_bytes(eccodes.codes_get_message(message))
    if taken:
        np.testing.assert_allclose(open_files(path, ["tcc"]).state[0, 0], wave(TIMES[:1])[0] / 100, rtol=_PACKING)
    else:
        refused(path, f"tcc lies on the layer {kind}", "tcc")


def test_names_at_one_layer(tmp_path):
    """`t` of the ground is renamed, `t` at 500 hPa is not; the level may be left out."""
    base = wave(TIMES[:1])[0]
    path = grib(tmp_path, surface("t", values=base + 5), grib_message("t", 500, values=base))
    for key in ("t:surface", "t:surface:0"):
        state = open_files(path, ["skt", "t500"], rename={key: "skt"}).state
        np.testing.assert_allclose(state[0], np.stack([base + 5, base]), rtol=_PACKING)
    refused(path, "holds no channel skt", "skt", rename={"t:surface:1": "skt"})
    refused(path, "t2m lies on the layer (surface|isobaric)", "t2m", rename={"t": "t2m"})  # not the skin either


def test_forecasts_from_files_refuse_the_same(tmp_path):
    path = grib(tmp_path, surface(type="es"))
    with pytest.raises(InputError, match=r"the model needs t2m, .*t2m is the spread of an ensemble"):
        open_file_states([str(path)], ["t2m"])


def test_prepare_refuses_before_it_writes(tmp_path):
    path = grib(tmp_path, surface(type="es"))
    config = DataConfig(store=str(tmp_path / "store"), source={"kind": "files", "paths": [str(path)]}, channels=["t2m"])
    with pytest.raises(InputError, match="t2m is the spread of an ensemble"):
        prepare(config)
    assert [p.name for p in tmp_path.iterdir()] == ["x.grib"]
