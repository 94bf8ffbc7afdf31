"""Few requests: one a data set and month up to a stated size, in the form that the store takes cheaply."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from cds_at_hand import answering
from cds_server import cost_of
from era5_grib import answer, invented

from weatherfm.data_pipeline.cds import grouping
from weatherfm.data_pipeline.cds.box import box_of
from weatherfm.data_pipeline.cds.grouping import MOST_BYTES, MOST_FIELDS, requests_for
from weatherfm.data_pipeline.cds.wanted import wanted_fields, wanted_times
from weatherfm.data_pipeline.machine import cache_folder
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
UPPER = [f"{variable}{level}" for variable in "ztuvq" for level in LEVELS]


@pytest.fixture
def server(monkeypatch, tmp_path):
    with answering(monkeypatch, tmp_path, attempts=2) as one:
        yield one


def config(channels, cache="unused", grid=0.25, **settings) -> DataConfig:
    source = {"kind": "cds", "grid": grid, "cache": str(cache)}
    settings = {"step": "6h", "climatology_window": None, **settings}
    return DataConfig.model_validate({"store": "unused", "source": source, "channels": list(channels), **settings})


def ask(data: DataConfig):
    wanted = wanted_fields(data, data.channels, wanted_times(data, data.channels))
    return requests_for(wanted, box_of(data))


def test_forty_years_of_69_channels_are_960_requests():
    requests = ask(config([*UPPER, "t2m", "u10", "v10", "msl"], period="1980-2019"))
    assert len(requests) == 40 * 12 * 2
    assert {len(one.channels) for one in requests} == {65, 4}


def test_what_is_sent():
    """Bodies written by hand, as the store's form shows them."""
    upper, single = ask(config(["z500", "t850", "z850", "t2m", "sp"], period="2020-02-28/2020-02-29", step="12h"))
    both = {
        "product_type": ["reanalysis"],
        "year": ["2020"],
        "month": ["02"],
        "day": ["28", "29"],
        "time": ["00:00", "12:00"],
        "data_format": "grib",
        "download_format": "unarchived",
    }
    assert upper.dataset == "reanalysis-era5-pressure-levels"
    assert upper.body == {
        "variable": ["temperature", "geopotential"],
        "pressure_level": ["500", "850"],
        **both,
    }
    assert single.dataset == "reanalysis-era5-single-levels"
    assert single.body == {
        "variable": ["surface_pressure", "2m_temperature"],
        **both,
    }


@pytest.mark.parametrize(("grid", "sent"), [(0.25, None), (1.0, "1/1"), (5.625, "5.625/5.625"), (2.5, "2.5/2.5")])
def test_a_grid_costs_nothing(grid, sent):
    (request,) = ask(config(["t2m"], grid=grid, period="2020-02-01/2020-02-29"))
    assert request.body.get("grid") == sent
    assert cost_of(request.body) == request.fields == 29 * 4


def test_no_request_is_larger_than_is_said():
    low, high = (1, 2, 3, 5, 7, 20, 30, 50, 70, *range(100, 275, 25)), (*range(300, 750, 50), *range(750, 1025, 25))
    everything = [f"{variable}{level}" for variable in "ztuvqw" for level in (*low, *high)]
    assert len(everything) == 6 * 36
    coarse = ask(config(everything, grid=2.5, period="2020-01-01/2020-01-31", step=None))
    assert sum(one.fields for one in coarse) == 6 * 36 * 31 * 24
    assert len(coarse) == 4
    assert max(one.fields for one in coarse) <= MOST_FIELDS
    fine = ask(config(everything, period="2020-01-01/2020-01-31", step=None))
    assert max(one.fields for one in fine) * 721 * 1440 * 2 <= MOST_BYTES
    for requests in (coarse, fine):
        held = [(channel, time) for one in requests for channel in one.channels[:3] for time in one.times.tolist()]
        assert len(held) == len(set(held)) == 3 * 31 * 24


def test_the_wind_at_10_hpa_is_not_the_one_at_10_m(tmp_path, server):
    """It comes along with others, and has no name."""
    data = config(["z10", "u20", "u500", "z20", "z500"], tmp_path / "cache", grid=30.0, period="2020-02-01/2020-02-01")
    open_source(data).fetch()
    assert [(sent["variable"], sent["pressure_level"]) for sent in server.sent] == [
        (["u_component_of_wind", "geopotential"], ["10", "20", "500"])
    ]
    source = open_source(data.model_copy(update={"channels": ["u10"]}))
    assert source.cost(np.arange(4)).requests == 1


def test_levels_that_few_variables_share_are_asked_apart():
    requests = ask(config([*(f"z{level}" for level in LEVELS), "q700", "t850"], period="2020-01-01/2020-01-31"))
    assert [(one.variables, one.levels) for one in requests] == [(("q",), (700,)), (("t",), (850,)), (("z",), LEVELS)]


