"""Cubes become crops in a store: values against bytes read or written by hand."""

from __future__ import annotations

import json
import pickle
from itertools import product

import numpy as np
import pytest
import xarray as xr
from envi_files import WAVELENGTHS, counts, write_envi
from places import ROOT

import weatherfm
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.revise import repair
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.verify import verify
from weatherfm.earth import variables as table
from weatherfm.errors import InputError
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig

FOUR = [f"refl{round(at)}" for at in WAVELENGTHS]


def config(paths, folder="unused", channels=FOUR, crop=(3, 4), **given) -> DataConfig:
    data = {key: given.pop(key) for key in ("variables",) if key in given}
    source = {"kind": "cubes", "paths": [str(path) for path in paths], "crop": crop, **given}
    return DataConfig(
        store=f"{folder}/store.zarr", source=source, channels=list(channels), climatology_window=None, **data
    )


def fields_of(data: DataConfig) -> np.ndarray:
    return open_source(data).state.values


# --- the kernel, against numpy.fromfile ---


@pytest.fixture
def kernel(real_data):
    path = real_data / "hyperspectral_plant" / "corn_kernel.hdr"
    if not path.exists():
        pytest.skip(f"no hyperspectral picture in {path.parent}")
    lines = [line.strip(" ,\n}") for line in path.read_text().splitlines()]
    wavelengths = np.array([float(line) for line in lines if line[:1].isdigit()])
    raw = np.fromfile(path.with_suffix(".raw"), "<u2").reshape(31, 580, 43)
    return path, wavelengths, raw


def test_the_kernel_becomes_a_sound_store(kernel, tmp_path):
    path, wavelengths, raw = kernel
    asked = np.arange(404, 1000, 119)
    store = prepare(
        config(
            [path], tmp_path, ["refl404..999/119"], 8, stride=5, white=4095, byte_order="little",
            validation={"rows": 0.26}, test={"rows": 0.26},
        )
    )  # fmt: skip
    assert store.channels == tuple(f"refl{at}" for at in asked)
    assert store.grid.plane
    assert store.grid.shape == (8, 8)
    bands = [int(np.argmin(abs(wavelengths - at))) for at in asked]
    corners = [(r, c) for r in (0, 5) for c in range(0, 36, 5)]  # 31 rows: 15 of training, 8 and 8
    corners += [(r, c) for r in (15, 23) for c in range(0, 36, 5)]
    by_hand = np.stack([raw[r : r + 8, bands, c : c + 8].transpose(1, 0, 2) / 4095 for r, c in corners])
    np.testing.assert_array_equal(store.read(range(len(store.times))), by_hand.astype(np.float32))
    np.testing.assert_allclose(store.mean, by_hand[:16].mean((0, 2, 3)), rtol=1e-6)
    sizes = [period.contains(store.times).sum() for period in store.periods.values()]
    assert sizes == [16, 8, 8]
    told = store.manifest["source"]["attributes"]
    assert [told["channels"][name] for name in store.channels] == [[wavelengths[band]] for band in bands]
    assert [tuple(at) for part in told["crops"] for at in part["at"]] == corners
    assert [part["set"] for part in told["crops"]] == ["train", "validation", "test"]
    report = verify(store.path)
    assert report.ok
    assert not report.problems


def test_the_shipped_settings_are_of_the_kernel(kernel, tmp_path):
    given = {"data.source.paths": [str(kernel[0])], "data.store": str(tmp_path / "store.zarr")}
    design = weatherfm.prepare(ROOT / "configs" / "plant_kernel.yaml", given, dry_run=True)
    assert design.sharding.n_channels == 120
    assert design.grid.plane
    assert design.cost.moved == kernel[2].nbytes


# --- files written byte by byte ---


