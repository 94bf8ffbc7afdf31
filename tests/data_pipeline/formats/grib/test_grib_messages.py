"""Where messages begin and end: truncated files, foreign bytes, several fields in one message, very long messages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import eccodes
import numpy as np
import pytest
from synthetic_files import TIMES, grib_message, open_files, wave

from weatherfm.data_pipeline.formats.grib.messages import field_alone, fields_of
from weatherfm.errors import InputError

_PACKING = 1e-5
_BASE = wave(TIMES[:1])[0]


def write(path, *messages: bytes):
    path.write_bytes(b"".join(messages))
    return path


def first_field(path, channel="t500", **settings) -> np.ndarray:
    return open_files(path, [channel], **settings).state.values[0, 0]


def multi(*parts: bytes) -> bytes:
    """One message of several fields, as ecCodes joins them."""
    joined = eccodes.codes_grib_multi_new()
    for part in parts:
        message = eccodes.codes_new_from_message(part)
        eccodes.codes_grib_multi_append(message, 4, joined)
        eccodes.codes_release(message)
    with tempfile.TemporaryFile() as file:
        eccodes.codes_grib_multi_write(joined, file)
        file.seek(0)
        content = file.read()
    eccodes.codes_grib_multi_release(joined)
    return content


def sections(message: bytes) -> Iterator[tuple[int, int]]:
    """(number, start) of each section of a message of edition 2."""
    at = 16
    while at < len(message) - 4:
        yield message[at + 4], at
        at += int.from_bytes(message[at : at + 4], "big")


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("cut", [3, 9, 40, 300])
def test_a_file_that_ends_early(tmp_path, edition, cut):
    whole = grib_message(edition=edition, values=_BASE)
    second = grib_message(edition=edition, date=20200102)
    path = write(tmp_path / "x.grib", whole, second[: max(4, len(second) - cut)])
    with pytest.raises(InputError, match=rf"x\.grib: it is truncated or damaged after {len(whole)} bytes"):
        open_files(path, ["t500"])


def test_a_message_that_is_cut_between_others(tmp_path):
    """Its length reaches into the next message, where no end is marked."""
    one = grib_message(edition=2)
    path = write(tmp_path / "x.grib", one[:-30], grib_message(edition=2, date=20200102))
    with pytest.raises(InputError, match=r"x\.grib: it is truncated or damaged after 0 bytes .*end is not marked"):
        open_files(path, ["t500"])


def test_editions_in_one_file(tmp_path):
    path = write(
        tmp_path / "x.grib",
        grib_message(values=_BASE),
        grib_message(edition=2, date=20200102, values=_BASE + 1),
        grib_message(date=20200103, values=_BASE + 2),
    )
    state = open_files(path, ["t500"]).state.values[:, 0]
    np.testing.assert_allclose(state, _BASE + np.arange(3)[:, None, None], rtol=_PACKING)


def test_an_unknown_edition(tmp_path):
    message = bytearray(grib_message())
    message[7] = 3
    with pytest.raises(InputError, match=r"x\.grib: the message at byte 0 says GRIB edition 3; only 1 and 2"):
        open_files(write(tmp_path / "x.grib", bytes(message)), ["t500"])


def test_headers_of_the_telecommunication_system(tmp_path):
    """41 bytes before each message, three after; padding with zeros at the end."""
    header = b"\x01\r\r\n123\r\r\nYTXX50 KWBC 010000\r\r\n"
    messages = [header + grib_message(date=20200101 + day, values=_BASE + day) + b"\r\r\n\x03" for day in range(2)]
    state = open_files(write(tmp_path / "x.grib", *messages, bytes(5000)), ["t500"]).state.values[:, 0]
    np.testing.assert_allclose(state, _BASE + np.arange(2)[:, None, None], rtol=_PACKING)


def test_long_foreign_bytes_between_messages(tmp_path):
    page = b"<html><body>Service Unavailable: " + b"x" * 70000 + b"</body></html>"
    path = write(tmp_path / "x.grib", grib_message(), page, grib_message(date=20200102))
    with pytest.raises(InputError, match=r"x\.grib: it holds bytes that are no GRIB message after byte \d+ \(b'<html>"):
        open_files(path, ["t500"])


def test_the_magic_word_across_two_looks(tmp_path):
    for gap in range(60, 70):
        path = write(tmp_path / "x.grib", grib_message(), b"\0" * (2**16 - gap), grib_message(date=20200102))
        assert len(list(fields_of(str(path)))) == 2


def masked(values: np.ndarray, hole: tuple[int, int]) -> tuple[np.ndarray, dict]:
    values = values.copy()
    values[hole] = 9999.0
    return values, {"bitmapPresent": 1, "missingValue": 9999.0}


def test_fields_of_one_message_each_with_its_bitmap(tmp_path):
    parts = []
    for i, name in enumerate("uv"):
        values, keys = masked(_BASE + i, (i, i))
        parts.append(grib_message(name, edition=2, values=values, **keys))
    path = write(tmp_path / "x.grib", multi(*parts))
    state = open_files(path, ["u500", "v500"]).state.values[0]
    assert [tuple(np.argwhere(np.isnan(field))[0]) for field in state] == [(0, 0), (1, 1)]
    np.testing.assert_allclose(np.nanmax(state[1] - _BASE), 1, rtol=1e-4)


def test_a_bitmap_that_is_that_of_the_field_before(tmp_path):
    """Section 6 with indicator 254, as NCEP writes it: the same points are missing in both fields."""
    values, keys = masked(_BASE, (1, 2))
    parts = [grib_message(name, edition=2, values=values + 0, **keys) for name in "uv"]
    content = bytearray(multi(*parts))
    start = [start for number, start in sections(bytes(content)) if number == 6][1]
    size = int.from_bytes(content[start : start + 4], "big")
    content[start : start + size] = b"\0\0\0\6\6\xfe"
    content[8:16] = len(content).to_bytes(8, "big")
    path = write(tmp_path / "x.grib", bytes(content))
    state = open_files(path, ["u500", "v500"]).state.values[0]
    np.testing.assert_array_equal(np.isnan(state[0]), np.isnan(state[1]))
    assert np.isnan(state).sum() == 2
    np.testing.assert_allclose(state[1][~np.isnan(state[1])], np.delete(_BASE.ravel(), 10), rtol=_PACKING)


def test_the_field_alone_is_the_message_it_was_made_of():
    parts = [grib_message(name, edition=2, values=_BASE + i) for i, name in enumerate("uvt")]
    joined = multi(*parts)
    assert [field_alone(joined, i) for i in range(3)] == parts
    assert field_alone(parts[0], 0) == parts[0]


def test_messages_above_8_mib_in_edition_1(tmp_path):
    """ECMWF counts their length in units of 120 bytes."""
    message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
    columns, rows = 2880, 1441
    for key, value in {
        "Ni": columns, "Nj": rows, "latitudeOfFirstGridPointInDegrees": 90.0, "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": 0.0, "longitudeOfLastGridPointInDegrees": 359.875,
        "iDirectionIncrementInDegrees": 0.125, "jDirectionIncrementInDegrees": 0.125, "shortName": "2t",
        "bitsPerValue": 24,
    }.items():  # fmt: skip
        eccodes.codes_set(message, key, value)
    values = 280 + np.sin(np.arange(columns * rows) / 1e5)
    eccodes.codes_set_values(message, values)
    long = eccodes.codes_get_message(message)
    assert len(long) > 2**23
    path = write(tmp_path / "x.grib", long, long, grib_message())
    found = list(fields_of(str(path)))
    assert [field.length for field in found] == [len(long), len(long), len(grib_message())]


@pytest.mark.parametrize(("name", "channel", "field"), [
    ("regular_gg_wrong_increment", "u10", "10u"), ("regular_ll_wrong_increment", "t2m", "2t"),
])  # fmt: skip
def test_grids_that_contradict_themselves(real_data, name, channel, field):
    path = real_data / "cases" / "wrong-grid-message" / f"{name}.grib"
    with pytest.raises(InputError, match=rf"{name}\.grib: its field {field} has a grid that contradicts itself"):
        open_files(path, [channel])


def test_a_wrong_grid_of_a_field_that_is_not_wanted(tmp_path, real_data):
    wrong = (real_data / "cases" / "wrong-grid-message" / "regular_ll_wrong_increment.grib").read_bytes()
    np.testing.assert_allclose(
        first_field(write(tmp_path / "x.grib", wrong, grib_message(values=_BASE))), _BASE, rtol=1e-5
    )


def wrong_count(message: bytes) -> bytes:
    """Section 5 says one value less than the grid has points."""
    at = next(start for number, start in sections(message) if number == 5)
    return message[: at + 5] + (_BASE.size - 1).to_bytes(4, "big") + message[at + 9 :]


def wrong_stream(message: bytes) -> bytes:
    """No JPEG 2000 where one should be."""
    handle = eccodes.codes_new_from_message(message)
    values = eccodes.codes_get_values(handle)
    eccodes.codes_set(handle, "packingType", "grid_jpeg")
    eccodes.codes_set_values(handle, values)
    content = bytearray(eccodes.codes_get_message(handle))
    at = next(start for number, start in sections(bytes(content)) if number == 7)
    content[at + 5 : at + 15] = bytes(10)
    return bytes(content)


@pytest.mark.parametrize(("damage", "words"), [(wrong_count, "holds 31 values for 4 x 8 "), (wrong_stream, "damaged")])
def test_data_that_cannot_be_decoded(tmp_path, damage, words):
    """The header is sound: the field is named on reading."""
    path = write(tmp_path / "x.grib", damage(grib_message("t", edition=2, values=_BASE, bitsPerValue=16)))
    data = open_files(path, ["t500"])
    with pytest.raises(InputError, match=rf"x\.grib: message 1 \(t\) .*{words}"):
        data.state.compute()


def test_a_message_without_a_date(tmp_path):
    message = bytearray(grib_message("t"))
    message[8 + 13] = 77  # the month
    with pytest.raises(InputError, match=r"x\.grib: it holds a message without a date \(year 2020, month 77"):
        open_files(write(tmp_path / "x.grib", bytes(message)), ["t500"])


def test_a_file_cut_while_it_is_read(tmp_path):
    path = write(tmp_path / "x.grib", grib_message(), grib_message(date=20200102))
    data = open_files(path, ["t500"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"x\.grib.*(gone|changed)"):
        data.state.compute()
