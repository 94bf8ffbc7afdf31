"""Sources made of others: each value is the one source's that it should be, regridded by hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from invented_source import assert_same_tree
from synthetic_files import write_netcdf

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.errors import InputError

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2020-01-01", "ns")


def cells(step: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres of cells: ([lat] north first, [lon])."""
    return np.arange(90 - step / 2, -90, -step), np.arange(0, 360, step)


def write(path: Path, name: str, hours: np.ndarray, step: float, units: str, base: float, size: float) -> np.ndarray:
    """A NetCDF file of noise that knows its hour; returns its values [time, lat, lon] float32."""
    latitude, longitude = cells(step)
    shape = (len(latitude), len(longitude))
    values = np.stack([base + size * np.random.default_rng([len(name), 100 + int(h)]).random(shape) for h in hours])
    times = START + hours * HOUR
    axes = {"time": times, "latitude": latitude, "longitude": longitude}
    dataset = xr.Dataset({name: (tuple(axes), values.astype(np.float32), {"units": units})}, axes)
    write_netcdf(path, dataset)
    return values.astype(np.float32)


def coarse(fields: np.ndarray, step: float, factor: int) -> np.ndarray:
    """[..., lat, lon] of cells of `step` degrees centred on its longitudes -> area means over coarser cells.

    A coarse cell centred on 0 reaches half of itself to both sides: with a factor of 3 these are whole fine cells.
    """
    latitude = cells(step)[0]
    weights = np.sin(np.deg2rad(latitude + step / 2)) - np.sin(np.deg2rad(latitude - step / 2))
    rows = fields.shape[-2] // factor
    turned = np.roll(fields.astype(np.float64), factor // 2, axis=-1)
    blocks = turned.reshape(*fields.shape[:-2], rows, factor, fields.shape[-1] // factor, factor).mean(-1)
    share = weights.reshape(rows, factor, 1)
    return (blocks * share).sum(-2) / share.sum(-2)


@pytest.fixture
def files(tmp_path) -> dict[str, np.ndarray]:
    """Fields every 6 h at 30 degrees, rain every hour at 10, mountains at 10."""
    hours = np.arange(0, 24 * 6, 6)
    found = {"t2m": write(tmp_path / "t2m.nc", "t2m", hours, 30, "K", 270, 20)}
    found["tp"] = write(tmp_path / "rain.nc", "tp", np.arange(-23, 24 * 6), 10, "m", 0, 1e-3)
    latitude, longitude = cells(10)
    found["orography"] = 9.80665 * 3000 * np.random.default_rng(0).random((18, 36))
    axes = {"latitude": latitude, "longitude": longitude}
    ground = xr.Dataset({"z": (tuple(axes), found["orography"], {"units": "m2 s-2"})}, axes)
    write_netcdf(tmp_path / "ground.nc", ground.rename(z="orography"))
    return found


def part(path: Path, **settings) -> dict:
    return {"source": {"kind": "files", "paths": [str(path)], "sums": "1h"} | settings.pop("source", {}), **settings}


def joined(folder: Path, **settings) -> DataConfig:
    parts = [
        part(folder / "rain.nc", channels=["tp"]),
        part(folder / "t2m.nc"),
        part(folder / "ground.nc", static=["orography"]),
    ]
    usual = {
        "store": str(folder / "store.zarr"), "source": {"kind": "join", "parts": parts}, "channels": ["t2m", "tp"],
        "static": ["orography"], "step": "6h", "climatology_window": None, "period": "2020-01-01/2020-01-06",
    }  # fmt: skip
    return parse_settings(DataConfig, {**usual, **settings}, "the test")


def test_each_variable_is_its_own_sources_on_the_grid_of_the_rest(tmp_path, files):
    store = prepare(joined(tmp_path))
    assert store.grid.shape == (6, 12)
    state = store.read(range(24))
    np.testing.assert_array_equal(state[:, 0], files["t2m"])
    sums = np.stack([files["tp"][h + 18 : h + 24].astype(np.float64).sum(0) for h in range(0, 24 * 6, 6)])
    np.testing.assert_allclose(state[:, 1], coarse(sums, 10, 3), rtol=2e-6)
    np.testing.assert_allclose(store.static[0], coarse(files["orography"], 10, 3), rtol=1e-6)
    assert store.manifest["channels"][1]["accumulation_hours"] == 6
    told = store.manifest["source"]["attributes"]["parts"]
    assert [one["channels"] for one in told] == [["tp"], ["t2m"], []]
    assert told[2]["static"] == ["orography"]
    assert verify(store.path).problems == []


def test_a_joined_grid_may_be_asked_for_and_a_part_regridded_in_its_own_way(tmp_path, files):
    config = joined(tmp_path, regrid={"resolution": 30, "method": "conservative"})
    parts = [one.model_copy(update={"method": "nearest" if one.channels else None}) for one in config.source.parts]
    config = config.model_copy(update={"source": config.source.model_copy(update={"parts": parts})})
    store = prepare(config)
    rain = open_store(store.path).read(range(24))[:, 1]
    np.testing.assert_array_equal(rain[0], files["tp"][18:24].astype(np.float64).sum(0).astype(np.float32)[1::3, ::3])


def test_joined_fields_are_read_by_position_in_any_order_and_pickle(tmp_path, files):
    source = open_source(joined(tmp_path))
    fields = pickle.loads(pickle.dumps(source.fields))
    part = fields.read(np.array([5, 2, 9]), np.array([1, 0]))
    np.testing.assert_array_equal(part[:, 1], files["t2m"][[5, 2, 9]])
    np.testing.assert_array_equal(part, np.asarray(source.state)[[5, 2, 9]][:, [1, 0]])
    assert source.cost(np.arange(24)).wanted > 0
    assert "rain.nc" in source.place(1, 3)
    assert "t2m.nc" in source.place(0, 3)
    assert set(source.identity) == {"parts.0/rain.nc", "parts.1/t2m.nc", "parts.2/ground.nc"}


def test_times_that_one_part_lacks_are_missing_in_the_whole(tmp_path, files):
    kept = np.delete(np.arange(0, 24 * 6, 6), 7)
    write(tmp_path / "t2m.nc", "t2m", kept, 30, "K", 270, 20)
    with pytest.raises(InputError, match="1 of 24 steps of 6h are missing: 2020-01-02T18"):
        prepare(joined(tmp_path))
    store = prepare(joined(tmp_path, allow_gaps=True))
    np.testing.assert_array_equal(store.times, (START + kept * HOUR).astype("datetime64[s]"))


def test_appending_to_a_joined_store_gives_the_bytes_of_one_prepared_at_once(tmp_path, files):
    whole = prepare(joined(tmp_path, store=str(tmp_path / "whole.zarr")))
    short = joined(tmp_path, period="2020-01-01/2020-01-03")
    prepare(short)
    append(joined(tmp_path))
    assert_same_tree(whole.path, tmp_path / "store.zarr")
    damaged = next((tmp_path / "store.zarr" / "state").rglob("c/*/*/*/*"))
    damaged.write_bytes(b"no shard")
    repair(tmp_path / "store.zarr", {str(damaged.relative_to(tmp_path / "store.zarr"))})
    assert_same_tree(whole.path, tmp_path / "store.zarr")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ["t2m", "tp", "z500"]}, "file holds no channel z500"),
        ({"step": None}, "tp is a sum over 1h, and the times that all parts have are 6h apart"),
        ({"channels": ["t2m"]}, "gives tp, which neither data.channels nor data.static asks for"),
    ],
)
def test_a_join_that_cannot_be_is_refused(tmp_path, files, settings, message):
    with pytest.raises(InputError, match=message):
        open_source(joined(tmp_path, **settings))


