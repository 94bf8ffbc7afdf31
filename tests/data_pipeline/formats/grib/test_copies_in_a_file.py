"""Two fields of the same time in one GRIB file: equal ones are one, different ones are refused with what tells them
apart."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_files import TIMES, grib_message, open_files, wave

from weatherfm.data_pipeline.sources.file_states import open_file_states
from weatherfm.errors import InputError

FIELD = wave(TIMES[:1])[0]


def write(path, *messages: bytes):
    path.write_bytes(b"".join(messages))
    return path


def t2m(offset=0.0, **keys) -> bytes:
    return grib_message("2t", kind="surface", values=FIELD + offset, **keys)


def rain(steps: str, amount: float, bits: int) -> bytes:
    """NCEP's rain of edition 2."""
    values = np.full(FIELD.shape, amount) + np.linspace(0, 0.01, FIELD.size).reshape(FIELD.shape)
    keys = {"edition": 2, "centre": "kwbc", "productDefinitionTemplateNumber": 8}
    keys |= {"parameterCategory": 1, "parameterNumber": 8, "typeOfStatisticalProcessing": 1}
    return grib_message("tp", kind="surface", values=values, bitsPerValue=bits, **keys, stepRange=steps)


def test_equal_copies_are_one(tmp_path, caplog):
    caplog.set_level("INFO")
    data = open_files(write(tmp_path / "x.grib", t2m(), t2m(), t2m(1.0, date=20200102)), ["t2m"])
    np.testing.assert_allclose(data.state.values[:, 0], [FIELD, FIELD + 1], rtol=1e-6)
    assert "1 fields of t2m stand in their file twice with equal values, the first at 2020-01-01" in caplog.text


def test_rain_of_the_first_hours_is_there_twice(tmp_path):
    """GFS at f006 holds 0-6 h as the sum of the last six hours and as that since the start, here packed differently."""
    path = write(tmp_path / "x.grib2", rain("0-6", 0.004, 16), rain("0-6", 0.004, 12))
    state = open_files(path, ["tp"], accumulation="6h").state
    assert state.shape[0] == 1
    # kg m-2, which are mm
    np.testing.assert_allclose(state.values[0, 0].ravel(), np.linspace(0.004, 0.014, FIELD.size) * 1e-3, atol=3e-9)


def test_different_copies_are_refused(tmp_path):
    path = write(tmp_path / "x.grib2", rain("0-6", 0.004, 16), rain("0-6", 0.005, 16))
    with pytest.raises(InputError, match=r"x\.grib2: it holds tp at 2020-01-01T06:00:00 twice \(messages 1 and 2\), "
                       r"with other values \(by up to 0\.001\)"):  # fmt: skip
        open_files(path, ["tp"])


def test_an_analysis_and_the_start_of_a_forecast(tmp_path):
    keys = {"class": "ea", "stream": "oper", "expver": "0001"}
    path = write(tmp_path / "x.grib", t2m(type="an", **keys), t2m(2.0, type="fc", **keys))
    told = r"twice \(messages 1 and 2, one of type an and one of type fc\), with other values \(by up to 2\).*grib_copy"
    with pytest.raises(InputError, match=told):
        open_files(path, ["t2m"])


def test_missing_points_differ(tmp_path):
    holes = np.where(np.arange(FIELD.size).reshape(FIELD.shape) == 3, 9999.0, FIELD)
    message = grib_message("2t", kind="surface", values=holes, bitmapPresent=1, missingValue=9999)
    with pytest.raises(InputError, match=r"twice .*other values"):
        open_files(write(tmp_path / "x.grib", t2m(), message), ["t2m"])
    assert open_files(write(tmp_path / "y.grib", message, message), ["t2m"]).state.shape[0] == 1


def test_a_year_that_is_missing(tmp_path):
    """Edition 1 has no other way to say that there is none: all bits set."""
    message = bytearray(t2m())
    message[8 + 12] = message[8 + 24] = 255  # year of the century, century
    with pytest.raises(InputError, match=r"x\.grib: 2t is at 25655-01-01.*no weather is known of that year"):
        open_files(write(tmp_path / "x.grib", bytes(message)), ["t2m"])
    with pytest.raises(InputError, match="no weather is known of that year"):
        open_file_states([str(tmp_path / "x.grib")], ["t2m"])
