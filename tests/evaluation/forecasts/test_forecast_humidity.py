"""Forecasts whose relative humidity is a fraction without a word, as WeatherBench2's: read so where it is plain."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from foreign_forecasts import INITS, LEADS, write

from weatherfm.errors import InputError
from weatherfm.evaluation.forecasts.reader import ForecastFile

ROWS, COLUMNS = np.linspace(-80, 80, 9), np.arange(12) * 30.0


def made(low, high, units=None, latitude=ROWS, longitude=COLUMNS) -> xr.Dataset:
    shape = (len(INITS), len(LEADS), 2, len(longitude), len(latitude))
    values = np.random.default_rng(5).uniform(low, high, shape).astype(np.float32)
    dims = ("time", "prediction_timedelta", "level", "longitude", "latitude")
    leads = np.asarray(LEADS, "timedelta64[h]").astype("timedelta64[ns]")
    coordinates = {
        "time": INITS,
        "prediction_timedelta": leads,
        "level": [500, 850],
        "longitude": longitude,
        "latitude": latitude,
    }
    field = xr.DataArray(values, dims=dims, coords=coordinates, attrs={} if units is None else {"units": units})
    return xr.Dataset({"relative_humidity": field})


def read(dataset, tmp_path, require=True) -> np.ndarray:
    file = ForecastFile(write(dataset, tmp_path / "f.zarr"))
    if require:
        file.require(["r500", "r850"], LEADS, file.grid)
    return file.read(np.arange(len(INITS)), 6, ["r850"])[:, 0]


def expected(dataset, factor) -> np.ndarray:
    """[init, lat, lon], north first."""
    raw = dataset["relative_humidity"].sel(level=850).isel(prediction_timedelta=1)
    return factor * raw.transpose("time", "latitude", "longitude").values[:, ::-1]


@pytest.mark.parametrize("require", [True, False])
def test_a_fraction_without_a_word_is_read_as_one_and_said(tmp_path, caplog, require):
    dataset = made(0, 1.05)
    np.testing.assert_allclose(read(dataset, tmp_path, require), expected(dataset, 100), rtol=1e-6)
    assert "relative_humidity of " in caplog.text
    assert "is a fraction of one without a word on units: read as such" in caplog.text
    assert len(caplog.records) == 1


def test_per_cent_stay_per_cent(tmp_path, caplog):
    for i, units in enumerate((None, "%")):
        dataset = made(0, 105, units)
        np.testing.assert_array_equal(read(dataset, tmp_path / str(i)), expected(dataset, 1))
    assert not caplog.records


def test_what_a_file_says_is_not_believed_against_all_evidence(tmp_path):
    with pytest.raises(
        InputError, match=r"has units '%', but its values are a fraction of one: .*multiply them by 100"
    ):
        read(made(0, 1.05, "%"), tmp_path)


def test_a_fraction_by_its_own_word_is_refused_with_the_cure(tmp_path):
    with pytest.raises(InputError, match=r"has units '1', expected '%'; convert the values"):
        read(made(0, 1.05, "1"), tmp_path)


def test_a_dry_corner_tells_nothing(tmp_path):
    small = made(0, 1.05, latitude=np.linspace(20, 30, 5), longitude=np.linspace(0, 20, 5))
    with pytest.raises(InputError, match="could be % or a fraction of one"):
        read(small, tmp_path)
