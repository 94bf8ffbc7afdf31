"""Where the fields of a GRIB file are, told by the lengths that its sections state: no field is decoded.

Section layouts: WMO Manual on Codes (WMO-No. 306), FM 92 GRIB editions 1 and 2. NCEP packs u and v into one message of
edition 2; `field_alone` makes a message of each: ecCodes would unpack such messages by a switch of the whole process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from weatherfm.errors import InputError

_ODD_BYTES = 100  # telecommunication headers between messages are shorter; an error page behind them is longer
_LOOK = 2**16  # bytes looked through at a time for the next message
_END = b"7777"


@dataclass(frozen=True)
class Field:
    """One field of a GRIB file."""

    offset: int
    """Where its message starts."""
    length: int
    """Bytes of the message, with all its fields."""
    number: int
    """Which field of its message, from 0."""
    edition: int
    indicator: bytes
    """Section 0 of edition 2 but for its length; it holds the discipline."""
    sections: tuple[bytes, ...]
    """What tells what the field is: sections 1 and 2 of edition 1; 1, 2, 3 and 4 of edition 2 (empty where absent)."""


def fields_of(path: str) -> Iterator[Field]:
    """All fields of a file, in its order.

    Raises:
        InputError: truncated, damaged, or bytes between messages that are none (without the file's name).
    """
    with open(path, "rb") as file:
        descriptor, size = file.fileno(), os.fstat(file.fileno()).st_size
        end = 0
        while (offset := _next_message(descriptor, end, size)) < size:
            start = os.pread(descriptor, 16, offset)
            edition = start[7] if len(start) > 7 else 0
            message = _Message(descriptor, offset, edition, end)
            if len(start) < 16:
                raise message.cut_short("it ends early")
            if edition not in (1, 2):
                raise InputError(f"the message at byte {offset} says GRIB edition {edition}; only 1 and 2 are read")
            length = message.length_of(start)
            if offset + length > size:
                raise message.cut_short(f"it states {length} bytes, {size - offset} are there")
            if os.pread(descriptor, 4, offset + length - 4) != _END:
                raise message.cut_short("its end is not marked")
            yield from message.fields(start, length)
            end = offset + length


@dataclass(frozen=True)
class _Message:
    """A message that is being looked through."""

    descriptor: int
    offset: int
    edition: int
    sound: int
    """Bytes of the file before it that are in order."""

    def cut_short(self, why: str) -> InputError:
        return InputError(
            f"it is truncated or damaged after {self.sound} bytes (message at byte {self.offset}: {why}); "
            "fetch it again"
        )

    def read(self, start: int, length: int) -> bytes:
        found = os.pread(self.descriptor, length, self.offset + start)
        if len(found) < length:
            raise self.cut_short("it ends early")
        return found

    def length_of(self, start: bytes) -> int:
        """Bytes of the whole message; above 8 MiB, edition 1 counts in units of 120 (as ECMWF writes it)."""
        if self.edition == 2:
            return int.from_bytes(start[8:16], "big")
        length = int.from_bytes(start[4:7], "big")
        if not length & 0x800000:
            return length
        data = int.from_bytes(self.read(self._sections_1()[-1][1], 3), "big")
        return length if data >= 120 else (length & 0x7FFFFF) * 120 - data + 4

    def fields(self, start: bytes, length: int) -> Iterator[Field]:
        if self.edition == 1:
            (_, one, n_one), (_, two, n_two), *_ = self._sections_1()
            yield Field(self.offset, length, 0, 1, b"", (self.read(one, n_one), self.read(two, n_two)))
            return
        for number, found in enumerate(self._fields_2(length)):
            sections = tuple(self.read(*found[i]) if i in found else b"" for i in (1, 2, 3, 4))
            yield Field(self.offset, length, number, 2, start[:8], sections)

    def _sections_1(self) -> list[tuple[int, int, int]]:
        """(number, start, length) of sections 1, 2, 3 (length 0 where absent) and the start of 4."""
        found, at = [], 8
        flags = self.read(at + 7, 1)[0]
        for number, present in ((1, True), (2, flags & 0x80), (3, flags & 0x40)):
            length = int.from_bytes(self.read(at, 3), "big") if present else 0
            found.append((number, at, length))
            at += length
        return [*found, (4, at, 0)]

    def _fields_2(self, length: int) -> Iterator[dict[int, tuple[int, int]]]:
        """(start, length) of each section that is in force, once for every field."""
        in_force: dict[int, tuple[int, int]] = {}
        for number, at, size in _sections(self.read, length):
            if number == 0:
                raise self.cut_short("its sections do not fit together")
            in_force[number] = at, size
            if number == 7:
                yield dict(in_force)
        if 7 not in in_force:
            raise self.cut_short("it holds no field")


def field_alone(message: bytes, number: int) -> bytes:
    """A message of edition 2 with nothing but field `number` of `message`; others are given back as they are."""
    if message[7] != 2:
        return message

    def read(start: int, length: int) -> bytes:
        return message[start : start + length]

    in_force: dict[int, bytes] = {}
    bitmap, fields = b"", 0
    for section, at, size in _sections(read, len(message)):
        in_force[section] = message[at : at + size]
        if section == 6 and message[at + 5] == 254:  # "the bitmap of a field before"
            in_force[6] = bitmap
        elif section == 6:
            bitmap = in_force[6]
        if section == 7:
            if fields == number:
                break
            fields += 1
    parts = [in_force[i] for i in range(1, 8) if i in in_force]
    length = 16 + sum(map(len, parts)) + 4
    return b"".join([message[:8], length.to_bytes(8, "big"), *parts, _END])


def _sections(read: Callable[[int, int], bytes], length: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, length) of each section of a message of edition 2; the number 0 where they do not fit."""
    at = 16
    while at < length - 4:
        head = read(at, 5)
        size, number = int.from_bytes(head[:4], "big"), head[4]
        if size < 5 or at + size > length - 4 or not 1 <= number <= 7:
            yield 0, at, size
            return
        yield number, at, size
        at += size


def _next_message(descriptor: int, start: int, size: int) -> int:
    """Where the next message starts, or `size`.

    Raises:
        InputError: what stands before it is no message: something is lost there.
    """
    at, between = start, b""
    while at < size:
        between = between[-3:] + os.pread(descriptor, 4 if at == start else _LOOK, at)
        if (where := between.find(b"GRIB")) >= 0:
            at = max(start, at - 3) + where
            break
        at += 4 if at == start else _LOOK
    end = min(at, size)
    odd = os.pread(descriptor, min(end - start, _LOOK), start).strip(b"\0 \t\r\n")
    if len(odd) > _ODD_BYTES:
        raise InputError(f"it holds bytes that are no GRIB message after byte {start} ({odd[:20]!r}); fetch it again")
    return end
