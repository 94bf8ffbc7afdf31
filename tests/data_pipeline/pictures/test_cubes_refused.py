"""What cubes can have wrong: one message each, which names the file and what to do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from envi_files import counts, write_envi

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

SMALL = (6, 8, 4)


def settings(path, channels=("refl450", "refl670"), **source) -> dict:
    source = {"kind": "cubes", "paths": [str(path)], "crop": 3} | source
    return {"store": "unused", "source": source, "channels": list(channels), "climatology_window": None}


def refused(path, message, **given):
    with pytest.raises(InputError, match=message) as caught:
        open_source(DataConfig.model_validate(settings(path, **given)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"wavelength": None}, r"a.hdr does not say at which wavelengths its 4 bands are.*source.wavelengths"),
        ({"wavelength_units": None}, "does not say the units of its wavelengths.*source.wavelength_units"),
        ({"wavelength_units": "Index"}, "wavelengths in 'Index'; say them with source.wavelength_units"),
        ({"wavelength": "{0.45, 0.55, 0.67, 0.8}"}, "a band at 0.45 nm, which is no light"),
        ({"wavelength": "{450, 550, 670}"}, "4 bands and 3 wavelengths"),
        ({"wavelength": "{450, 550, red, 800}"}, "wavelength holds 'red', which is no number"),
        ({"interleave": "bnd"}, "interleave is 'bnd'; known are bsq, bil, bip"),
        ({"interleave": None}, "does not say 'interleave'"),
        ({"byte_order": None}, "does not say its byte order.*source.byte_order"),
        ({"byte_order": 7}, "byte order is '7'"),
        ({"data_type": 6}, "data type 6 is none of real numbers"),
        ({"data_type": 99}, "data type 99 is none of real numbers"),
        ({"lines": 7}, "has 384 bytes, and 7 rows x 8 columns x 4 bands of uint16 behind 0 bytes take 448"),
        ({"lines": 5}, "has 384 bytes, and 5 rows"),
        ({"samples": "many"}, "samples holds 'many', which is no number"),
        ({"bands": 0}, "bands is 0, which is no count"),
        ({"lines": "nan"}, "lines is nan, which is no count"),
        ({"samples": "inf"}, "samples is inf, which is no count"),
        ({"reflectance_scale_factor": 0}, "reflectance scale factor is 0, by which nothing can be divided"),
        ({"reflectance_scale_factor": "nan"}, "reflectance scale factor is nan, by which nothing can be divided"),
    ],
)
def test_headers_that_do_not_tell_or_do_not_fit(tmp_path, header, message):
    interleave = "bil"
    path = write_envi(tmp_path / "a.hdr", counts(SMALL), interleave)
    told = {line.partition(" = ")[0]: line for line in path.read_text().splitlines()}
    for key, value in header.items():
        name = key.replace("_", " ")
        told[name] = None if value is None else f"{name} = {value}"
    path.write_text("\n".join(line for line in told.values() if line) + "\n")
    refused(path, message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crop": (7, 3)}, r"a crop of 7 x 3 pixels is larger than .*a.hdr, which has 6 x 8"),
        ({"crop": 4, "validation": {"rows": 0.4}}, "have no room for a crop of 4"),
        ({"channels": ["refl450", "refl600"]}, "no band lies within 2 nm of refl600; the cubes have 4 bands"),
        ({"channels": ["refl600"], "band_width": 10}, "no band lies in 10 nm about refl600"),
        ({"channels": ["refl450", "refl451"]}, r"refl450 and refl451 are the same band \(450.25 nm\)"),
        ({"channels": ["refl450", "t850"]}, "cubes have no t850: their channels are reflectances"),
        ({"white": "{folder}/white.npy"}, "no file matches"),
        ({"white": 100, "dark": 100}, "the white reference of .* is not above the dark"),
        ({"plant": {"at": 600, "above": 0}}, "source.plant speaks of 600 nm, and no band"),
        ({"plant": {"index": [800, 600], "above": 0}}, "source.plant speaks of 600 nm, and no band"),
        ({"plant": {"at": 800, "above": 5000}, "least_plant": 0.1}, "no crop with 10% of plant is left for train"),
        ({"validation": {"cubes": ["b*"]}}, "names b*, which no cube is called; it has a"),
        ({"validation": {"cubes": ["a"]}, "test": {"cubes": ["*"]}}, "a is held out for validation and for test"),
        ({"test": {"cubes": ["a"]}}, "no crop is left for train"),
    ],
)
def test_settings_that_do_not_fit_the_cubes(tmp_path, given, message):
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    refused(path, message.replace("*,", r"\*,").replace("b*", r"b\*"), **given)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 8, 3), "8 columns x 3 bands, and .* has 8 x 4"), ((2, 7, 4), "7 columns x 4 bands"), ((5,), "1 columns x 5")],
)
@pytest.mark.parametrize("what", ["white", "dark"])
def test_references_of_another_shape(tmp_path, shape, message, what):
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    np.save(tmp_path / "reference.npy", np.ones(shape))
    given = {"white": 5000.0} | {what: str(tmp_path / "reference.npy")}
    refused(path, f"the {what} reference .*reference.npy has .*{message}.*of the same sensor, or a number", **given)


@pytest.mark.parametrize("what", ["white", "dark"])
def test_references_of_other_wavelengths(tmp_path, what):
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    other = write_envi(tmp_path / "r.hdr", counts(SMALL) // 10, wavelength="{455, 555, 675, 805}")
    given = {"white": 5000.0} | {what: str(other)}
    refused(path, f"the {what} reference .*r.hdr is of other wavelengths than .*a.hdr .from 455 and 450.25 nm", **given)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, np.nan, "1 of 9; a channel needs a value.*at 2001-01-01.*data ignore value"),
        (1, 1e4, "to 10000 1, possible .*source.white and source.dark.*source.clip"),
        (4, np.nan, r"refl450 has 1 at 2001-01-04.* that are not finite .*data ignore value.*source.plant.*leave"),
    ],
)
def test_values_that_are_none_are_told_with_what_cubes_can_do_about_them(tmp_path, place, value, message):
    values = np.full((6, 8, 4), 0.5)
    values += np.arange(8)[:, None] / 100
    values[place, place] = value
    given = settings(write_envi(tmp_path / "a.hdr", values, kind="f"))
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        prepare(DataConfig.model_validate(given | {"store": str(tmp_path / "store.zarr")}))
    assert "data.exclude" not in str(caught.value)
    assert "source.units" not in str(caught.value)


def test_cubes_of_other_bands(tmp_path):
    write_envi(tmp_path / "a.hdr", counts(SMALL))
    write_envi(tmp_path / "b.hdr", counts((6, 8, 3)))
    refused(
        tmp_path / "*.hdr", r"b.hdr has 3 bands from 450.25 to 670 nm, and .*a.hdr 4 bands from 450.25 to 800.125 nm"
    )
    write_envi(tmp_path / "b.hdr", counts(SMALL), wavelength="{451, 550.5, 670, 800}")
    refused(tmp_path / "*.hdr", "cubes with the same bands")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.hdr", b"not a header\n", "a.hdr is no header of ENVI"),
        ("a.hdr", b"ENVI\nwavelength units = \xb5m\n", "a.hdr is no header of ENVI"),
        ("a.hdr", b"ENVI\nsamples = 2\n", "has no data beside it"),
        ("a.npy", b"\x93NUMPY", "a.npy is no array of NumPy, or is cut"),
        ("a.npz", b"PK\3\4 cut", "a.npz is no array of NumPy, or is cut"),
        ("a.jpg", b"", "none of the cubes that are read"),
    ],
)
def test_files_that_are_no_cubes(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"white": "{folder}/none.hdr"}, "source.white"),
        ({"white": 1000, "dark": "{folder}/none.hdr"}, "source.dark"),
        ({"plant": {"image": "{folder}/none.npy"}}, "source.plant.image"),
    ],
)
def test_references_that_are_not_there_are_named_by_their_setting(tmp_path, given, setting):
    refused(write_envi(tmp_path / "a.hdr", counts(SMALL)), rf"no file matches .*none.*; correct {setting}$", **given)


def test_flags_of_bad_bands_are_one_a_band(tmp_path):
    refused(write_envi(tmp_path / "a.hdr", counts(SMALL), bbl="{1, 0}"), r"4 bands and 2 flags of bad ones \(bbl\)")


def test_two_files_of_one_header(tmp_path):
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    (tmp_path / "a.img").write_bytes((tmp_path / "a.raw").read_bytes())
    refused(path, "has several files beside it")


@pytest.mark.parametrize(
    ("array", "told", "message"),
    [
        (np.ones((3, 4)), {}, r"a.npy holds float64 of shape \(3, 4\)"),
        (np.ones(SMALL, complex), {}, "a.npy holds complex128"),
        (np.ones(SMALL), {"wavelengths": [450.0, 670.0]}, "source.wavelengths names 2, and .* has 4 bands"),
        (np.ones(SMALL), {"wavelengths": "none.txt"}, "which is no text of numbers"),
        (
            np.ones(SMALL),
            {"wavelengths": [450.0] * 4, "wavelength_units": None},
            "say them with source.wavelength_units",
        ),
    ],
)
def test_arrays_that_are_no_cubes(tmp_path, array, told, message):
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", message, **({"wavelength_units": "nm"} | told))


def test_arrays_that_are_cut_and_archives_of_several(tmp_path):
    told = {"wavelengths": [450.0, 550.0, 670.0, 800.0], "wavelength_units": "nm"}
    np.save(tmp_path / "a.npy", np.ones(SMALL))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-8])
    refused(tmp_path / "a.npy", r"a.npy has [\d,]+ bytes, and 6 rows x 8 columns x 4 bands of float64", **told)
    np.savez(tmp_path / "b.npz", one=np.ones(SMALL), two=np.ones(SMALL))
    refused(tmp_path / "b.npz", r"b.npz holds 2 arrays \(one.npy, two.npy\); keep one", **told)


def test_a_mask_of_another_shape(tmp_path):
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    np.save(tmp_path / "mask.npy", np.ones((6, 7)))
    plant = {"image": "{folder}/mask.npy"}
    refused(path, r"mask.npy has shape \(6, 7\), and .*a.hdr 6 x 8 pixels", plant=plant, least_plant=0.5)


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_masks_that_leave_nothing(tmp_path, least):
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    message = "no crop with 50% of plant is left for train" if least else "leaves nothing of the 4 crops for train"
    refused(path, message, plant={"at": 550, "above": 1e9}, least_plant=least)
    mask = np.ones(SMALL[:2])
    mask[3:] = 0  # the rows of the test
    np.save(tmp_path / "mask.npy", mask)
    plant = {"image": str(tmp_path / "mask.npy")}
    message = "is left for test" if least else "source.plant leaves nothing of the 2 crops for test: all of it"
    refused(path, message, plant=plant, least_plant=least, test={"rows": 0.5})


@pytest.mark.parametrize("setting", ["white", "dark", "plant"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"junk", "is no array of NumPy, or is cut"), (b"", "is no array of NumPy"), (None, "holds <U1; references and")],
    ids=["junk", "empty", "text"],
)
def test_references_and_masks_that_are_no_arrays(tmp_path, setting, content, message):
    path, bad = write_envi(tmp_path / "a.hdr", counts(SMALL)), tmp_path / "bad.npy"
    if content is None:
        np.save(bad, np.full(SMALL[:2], "x"))
    else:
        bad.write_bytes(content)
    given = {"plant": {"image": str(bad)}} if setting == "plant" else {"white": 5000.0} | {setting: str(bad)}
    refused(path, f"bad.npy {message}", **given)


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    source = open_source(DataConfig.model_validate(settings(path, white=1000)))
    (tmp_path / "a.raw").write_bytes(bytes(10))
    with pytest.raises(InputError, match="changed since its headers were read"):
        source.fields.read(np.array([0]), np.array([0]))


@pytest.mark.parametrize(
    ("package", "told"), [("spectral.io.envi", "cubes"), ("rasterio", "geotiff"), ("prosail", "leaves")]
)
def test_packages_that_are_not_there(tmp_path, monkeypatch, package, told):
    monkeypatch.setitem(sys.modules, package, None)
    path = write_envi(tmp_path / "a.hdr", counts(SMALL))
    data = settings(tmp_path / "a.tif" if told == "geotiff" else path)
    (tmp_path / "a.tif").touch()
    if told == "leaves":
        data |= {"source": {"kind": "leaves"}, "period": "2001"}
    with pytest.raises(InputError, match=rf"not installed; pip install 'weatherfm\[{told}\]'"):
        open_source(DataConfig.model_validate(data))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "2001"}, "data.train is given in days.*source.validation and source.test"),
        (
            {"area": {"north": 72, "west": -12, "south": 33, "east": 42}, "step": "24h"},
            r"pictures \(kind: cubes\) have no data.area, data.step; leave",
        ),
        ({"period": "2001"}, r"pictures \(kind: cubes\) have no data.period; leave that out"),
        ({"climatology_window": 61}, "set data.climatology_window: null"),
        ({"channels": ["refl800..400/5"]}, "'refl800..400/5' is no range of channels"),
        ({"channels": ["t500..850/350"]}, "is no range of channels"),
        ({"channels": ["refl"]}, "needs its wavelength in whole nm; write e.g. refl500"),
        ({"channels": ["refl550.5"]}, "unknown channel 'refl550.5'"),
        ({"channels": ["refl400..410/5", "refl405"]}, "channels repeat refl405"),
    ],
)
def test_settings_of_data_that_mean_nothing(given, message):
    with pytest.raises(InputError, match=message):
        parse_settings(DataConfig, settings("a.hdr") | given, "run.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crop": 1}, "must be 2 and 1 pixels at least"),
        ({"stride": 0}, "must be 2 and 1 pixels at least"),
        ({"dark": 5}, "source.dark needs a white reference too"),
        ({"least_plant": 0.5}, "source.least_plant needs source.plant"),
        ({"axes": ["row", "row", "band"]}, "must be row, column and band"),
        ({"validation": {"rows": 0.5}, "test": {"rows": 0.5}}, "none are left to train on"),
        ({"validation": {}}, "give either cubes"),
        ({"plant": {"at": 800}}, "at and index need a threshold"),
        ({"plant": {"at": 800, "image": "a", "above": 1}}, "give one of at"),
    ],
)
def test_settings_of_cubes_that_contradict_each_other(given, message):
    with pytest.raises(InputError, match=message):
        parse_settings(DataConfig, settings("a.hdr", **given), "run.yaml")


def test_cubes_are_joined_with_nothing():
    parts = [{"source": settings("a.hdr")["source"]}, {"source": {"kind": "planet"}, "channels": ["t500"]}]
    data = settings("a.hdr") | {"source": {"kind": "join", "parts": parts}}
    with pytest.raises(InputError, match="'cubes'"):
        parse_settings(DataConfig, data, "run.yaml")