def test_parts_must_share_out_the_names(tmp_path, files):
    rain, fields = part(tmp_path / "rain.nc", channels=["tp"]), part(tmp_path / "t2m.nc")
    for parts, message in [
        ([rain, rain], "several parts of the source give tp"),
        ([fields, fields], "several parts of the source name nothing"),
    ]:
        with pytest.raises(InputError, match=message):
            joined(tmp_path, source={"kind": "join", "parts": parts}, static=[])
    for parts, message in [
        ([rain, part(tmp_path / "t2m.nc", channels=["t2m"]), fields], "names nothing, and the others give everything"),
        ([rain, part(tmp_path / "ground.nc", static=["orography"])], "no part of the source gives t2m"),
    ]:
        static = ["orography"] if "ground" in str(parts) else []
        config = joined(tmp_path, source={"kind": "join", "parts": parts}, static=static)
        with pytest.raises(InputError, match=message):
            open_source(config)


def test_grids_that_do_not_overlap_are_refused_with_both(tmp_path, files):
    with xr.open_dataset(tmp_path / "rain.nc") as rain:
        part_of = rain.sel(latitude=slice(60, -30), longitude=slice(0, 100)).load()
    (tmp_path / "rain.nc").unlink()
    write_netcdf(tmp_path / "rain.nc", part_of)
    with pytest.raises(InputError, match=r"source.parts.0: its fields \(files\) are on the grid .* set data.area"):
        open_source(joined(tmp_path))
    parts = [part(tmp_path / "rain.nc", channels=["tp"]), part(tmp_path / "t2m.nc")]
    area = {"north": 50, "south": -20, "west": 20, "east": 70}
    store = prepare(joined(tmp_path, area=area, static=[], source={"kind": "join", "parts": parts}))
    assert store.grid.shape == (3, 2)