@pytest.mark.parametrize(
    ("interleave", "big", "kind"),
    [
        *product(("bsq", "bil", "bip"), (False, True), ("H",)),
        ("bil", True, "f"),
        ("bip", False, "d"),
        ("bsq", True, "i"),
        ("bip", False, "B"),
        ("bil", True, "q"),
    ],
)
def test_every_interleave_byte_order_and_type(tmp_path, interleave, big, kind):
    values = counts((7, 9, 4)) % (256 if kind == "B" else 1000)
    path = write_envi(tmp_path / "a.hdr", values, interleave, big, kind, reflectance_scale_factor=1000)
    found = fields_of(config([path]))
    corners = [(r, c) for r in (0, 3) for c in (0, 4)]
    by_hand = [(values[r : r + 3, c : c + 4] / 1000).transpose(2, 0, 1) for r, c in corners]
    np.testing.assert_array_equal(found, np.array(by_hand, np.float32))


@pytest.mark.parametrize("ending", ["", ".raw", ".dat", ".img"])
def test_names_and_offsets_of_data_files(tmp_path, ending):
    values = counts((3, 4, 4))
    path = write_envi(tmp_path / "a.hdr", values, ending=ending, header_offset=13, reflectance_scale_factor=1e3)
    np.testing.assert_array_equal(fields_of(config([path]))[0], np.float32(values / 1000).transpose(2, 0, 1))


def test_micrometres_and_a_missing_byte_order(tmp_path):
    values = counts((3, 4, 4))
    told = "{0.45025, 0.5505, 0.670, 0.800125}"
    path = write_envi(
        tmp_path / "a.hdr", values, wavelength_units="Micrometers", wavelength=told, byte_order=None, big=True
    )
    found = open_source(config([path], byte_order="big", white=1000))
    np.testing.assert_array_equal(found.state.values[0], np.float32(values / 1000).transpose(2, 0, 1))
    assert found.attributes["channels"] == {name: [at] for name, at in zip(FOUR, WAVELENGTHS, strict=True)}


@pytest.mark.parametrize("axes", [("row", "column", "band"), ("band", "row", "column"), ("column", "band", "row")])
@pytest.mark.parametrize("fortran", [False, True])
def test_arrays_of_numpy(tmp_path, axes, fortran):
    values = counts((3, 8, 4)) / 1000
    array = values.transpose([("row", "column", "band").index(axis) for axis in axes])
    np.save(tmp_path / "a.npy", np.asfortranarray(array) if fortran else np.ascontiguousarray(array))
    np.savez_compressed(tmp_path / "b.npz", array)
    (tmp_path / "b.npz").rename(tmp_path / "b.NPZ")
    (tmp_path / "bands.txt").write_text("\n".join(map(str, WAVELENGTHS)))
    told = {"axes": axes, "wavelengths": str(tmp_path / "bands.txt"), "wavelength_units": "nm"}
    found = fields_of(config([tmp_path / "a.npy", tmp_path / "b.NPZ"], **told))
    halves = np.float32([values[:, :4].transpose(2, 0, 1), values[:, 4:].transpose(2, 0, 1)])
    np.testing.assert_array_equal(found, np.concatenate([halves, halves]))


def test_a_channel_is_the_mean_of_bands_in_its_width(tmp_path):
    values = counts((3, 4, 4))
    path = write_envi(tmp_path / "a.hdr", values, wavelength="{500, 505, 510, 520}", reflectance_scale_factor=1000)
    found = open_source(config([path], channels=["refl505", "refl515"], band_width=10))
    by_hand = np.stack([values[..., 0:2].mean(-1), values[..., 2]]) / 1000  # 500 <= < 510 and 510 <= < 520
    np.testing.assert_allclose(found.state.values[0], by_hand, rtol=1e-6)
    assert found.attributes["channels"] == {"refl505": [500, 505], "refl515": [510]}


def test_bad_bands_are_passed_over(tmp_path):
    values = counts((3, 4, 4))
    told = {"wavelength": "{500, 501, 502, 503}", "bbl": "{1, 0, 1, 1}", "reflectance_scale_factor": 1000}
    path = write_envi(tmp_path / "a.hdr", values, **told)
    found = open_source(config([path], channels=["refl501"], tolerance=1))
    np.testing.assert_array_equal(found.state.values[0, 0], np.float32(values[..., 0] / 1000))


# --- reflectance ---


