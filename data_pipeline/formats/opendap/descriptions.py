"""What a server says of a dataset: its structure (DDS) and its attributes (DAS), as texts of DAP2.

DAP 2.0 specification, ESE-RFC-004 (earthdata.nasa.gov). Structures and sequences hold no fields and are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np

from weatherfm.errors import InputError

NUMBERS = {
    "byte": ("u1", "u1"), "int16": ("i2", ">i4"), "uint16": ("u2", ">u4"), "int32": ("i4", ">i4"),
    "uint32": ("u4", ">u4"), "float32": ("f4", ">f4"), "float64": ("f8", ">f8"),
}  # fmt: skip
"""Type as DAP2 calls it -> (type here, type on its way)."""


@dataclass(frozen=True)
class Declared:
    """One array of numbers."""

    name: str
    kind: str
    """Key of `NUMBERS`."""
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    asked_as: str
    """Its name in a request: an array of a grid is asked for inside it."""


def read_structure(text: str) -> dict[str, Declared]:
    """Name -> array of all arrays of numbers that a DDS declares.

    Raises:
        InputError: the text is no DDS (without the address).
    """
    words = iter(re.findall(r"[{}\[\];=:]|[^\s{}\[\];=:]+", text))
    try:
        if [next(words).lower(), next(words)] != ["dataset", "{"]:
            raise ValueError("it does not begin with Dataset {")
        found: dict[str, Declared] = {}
        for one in _declarations(words):
            if one.name not in found or one.asked_as == one.name:  # a map of a grid often stands by itself, too
                found[one.name] = one
    except (StopIteration, RuntimeError, ValueError) as error:
        raise InputError(f"what its server says of it is no DDS of OPeNDAP ({error}; {_start(text)})") from None
    return found


def _declarations(words: Iterator[str], within: str = "") -> Iterator[Declared]:
    """Up to the closing bracket."""
    while (kind := next(words).lower()) != "}":
        if kind in ("array", "maps"):
            _expect(words, ":")
        elif kind == "grid":
            _expect(words, "{")
            members = list(_declarations(words, within="?"))
            grid = unquote(next(words))
            _expect(words, ";")
            for one in members:
                yield Declared(one.name, one.kind, one.dims, one.shape, f"{grid}.{one.name}")
        elif kind in ("structure", "sequence"):
            _expect(words, "{")
            list(_declarations(words, within="?"))
            while next(words) != ";":
                pass
        else:
            name, dims, shape = _array(words)
            if kind in NUMBERS:
                yield Declared(name, kind, dims, shape, name)


def _array(words: Iterator[str]) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """Name, dimensions and sizes: `t2m[time = 4][latitude = 3];`."""
    name = unquote(next(words))
    dims: list[str] = []
    shape: list[int] = []
    while (sign := next(words)) != ";":
        if sign != "[":
            raise ValueError(f"{sign} in {name}")
        inside = []
        while (word := next(words)) != "]":
            inside.append(word)
        dims.append(unquote(inside[0]) if len(inside) == 3 else f"{name}_{len(dims)}")
        shape.append(int(inside[-1]))
    return name, tuple(dims), tuple(shape)


def _expect(words: Iterator[str], sign: str) -> None:
    if (word := next(words)) != sign:
        raise ValueError(f"{word} where {sign} should stand")


def read_attributes(text: str) -> dict[str, dict[str, Any]]:
    """Name of a variable, or of what holds those of the whole dataset -> its attributes, as a DAS says.

    Raises:
        InputError: the text is no DAS (without the address).
    """
    words = iter(re.findall(r'"(?:\\.|[^"\\])*"|[{};,]|[^\s{};,"]+', text))
    found: dict[str, dict[str, Any]] = {}
    try:
        if [next(words).lower(), next(words)] != ["attributes", "{"]:
            raise ValueError("it does not begin with Attributes {")
        while (name := next(words)) != "}":
            _expect(words, "{")
            found[unquote(name)] = _container(words)
    except (StopIteration, ValueError, KeyError) as error:
        raise InputError(f"what its server says of it is no DAS of OPeNDAP ({error!r}; {_start(text)})") from None
    return found


def _container(words: Iterator[str]) -> dict[str, Any]:
    """Up to the closing bracket; what a grid says of its array is said of the array."""
    attributes: dict[str, Any] = {}
    while (kind := next(words)) != "}":
        name = next(words)
        if name == "{":
            attributes = {**_container(words), **attributes}
            continue
        values = []
        while (word := next(words)) != ";":
            if word != ",":
                values.append(word)
        attributes[unquote(name)] = _value(kind.lower(), values)
    return attributes


def _value(kind: str, values: list[str]) -> Any:
    if kind not in NUMBERS:
        return "\n".join(re.sub(r"\\(.)", r"\1", word.strip('"') if word[:1] == '"' else word) for word in values)
    numbers = np.array([float(word) for word in values]).astype(NUMBERS[kind][0])
    return numbers[0] if len(numbers) == 1 else numbers


def _start(text: str) -> str:
    return f"it starts with {' '.join(text.split())[:60]!r}"