def test_times_without_anything_in_common_are_told(tmp_path, files):
    write(tmp_path / "t2m.nc", "t2m", np.arange(24 * 300, 24 * 301, 6), 30, "K", 270, 20)
    with pytest.raises(InputError, match=r"no time in common .parts.0 has 2019-12-31.*; parts.1 has 2020-10-27"):
        open_source(joined(tmp_path, period=None))


# -- one after the other


@pytest.fixture
def years(tmp_path) -> dict[str, np.ndarray]:
    """Five days at 30 degrees, and from the fourth on another source's at 10, two days longer."""
    first = write(tmp_path / "first.nc", "t2m", np.arange(0, 24 * 5, 6), 30, "K", 270, 20)
    later = write(tmp_path / "later.nc", "t2m", np.arange(24 * 2, 24 * 7, 6), 10, "K", 250, 20)
    return {"first": first, "later": later}


def chained(folder: Path, *more: dict, **settings) -> DataConfig:
    parts = [part(folder / "first.nc"), *(more or [part(folder / "later.nc", start="2020-01-04")])]
    usual = {
        "store": str(folder / "store.zarr"), "source": {"kind": "chain", "parts": parts}, "channels": ["t2m"],
        "climatology_window": None,
    }  # fmt: skip
    return parse_settings(DataConfig, {**usual, **settings}, "the test")


@pytest.mark.parametrize("period", [None, "2020-01-01/2020-01-07"])
def test_each_time_is_the_source_s_of_its_day(tmp_path, years, period):
    store = prepare(chained(tmp_path, period=period))
    state = store.read(range(28))[:, 0]
    np.testing.assert_array_equal(state[:12], years["first"][:12])
    np.testing.assert_allclose(state[12:], coarse(years["later"][4:], 10, 3), rtol=1e-6)
    assert [one["start"] for one in store.manifest["source"]["attributes"]["parts"]] == [None, "2020-01-04"]
    assert verify(store.path).problems == []


def test_a_chain_is_made_longer_by_a_part_that_starts_after_it(tmp_path, years):
    only_first = chained(tmp_path).source.model_dump()
    only_first["parts"] = only_first["parts"][:1]
    prepare(chained(tmp_path, source=only_first, period="2020-01-01/2020-01-03"))
    append(chained(tmp_path, period="2020-01-01/2020-01-07"))
    whole = prepare(chained(tmp_path, store=str(tmp_path / "whole.zarr"), period="2020-01-01/2020-01-07"))
    assert_same_tree(whole.path, tmp_path / "store.zarr")


def test_a_part_that_would_replace_what_a_store_has_is_refused(tmp_path, years):
    only_first = chained(tmp_path).source.model_dump()
    only_first["parts"] = only_first["parts"][:1]
    prepare(chained(tmp_path, source=only_first, period="2020-01-01/2020-01-05"))
    with pytest.raises(InputError, match=r"prepared with another source.parts.1; append changes no more"):
        append(chained(tmp_path, period="2020-01-01/2020-01-07"))


def test_the_first_time_of_each_part_is_looked_at_before_all_are_read(tmp_path, years):
    write(tmp_path / "later.nc", "t2m", np.arange(24 * 2, 24 * 7, 6), 10, "K", 10, 20)  # degrees Celsius called K
    with pytest.raises(InputError, match=r"one time was looked at .*\n.*t2m .* at 2020-01-04T00:00 .*later.nc"):
        prepare(chained(tmp_path))
    assert not (tmp_path / "store.zarr" / "state").exists()


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (["2020-01-02", "2020-01-04"], "the first part of the chain starts at 2020-01-02"),
        ([None, None], "a part of the chain has no start"),
        ([None, "2020-01-04", "2020-01-03"], "starts at 2020-01-03, not after the one before"),
        ([None, "2020-03-01"], "part 1 of the chain has no time on its days"),
    ],
)
def test_a_chain_out_of_order_is_refused(tmp_path, years, starts, message):
    parts = [part(tmp_path / "later.nc", **({"start": start} if start else {})) for start in starts]
    with pytest.raises(InputError, match=message):
        open_source(chained(tmp_path, source={"kind": "chain", "parts": parts}))


def test_sums_over_other_spans_are_not_chained(tmp_path, files):
    write(tmp_path / "three.nc", "tp", np.arange(24 * 3, 24 * 7, 3), 10, "m", 0, 1e-3)
    parts = [part(tmp_path / "rain.nc"), part(tmp_path / "three.nc", start="2020-01-05", source={"sums": "3h"})]
    with pytest.raises(InputError, match="tp is a sum over 1h in the first part of the chain and over 3h in another"):
        open_source(chained(tmp_path, source={"kind": "chain", "parts": parts}, channels=["tp"]))