def test_references_are_means_over_lines_by_column_and_band(tmp_path):
    values, white, dark = counts((3, 8, 4)), counts((5, 8, 4), 1) + 2000, counts((2, 8, 4), 2) // 10
    path = write_envi(tmp_path / "a.hdr", values)
    write_envi(tmp_path / "a_white.hdr", white, "bip", wavelength=None, wavelength_units=None)
    np.save(tmp_path / "dark.npy", dark)
    found = fields_of(config([path], white="{folder}/{cube}_white.hdr", dark=str(tmp_path / "dark.npy")))
    by_hand = (values - dark.mean(0)) / (white.mean(0) - dark.mean(0))
    np.testing.assert_allclose(found[1], by_hand[:, 4:].transpose(2, 0, 1), rtol=1e-6)


def test_references_among_the_cubes_are_no_cubes(tmp_path):
    """`plots/*.hdr` finds them, too, in a folder as a sensor leaves it."""
    values = [counts((3, 8, 4)), counts((3, 8, 4), 1)]
    for name, cube in zip("ab", values, strict=True):
        write_envi(tmp_path / f"{name}.hdr", cube)
        write_envi(tmp_path / f"WHITEREF_{name}.hdr", np.full((2, 8, 4), 5000))
        write_envi(tmp_path / f"DARKREF_{name}.hdr", np.full((2, 8, 4), 100))
    references = {"white": "{folder}/WHITEREF_{cube}.hdr", "dark": "{folder}/DARKREF_{cube}.hdr"}
    found = fields_of(config([tmp_path / "*.hdr"], crop=(3, 8), **references))
    by_hand = [((cube - 100) / 4900).transpose(2, 0, 1) for cube in values]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_references_of_a_spectrum_and_of_a_number(tmp_path):
    values, white = counts((3, 4, 4)), np.array([1100, 1200, 1300, 1400])
    path = write_envi(tmp_path / "a.hdr", values)
    np.save(tmp_path / "white.npy", white)
    found = fields_of(config([path], white=str(tmp_path / "white.npy"), dark=50.0, clip=True))
    by_hand = np.clip((values - 50) / (white - 50), 0, 1)
    np.testing.assert_allclose(found[0], by_hand.transpose(2, 0, 1), rtol=1e-6)


def test_noise_and_glare_are_clipped_when_asked(tmp_path):
    values = np.array([[[50, 100], [200, 300]], [[400, 20], [200, 900]]])
    path = write_envi(tmp_path / "a.hdr", values)
    told = {"channels": FOUR[:2], "crop": 2, "white": 300, "dark": 100}
    plain, clipped = (fields_of(config([path], clip=clip, **told))[0] for clip in (False, True))
    assert plain[:, 0, 0].tolist() == [-0.25, 0]
    assert clipped[:, 0, 0].tolist() == [0, 0]
    assert plain[1, 1, 1] == 4
    np.testing.assert_array_equal(clipped, np.clip(plain, 0, 1))


def test_own_variables_keep_what_the_sensor_counted(tmp_path, request):
    request.addfinalizer(lambda: (table.VARIABLES.pop("sensor_counts"), table._OWN.discard("sensor_counts")))
    values = counts((3, 4, 4))
    path = write_envi(tmp_path / "a.hdr", values)
    own = {
        "sensor_counts": {"long_name": "counts_of_a_sensor", "units": "1", "bounds": [0, 4095], "on_wavelengths": True}
    }
    data = config([path], channels=["sensor_counts670..800/130"], variables=own)
    assert data.channels == ["sensor_counts670", "sensor_counts800"]
    np.testing.assert_array_equal(fields_of(data)[0], values[..., 2:].transpose(2, 0, 1))


# --- plant and background ---


def scene() -> np.ndarray:
    """Left half soil, right half plant: [6, 8, 4] in thousandths."""
    values = np.zeros((6, 8, 4), int)
    values[:, :4] = [150, 200, 250, 300]
    values[:, 4:] = [40, 120, 60, 500]
    return values + np.arange(48).reshape(6, 8, 1) % 7