def test_an_older_grouping_counts(tmp_path, server):
    """A file of one variable, asked with `grid` as a list, beside a note without what newer notes tell."""
    data = config(["z500", "z850", "t500", "t2m"], tmp_path / "cache", grid=30.0, period="2020-01-30/2020-02-02")
    body = {
        "product_type": ["reanalysis"], "variable": ["geopotential"], "pressure_level": ["500", "850"],
        "year": ["2020"], "month": ["01"], "day": ["30", "31"], "time": ["00:00", "06:00", "12:00", "18:00"],
        "data_format": "grib", "download_format": "unarchived", "grid": [30.0, 30.0],
    }  # fmt: skip
    content = answer({**body, "grid": "30/30"})
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "geopotential_2020-01_0123456789abcdef.grib"
    path.write_bytes(content)
    note = {
        "dataset": "reanalysis-era5-pressure-levels", "request": body, "downloaded": "2024-11-01",
        "bytes": len(content), "preliminary": [],
    }  # fmt: skip
    Path(f"{path}.json").write_text(json.dumps(note))
    source = open_source(data)
    source.fetch()
    asked = sorted((sent["month"][0], sorted(sent["variable"])) for sent in server.sent)
    assert asked == [
        ("01", ["2m_temperature"]), ("01", ["temperature"]), ("02", ["2m_temperature"]),
        ("02", ["geopotential", "temperature"]),
    ]  # fmt: skip
    latitude, longitude = source.state["latitude"].values, source.state["longitude"].values
    for i, (variable, level) in enumerate((("z", 500), ("z", 850), ("t", 500), ("t2m", 0))):
        times = source.state["time"].values
        expected = np.stack([invented(variable, level, time, latitude, longitude) for time in times])
        np.testing.assert_allclose(source.state[:, i], expected, atol=4e-5 * np.ptp(expected))


def test_another_grid_or_area_does_not_count(tmp_path, server):
    settings = {"channels": ["t2m"], "cache": tmp_path / "cache", "period": "2020-02-01/2020-02-01"}
    area = {"north": 60, "west": 0, "south": -60, "east": 120}
    for changes in ({"grid": 30.0}, {"grid": 15.0}, {"grid": 30.0, "area": area}):
        open_source(config(**settings, **changes)).fetch()
    assert [sent["grid"] for sent in server.sent] == ["30/30", "15/15", "30/30"]


def test_nothing_is_asked_of_the_year_before_era5(caplog):
    """Sums start with the forecast of 06 UTC: the first hourly one ends at 07 UTC."""
    late = r"the 6h sums of tp at 1940-01-01T00, 1940-01-01T06 cannot be had: .* 1940-01-01T07; start data\.period on "
    with pytest.raises(InputError, match=late + r"1940-01-02, or set data\.allow_gaps"):
        ask(config(["tp", "t2m"], period="1940-01-01/1940-01-02"))
    requests = ask(config(["tp", "t2m"], period="1940-01-01/1940-01-02", allow_gaps=True))
    assert "2 times left out" in caplog.text
    assert [(one.variables, one.month, one.days, one.hours) for one in requests] == [
        (("t2m",), "1940-01", (1, 2), (0, 6, 12, 18)),
        (("tp",), "1940-01", (1,), tuple(range(7, 24))),
        (("tp",), "1940-01", (2,), tuple(range(19))),
    ]
    assert len(ask(config(["t2m"], period="1940-01-01/1940-01-01"))) == 1  # instants begin with the day


def test_the_first_sums_are_read(tmp_path, server):
    data = config(["tp"], tmp_path / "cache", grid=30.0, period="1940-01-01/1940-01-01", allow_gaps=True)
    source = open_source(data)
    source.fetch()
    assert source.state["time"].values.astype("datetime64[h]").astype(str).tolist() == [
        "1940-01-01T12",
        "1940-01-01T18",
    ]
    hours = [np.datetime64(f"1940-01-01T{hour:02d}", "s") for hour in range(7, 13)]
    place = source.state["latitude"].values, source.state["longitude"].values
    expected = np.sum([invented("tp", 0, hour, *place) for hour in hours], axis=0)
    np.testing.assert_allclose(source.state[0, 0], expected, atol=6 * 2e-5 * np.ptp(expected) + 1e-7)


def test_the_size_is_told_and_compared_with_what_is_free(tmp_path, server, monkeypatch):
    """Two bytes a point of 721 x 1440, and a little: 2 days x 4 times x 2 variables."""
    data = config(["t2m", "u10"], tmp_path / "cache", period="2020-02-01/2020-02-02")
    source = open_source(data)
    assert 16 * 721 * 1440 * 2 <= source.download_bytes <= 1.001 * 16 * 721 * 1440 * 2
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(cache_folder.shutil, "disk_usage", lambda path: usage(10**12, 0, source.download_bytes - 1))
        with pytest.raises(
            InputError,
            match=r"the downloads take about 32 MiB, and 32 MiB are free in .*cache; .* another source\.cache",
        ):
            source.fetch()
    assert not server.calls
    assert not (tmp_path / "cache").exists()
    small = open_source(config(["t2m"], tmp_path / "cache", grid=30.0, period="2020-02-01/2020-02-02"))
    expected = small.download_bytes
    small.fetch()
    assert (
        open_source(config(["t2m"], tmp_path / "cache", grid=30.0, period="2020-02-01/2020-02-01")).download_bytes == 0
    )
    held = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.grib"))
    assert held == pytest.approx(expected, rel=0.3)


def test_parts_of_a_month_are_read_together(tmp_path, server, monkeypatch):
    """As after cuts: one month in several files."""
    monkeypatch.setattr(grouping, "MOST_FIELDS", 9)
    source = open_source(config(["t2m", "z500", "u500"], tmp_path / "cache", grid=30.0, period="2020-02-01/2020-02-05"))
    source.fetch()
    assert len(server.sent) == 3 + 5
    times = source.state["time"].values
    place = source.state["latitude"].values, source.state["longitude"].values
    expected = np.stack([invented("t2m", 0, time, *place) for time in times])
    np.testing.assert_allclose(source.state[:, 0], expected, atol=4e-5 * np.ptp(expected))
