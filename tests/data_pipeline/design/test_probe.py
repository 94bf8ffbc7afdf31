"""One time of each channel is looked at before anything long begins."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from cloud_stores import serving, write_arco, write_weatherbench2
from invented_source import data_config, invented_source, times_every

from weatherfm.data_pipeline.design import probe as probing
from weatherfm.data_pipeline.design.probe import fault_of
from weatherfm.data_pipeline.fields.plausible import bounds_of_sums, is_fraction
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.formats.zarr import retries
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError

GLOBE = regular_grid((4, 8))
EUROPE = Grid(np.linspace(60, 30, 4), np.linspace(-10, 25, 8))
UNIT = np.linspace(0, 1, 32).reshape(4, 8)


@pytest.mark.parametrize(
    ("channel", "field", "words"),
    [
        ("d2m", np.full((4, 8), np.nan), "has no value at all"),
        ("t2m", np.where(UNIT > 0.3, 290, np.nan), r"not finite \(NaN or infinite\): 10 of 32"),
        ("sst", np.where(UNIT > 0.3, 290, np.inf), r"not finite \(NaN or infinite\): 10 of 32"),
        ("sst", np.full((4, 8), np.nan), "has no value at all"),
        ("sst", np.where(UNIT > 0.3, 17, np.nan), "it looks like degrees Celsius"),
        ("z500", np.where(UNIT > 0.99, np.inf, 5e4), r"not finite .*: 1 of 32"),
        (
            "r850",
            0.2 + UNIT,
            "at most 1.2 % all over the globe: it is a fraction of one that is called %; .*source.units: {r: '1'}",
        ),
        ("t850", UNIT * 10 + 5, r"from 5 to 15 K, .*180 to 325: it looks like degrees Celsius"),
        ("t2m", np.full((4, 8), 9.96921e36), "wrong units, another field, or damaged"),
        ("t2m", np.full((4, 8), -9999.0), "wrong units, another field, or damaged"),
        ("u10", np.zeros((4, 8)), r"the same everywhere \(0 m s-1\)"),
        ("tcc", 100 * UNIT, "looks like per cent"),
    ],
)
def test_what_cannot_be_the_field_it_is_called(channel, field, words):
    import re

    fault = fault_of(parse_channel(channel), field.astype(np.float32), GLOBE)
    assert fault is not None
    assert fault.certain
    assert re.search(words, fault.text), fault.text


@pytest.mark.parametrize(
    ("channel", "field", "grid"),
    [
        ("r850", 100 * UNIT, GLOBE),
        ("r850", UNIT, EUROPE),  # a desert, perhaps
        ("r10", UNIT, GLOBE),  # the stratosphere is as dry as that
        ("tp", np.zeros((4, 8)), GLOBE),
        ("siconc", np.zeros((4, 8)), EUROPE),
        ("t2m", 250 + 50 * UNIT, GLOBE),
        ("sst", np.where(UNIT > 0.3, 290 + UNIT, np.nan), GLOBE),
    ],
)
def test_what_may_be(channel, field, grid):
    assert fault_of(parse_channel(channel), field.astype(np.float32), grid) is None


def test_the_same_everywhere_is_a_doubt_unless_it_is_zero():
    fault = fault_of(parse_channel("t2m"), np.full((4, 8), 280, np.float32), GLOBE)
    assert not fault.certain


def test_more_than_the_sun_gives():
    """1,361 W m-2 at 0.9833 of the mean distance are 1,407.6 W m-2."""
    channel = parse_channel("tisr")
    assert 1407.6 * 3600 < bounds_of_sums(channel, 1) < 1420 * 3600
    field = (1400 * 6 * 3600 * UNIT).astype(np.float32)
    assert fault_of(channel, field, GLOBE, 6) is None
    assert "as a sum over 1h, more than the sun gives" in fault_of(channel, field, GLOBE, 1).text
    assert bounds_of_sums(channel, None) is None
    assert bounds_of_sums(parse_channel("tp"), 6) is None


def test_fractions_need_the_whole_globe():
    channel = parse_channel("r500")
    assert is_fraction(channel, 1.3, GLOBE)
    assert not is_fraction(channel, 2.1, GLOBE)
    assert not is_fraction(channel, 1.3, EUROPE)
    assert not is_fraction(parse_channel("q500"), 1.3, GLOBE)


@pytest.mark.parametrize("name", ["tcc", "siconc"])
def test_a_cover_called_percent_that_is_a_fraction(name):
    """0.01 of one is what 1, the overcast sky, becomes when it is taken for 1 %."""
    overcast = np.zeros(GLOBE.shape, np.float32)
    overcast[0] = 1.0
    assert fault_of(parse_channel(name), overcast, GLOBE) is None
    fault = fault_of(parse_channel(name), overcast / 100, GLOBE)
    assert f"it is a fraction of one that is called %; say so with source.units: {{{name}: '1'}}" in fault.text
    assert "computed" not in fault.text
    assert fault_of(parse_channel(name), 0 * overcast, GLOBE) is None


# --- before prepare and append ---


def test_nothing_is_written_where_it_fails(tmp_path):
    def spoil(number, values):
        values[:, 1] = np.nan
        return values

    source = invented_source(times_every(6, 40), spoil=spoil)
    with pytest.raises(
        InputError, match=r"t850 has no value at all: every one is missing \(NaN\), at 2000-01-01T00:00"
    ):
        prepare(data_config(tmp_path / "s.zarr"), source)
    assert not (tmp_path / "s.zarr").exists()


def test_another_planet_may_have_other_values(tmp_path, caplog):
    source = invented_source(times_every(6, 40), spoil=lambda number, values: values + 500)
    store = prepare(data_config(tmp_path / "s.zarr"), source)
    assert "t850 reaches from" in caplog.text
    real = invented_source(times_every(6, 40), spoil=lambda number, values: values + 500)
    real = SourceData(real.state, None, real.attributes, simulated=False)
    with pytest.raises(InputError, match="t850 reaches from"):
        prepare(data_config(tmp_path / "t.zarr"), real)
    assert store.manifest["source"]["simulated"]


def test_append_looks_at_what_is_new(tmp_path):
    early, late = "2000-01-01/2000-02-09", "2000-01-01/2000-02-19"
    settings = {"train": "2000-01-01/2000-01-31"}
    prepare(data_config(tmp_path / "s.zarr", period=early, **settings), invented_source(times_every(6, 50)))
    before = {p: p.read_bytes() for p in (tmp_path / "s.zarr").rglob("*") if p.is_file()}

    def spoil(number, values):
        first = max(0, 4 * 40 - 24 * number)
        values[first:, 2] = np.nan
        return values

    with pytest.raises(InputError, match=r"t2m has no value at all.* at 2000-02-10T00:00"):
        append(
            data_config(tmp_path / "s.zarr", period=late, **settings), invented_source(times_every(6, 50), spoil=spoil)
        )
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_an_interrupted_run_is_not_looked_at_again(tmp_path, monkeypatch):
    def fail_late(number, values):
        if number == 4:
            raise OSError("went away")
        return values

    looks, look = [], probing._look
    monkeypatch.setattr(probing, "_look", lambda *arguments: looks.append(1) or look(*arguments))
    with pytest.raises(OSError, match="went away"):
        prepare(data_config(tmp_path / "s.zarr"), invented_source(times_every(6, 40), spoil=fail_late), workers=1)
    assert len(looks) == 1
    prepare(data_config(tmp_path / "s.zarr"), invented_source(times_every(6, 40)))
    assert len(looks) == 1


# --- what it costs, and where it says things are ---


def test_one_chunk_a_variable_of_a_store_across_a_network(tmp_path, monkeypatch):
    """Temperature has no values: three levels of it, three of geopotential and 2 m temperature are asked for."""
    monkeypatch.setattr(retries, "WAITS", (0.01,))
    path = write_weatherbench2(tmp_path, days=8, time_chunk=8)
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_group(path)["temperature"][:8] = np.nan
    with serving(tmp_path) as server:
        address = f"{server.address}/{path.name}"
        channels = ["z500", "z700", "z850", "t500", "t700", "t850", "t2m"]
        source = {"kind": "weatherbench2", "address": address}
        config = data_config(tmp_path / "s.zarr", source=source, channels=channels)
        with pytest.raises(InputError) as error:
            prepare(config)
        assert sorted(path.split("/")[-2:] for path in server.chunks()) == [
            ["2m_temperature", "0.0.0"],
            ["geopotential", "0.0.0.0"],
            ["temperature", "0.0.0.0"],
        ]
    text = str(error.value)
    for level in (500, 700, 850):
        assert (
            f"t{level} has no value at all: every one is missing (NaN), at 2020-01-01T00:00 (temperature of {address})"
            in text
        )
    assert "z500" not in text
    assert not (tmp_path / "s.zarr").exists()


def test_arco_moves_one_hour(tmp_path, monkeypatch):
    path = write_arco(tmp_path, ("2020-01-01", "2020-01-07"), ("geopotential", "temperature", "2m_temperature"))
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_group(path)["2m_temperature"][1051896] = np.nan
    with serving(tmp_path) as server:
        source = {"kind": "arco", "address": f"{server.address}/{path.name}"}
        with pytest.raises(InputError, match="t2m has no value at all"):
            prepare(data_config(tmp_path / "s.zarr", source=source, channels=["z500", "z700", "t850", "t2m"]))
        assert len(server.chunks()) == len(set(server.chunks())) == 3