@pytest.mark.parametrize(
    "plant", [{"at": 800, "above": 0.4}, {"index": [800, 670], "above": 0.5}, {"image": "{folder}/mask.npy"}]
)
def test_background_holds_zero(tmp_path, plant):
    path = write_envi(tmp_path / "a.hdr", scene(), reflectance_scale_factor=1000)
    np.save(tmp_path / "mask.npy", np.arange(8) // 4 * np.ones((6, 1), int))
    found = fields_of(config([path], plant=plant, crop=(3, 6), stride=(3, 2)))
    assert found.shape == (4, 4, 3, 6)
    for crop, (r, c) in zip(found, [(0, 0), (0, 2), (3, 0), (3, 2)], strict=True):
        by_hand = np.where(np.arange(c, c + 6)[:, None] >= 4, scene()[r : r + 3, c : c + 6] / 1000, 0)
        np.testing.assert_array_equal(crop, np.float32(by_hand).transpose(2, 0, 1))


def test_crops_with_little_plant_are_left_out(tmp_path):
    path = write_envi(tmp_path / "a.hdr", scene(), reflectance_scale_factor=1000)
    told = {"plant": {"at": 800, "above": 0.4}, "crop": (3, 4), "stride": (3, 2)}
    places = []
    for least in (0, 0.5, 0.6):
        found = open_source(config([path], least_plant=least, **told)).attributes["crops"]
        places.append([column for row, column in found[0]["at"] if row == 0])
    assert places == [[0, 2, 4], [2, 4], [4]]


def test_what_a_file_ignores_holds_zero(tmp_path):
    values = counts((3, 4, 4))
    values[1, 2, 3] = values[0, 0, 0] = 65535
    path = write_envi(tmp_path / "a.hdr", values, data_ignore_value=65535, reflectance_scale_factor=1000)
    found = fields_of(config([path]))[0]
    by_hand = np.where(values == 65535, 0, values / 1000)
    np.testing.assert_array_equal(found, np.float32(by_hand).transpose(2, 0, 1))


def test_crops_of_background_alone_do_not_stop_a_store(tmp_path):
    path = write_envi(tmp_path / "a.hdr", scene(), reflectance_scale_factor=1000)
    store = prepare(config([path], tmp_path, plant={"at": 800, "above": 0.4}))
    assert not store.read([0]).any()
    assert not verify(store.path).problems


# --- sets ---


def leaves(folder, count=4):
    return [
        write_envi(folder / f"leaf_{i}.hdr", counts((6, 8, 4), i), reflectance_scale_factor=1e3) for i in range(count)
    ]


def test_whole_cubes_are_held_out(tmp_path):
    told = {"validation": {"cubes": ["leaf_1"]}, "test": {"cubes": ["leaf_[3-9]"]}}
    store = prepare(config(leaves(tmp_path), tmp_path, **told))
    order = [0, 2, 1, 3]
    by_hand = [
        counts((6, 8, 4), i)[r : r + 3, c : c + 4].transpose(2, 0, 1) / 1000
        for i, r, c in product(order, (0, 3), (0, 4))
    ]
    np.testing.assert_array_equal(store.read(range(16)), np.float32(by_hand))
    assert [period.contains(store.times).sum() for period in store.periods.values()] == [8, 4, 4]
    np.testing.assert_allclose(store.mean, np.mean(by_hand[:8], (0, 2, 3)), rtol=1e-6)
    told = [(part["cube"], part["set"], part["first"]) for part in store.manifest["source"]["attributes"]["crops"]]
    assert told == [("leaf_0", "train", 0), ("leaf_2", "train", 4), ("leaf_1", "validation", 8), ("leaf_3", "test", 12)]


@pytest.mark.parametrize(("crop", "stride"), [(2, 1), (3, 2), ((3, 5), (1, 2)), ((4, 3), (3, 3))])
def test_sets_share_no_pixel(tmp_path, crop, stride):
    path = write_envi(tmp_path / "a.hdr", counts((17, 11, 4)))
    told = {"validation": {"rows": 0.25}, "test": {"rows": 0.3}}
    found = open_source(config([path], crop=crop, stride=stride, **told)).attributes["crops"]
    rows, columns = (crop, crop) if isinstance(crop, int) else crop
    seen = {}
    for part in found:
        pixels = {(r + i, c + j) for r, c in part["at"] for i in range(rows) for j in range(columns)}
        assert all(r < 17 and c < 11 for r, c in pixels)
        seen[part["set"]] = pixels
    assert len(seen) == 3
    assert not any(one & two for one, two in ((seen[a], seen[b]) for a, b in product(seen, seen) if a < b))


# --- all that a store can do ---


def test_fields_are_read_by_other_processes(tmp_path):
    source = open_source(config(leaves(tmp_path, 2), tmp_path, white=1000, plant={"at": 800, "above": 0.4}))
    sent = pickle.loads(pickle.dumps(source.fields))
    times, channels = np.array([7, 2]), np.array([3, 0])
    np.testing.assert_array_equal(sent.read(times, channels), source.state.values[times][:, channels])
    assert source.place(1, 3).endswith("leaf_0.hdr, rows 3-5, columns 4-7, 550.5 nm")


def test_a_store_opens_with_xarray_and_says_what_it_is(tmp_path):
    store = prepare(config(leaves(tmp_path, 2), tmp_path))
    data = xr.open_zarr(store.path)
    assert data["state"].dims == ("time", "channel", "latitude", "longitude")
    assert data["level"].attrs["units"] == "nm"
    assert data["level"].values.tolist() == [450, 550, 670, 800]
    assert data["latitude"].attrs["long_name"] == "row of pixels"
    assert data["latitude"].values.tolist() == [0, 1, 2]
    assert "atmosphere" not in data["state"].attrs["long_name"]
    again = weatherfm.open_store(store.path)
    assert again.grid == store.grid
    assert again.world.startswith("pictures ")
    assert json.loads((store.path / "manifest.json").read_text())["grid"]["kind"] == "plane"


def test_repair_brings_back_the_same_bytes_and_append_is_refused(tmp_path):
    data = config(leaves(tmp_path, 2), tmp_path)
    store = prepare(data)
    key = next(key for key in store.files() if key.startswith("state/c/"))
    before = (store.path / key).read_bytes()
    (store.path / key).write_bytes(b"damaged")
    assert not verify(store.path).ok
    repair(store.path, {key}, data)
    assert (store.path / key).read_bytes() == before
    assert verify(store.path).ok
    leaves(tmp_path, 3)
    with pytest.raises(InputError, match="append cannot make it longer"):
        weatherfm.append(_run(config(sorted(tmp_path.glob("leaf_*.hdr")), tmp_path), tmp_path))


def _run(data: DataConfig, folder) -> dict:
    return {"run": str(folder / "run"), "data": data.model_dump(mode="json"), "model": {"forcings": []}}


def test_nothing_is_forecast_from_crops(tmp_path):
    data = config(leaves(tmp_path, 2), tmp_path, validation={"rows": 0.5})
    prepare(data)
    findings = {one.link: one for one in weatherfm.check(_run(data, tmp_path))}
    assert findings["store"].ok
    assert findings["model"].ok
    assert "do not follow one another" in findings["training"].text
    assert not any(findings[link].ok for link in ("training", "forecast", "baselines"))


@pytest.mark.parametrize(
    ("model", "message"), [({}, "model.forcings: []"), ({"forcings": [], "position": "place"}, "position: learned")]
)
def test_a_model_of_pictures_knows_no_place_on_earth(tmp_path, model, message):
    data = config(leaves(tmp_path, 1), tmp_path)
    prepare(data)
    findings = {one.link: one for one in weatherfm.check(_run(data, tmp_path) | {"model": model})}
    assert not findings["model"].ok
    assert message in findings["model"].text


def test_a_run_validates_on_the_crops_that_the_source_holds_out(tmp_path):
    data = config(leaves(tmp_path, 2), tmp_path, validation={"cubes": ["leaf_1"]})
    store = prepare(data)
    part = open_parts(RunConfig.model_validate(_run(data, tmp_path)))[0]
    assert part.config.data.validation == store.periods["validation"]
    assert part.config.data.validation.contains(store.times).tolist() == [False] * 4 + [True] * 4