def test_constant_fields_join_days(tmp_path, files):
    parts = [part(tmp_path / "rain.nc", channels=["tp"]), part(tmp_path / "ground.nc", static=["orography"])]
    config = joined(
        tmp_path, source={"kind": "join", "parts": parts}, channels=["tp"], daily="mean", step=None,
        period="2020-01-01/2020-01-05",
    )  # fmt: skip
    store = prepare(config)
    days = files["tp"][24 : 24 + 120].astype(np.float64).reshape(5, 24, 18, 36).sum(1)
    np.testing.assert_allclose(store.read(range(5))[:, 0], days, rtol=1e-6)
    np.testing.assert_allclose(store.static[0], files["orography"], rtol=1e-6)


def test_days_of_other_numbers_of_times_are_not_chained(tmp_path, years):
    write(tmp_path / "hourly.nc", "t2m", np.arange(24 * 3, 24 * 8), 30, "K", 270, 20)
    chain = chained(tmp_path, part(tmp_path / "hourly.nc", start="2020-01-05"), daily="mean")
    with pytest.raises(InputError, match=r"made of 4 times in the first part of the chain and of 24 in another"):
        open_source(chain)
    assert open_source(chain.model_copy(update={"step": 6})).state.shape[0] == 8


def test_a_chain_inside_a_join_is_made_longer(tmp_path, files, years):
    def config(parts: int, period: str, store: str) -> DataConfig:
        chain = chained(tmp_path).source.model_dump()
        chain["parts"] = chain["parts"][:parts]
        both = [part(tmp_path / "rain.nc", channels=["tp"]), {"source": chain}]
        return joined(tmp_path, source={"kind": "join", "parts": both}, static=[], period=period, store=store)

    short, whole = str(tmp_path / "store.zarr"), str(tmp_path / "whole.zarr")
    prepare(config(1, "2020-01-01/2020-01-03", short))
    append(config(2, "2020-01-01/2020-01-05", short))
    prepare(config(2, "2020-01-01/2020-01-05", whole))
    assert_same_tree(Path(whole), Path(short))


def test_parts_with_other_masks_are_refused_before_anything_is_written(tmp_path):
    latitude, longitude = cells(30)
    for name, hours, holes in (("first.nc", (0, 96), 3), ("later.nc", (96, 168), 4)):
        times = START + np.arange(*hours, 6) * HOUR
        values = 280 + 20 * np.random.default_rng(hours[0]).random((len(times), 6, 12)).astype(np.float32)
        values[:, 2, :holes] = np.nan
        axes = {"time": times, "latitude": latitude, "longitude": longitude}
        write_netcdf(tmp_path / name, xr.Dataset({"sst": (tuple(axes), values, {"units": "K"})}, axes))
    config = chained(tmp_path, part(tmp_path / "later.nc", start="2020-01-05"), channels=["sst"])
    with pytest.raises(InputError, match=r"sst lacks 3 points at the first time and 4, .*from 2020-01-05T00:00:00 on"):
        prepare(config)
    assert not list((tmp_path / "store.zarr").rglob("c/*"))


def test_errors_name_the_part_and_misspelt_settings_the_key(tmp_path, files):
    with pytest.raises(InputError, match=r"source.parts.1: the file holds no channel z500"):
        open_source(joined(tmp_path, channels=["t2m", "tp", "z500"]))
    wrong = [part(tmp_path / "rain.nc", channels=["tp"], source={"sum": "1h"}), part(tmp_path / "t2m.nc")]
    with pytest.raises(InputError, match=r"unknown key source.join.parts.0.source.files.sum; did you mean .*sums"):
        joined(tmp_path, source={"kind": "join", "parts": wrong})
    with pytest.raises(InputError, match=r"unknown key transforms.tp.log; did you mean transforms.tp.log1p"):
        joined(tmp_path, transforms={"tp": {"log": 1}})


def test_a_join_of_a_chain(tmp_path, files, years):
    chain = chained(tmp_path).source.model_dump()
    parts = [part(tmp_path / "rain.nc", channels=["tp"]), {"source": chain}]
    config = joined(tmp_path, source={"kind": "join", "parts": parts}, static=[], period="2020-01-03/2020-01-05")
    state = prepare(config).read(range(12))
    np.testing.assert_array_equal(state[:4, 0], years["first"][8:12])
    np.testing.assert_allclose(state[4:, 0], coarse(years["later"][4:12], 10, 3), rtol=1e-6)
    sums = np.stack([files["tp"][h + 18 : h + 24].astype(np.float64).sum(0) for h in range(48, 120, 6)])
    np.testing.assert_allclose(state[:, 1], coarse(sums, 10, 3), rtol=2e-6)
