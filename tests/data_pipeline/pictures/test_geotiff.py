"""Cubes in GeoTIFF: values, wavelengths and scales as rasterio wrote them, and files that do not tell them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio
from envi_files import WAVELENGTHS, counts

from weatherfm.data_pipeline.sources import open_source
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError

FOUR = [f"refl{round(at)}" for at in WAVELENGTHS]
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path, values, bands=None, images=None, scale=None, offset=0.0, **profile):
    """`values` [row, column, band] in tiles that are compressed; `bands` and `images`: tags of each band."""
    rows, columns, count = values.shape
    profile |= {"driver": "GTiff", "width": columns, "height": rows, "count": count, "dtype": values.dtype}
    with rasterio.open(path, "w", tiled=True, blockxsize=16, blockysize=16, compress="deflate", **profile) as file:
        file.write(values.transpose(2, 0, 1))
        for band in range(count):
            if bands is not None:
                file.update_tags(band + 1, **bands[band])
            if images is not None:
                file.update_tags(band + 1, ns="IMAGERY", **images[band])
        if scale is not None:
            file.scales, file.offsets = scale, [offset] * count
    return path


def envi_tags(wavelengths=WAVELENGTHS, units="Nanometers"):
    return [{"wavelength": str(at), "wavelength_units": units} for at in wavelengths]


def read(path, crop=(3, 4), **given):
    source = {"kind": "cubes", "paths": [str(path)], "crop": crop, **given}
    data = DataConfig(store="unused.zarr", source=source, channels=FOUR, climatology_window=None)
    return open_source(data)


@pytest.mark.parametrize(
    "told",
    [
        {"bands": envi_tags()},
        {"bands": envi_tags([at / 1000 for at in WAVELENGTHS], "um")},
        {"images": [{"CENTRAL_WAVELENGTH_UM": str(at / 1000)} for at in WAVELENGTHS]},
    ],
    ids=["envi", "envi-um", "imagery"],
)
@pytest.mark.parametrize("name", ["a.tif", "A.TIFF"])
def test_bands_wavelengths_and_scales(tmp_path, told, name):
    values = counts((33, 40, 4)).astype(np.uint16)
    values[1, 2, 3] = 65535
    path = write(tmp_path / name, values, scale=[0.001] * 4, nodata=65535, **told)
    found = read(path)
    assert found.attributes["channels"] == {name: [at] for name, at in zip(FOUR, WAVELENGTHS, strict=True)}
    by_hand = np.where(values == 65535, 0, values / 1000)
    corners = [(r, c) for r in range(0, 33, 3) for c in range(0, 40, 4)]
    expected = np.stack([by_hand[r : r + 3, c : c + 4].transpose(2, 0, 1) for r, c in corners])
    np.testing.assert_allclose(found.state.values, expected.astype(np.float32), rtol=1e-6)


def test_wavelengths_by_the_settings_white_and_nan(tmp_path):
    values = counts((3, 4, 4)) / np.float64(1000)
    values[0, 1, 2] = np.nan
    white = write(tmp_path / "white.tif", np.full((2, 4, 4), 2.0))
    path = write(tmp_path / "a.tif", values.astype(np.float32), nodata=np.nan)
    told = {"wavelengths": list(WAVELENGTHS), "wavelength_units": "nm", "white": str(white)}
    expected = np.nan_to_num(values.astype(np.float32) / 2).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(path, **told).state.values[0], expected)


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        (counts((3, 4, 4)), {}, "does not say at which wavelengths its 4 bands are"),
        (counts((3, 4, 4)), {"bands": [*envi_tags()[:3], {}]}, "has no wavelength of band 4, but of others"),
        (counts((3, 4, 4)), {"bands": envi_tags(["red", *WAVELENGTHS[1:]])}, "a wavelength that is no number"),
        (counts((3, 4, 4)), {"bands": envi_tags(units="Index")}, "has wavelengths in 'Index'; say them with"),
        (counts((3, 4, 4)), {"bands": envi_tags(), "scale": [1, 1, 1, 2]}, "has scales that are not the same"),
        (counts((3, 4, 4)), {"bands": envi_tags(), "scale": [1] * 4, "offset": 3.0}, "has offsets"),
        (counts((3, 4, 4)) + 1j, {"bands": envi_tags()}, "holds complex128; a cube is of real numbers"),
    ],
)
def test_what_a_file_does_not_tell(tmp_path, values, given, message):
    kind = values.dtype if values.dtype.kind == "c" else np.uint16
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "a.tif", values.astype(kind), **given))


@pytest.mark.parametrize("inside", [True, False])
def test_masks_beside_the_bands_are_refused(tmp_path, inside):
    """Silently left out, what they hide would be learned from."""
    path = write(tmp_path / "a.tif", counts((3, 4, 4)).astype(np.uint16), bands=envi_tags())
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
        file.write_mask(np.eye(3, 4, dtype=bool))
    with pytest.raises(InputError, match=r"a.tif has a mask beside its bands, which is not read; write a value"):
        read(path)


@pytest.mark.filterwarnings("error::rasterio.errors.NotGeoreferencedWarning")
def test_that_it_lies_nowhere_on_earth_is_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tmp_path / "a.tif", counts((3, 4, 4)).astype(np.uint16), bands=envi_tags())
    assert read(path).state.values.shape[1] == 4


def test_damaged_files(tmp_path):
    path = write(tmp_path / "a.tif", counts((64, 64, 4)).astype(np.uint16), bands=envi_tags())
    whole = path.read_bytes()
    path.write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"a.tif is no GeoTIFF, or is cut"):
        read(path)
    path.write_bytes(whole[:8000] + bytes(8000) + whole[16000:])
    with pytest.raises(InputError, match=r"a.tif cannot be read .*; it is cut or damaged: fetch it again"):
        read(path).state.values  # noqa: B018 - lazily
