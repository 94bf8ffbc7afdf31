"""Settings changed one by one, as `section.key=value` on the command line, or {"section.key": value}."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from weatherfm.config import SECRET, shown
from weatherfm.errors import InputError
from weatherfm.yaml_text import read_yaml


def apply_overrides(data: dict[str, Any], overrides: Sequence[str | Mapping[str, Any]]) -> None:
    """Change settings in plain data, each setting once.

    Raises:
        InputError: one cannot be read, or is given twice: which of its values holds nobody could see.
    """
    given: set[str] = set()
    for override in overrides:
        names = names_in(override)
        if twice := [name for name in names if name in given]:
            raise InputError(f"override {twice[0]} is given twice; leave one of the two out")
        given.update(names)
        apply_override(data, override)


def names_in(override: Any) -> list[str]:
    """The settings that an override is of; none of what is none."""
    if isinstance(override, str):
        return [override.partition("=")[0].strip()]
    return list(map(str, override)) if isinstance(override, Mapping) else []


def apply_override(data: dict[str, Any], override: str | Mapping[str, Any]) -> None:
    """Change settings in plain data as `section.key=value` says, or {"section.key": value} for any number of them.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(override, Mapping):
        for key, value in override.items():
            if isinstance(value, Mapping) and "." not in key:
                raise InputError(f"override {key}: a section; name its settings one by one, as {{'{key}.KEY': value}}")
            set_value(data, key, value)
        return
    if not isinstance(override, str):
        raise InputError(f"cannot read the override {override!r}; write 'model.depth=6' or {{'model.depth': 6}}")
    key, equals, text = override.partition("=")
    if not equals or not key:
        told = "***" if SECRET in override else shown(override)
        raise InputError(f"cannot read the override {told}; write section.key=value, e.g. model.depth=6")
    set_value(data, key, read_yaml(text, f"override {key}: the value is"))


def set_value(data: dict[str, Any], key: str, value: Any) -> None:
    """Change one setting, `section.key` or, of a list, `section.0.key`, in plain data.

    Raises:
        InputError: a section of that name is a value, a list has no such entry, or the key is no text.
    """
    if not isinstance(key, str):
        raise InputError(f"override {key!r}: {value!r}: a setting is named by text, as {{'model.depth': 6}}")
    *sections, last = key.strip().split(".")
    if not all([*sections, last]):
        raise InputError(f"override {key}: a name is missing beside a dot; write section.key=value")
    inner: Any = data
    for section in sections:
        inner = inner[_place(inner, section, key)] if isinstance(inner, list) else inner.setdefault(section, {})
        if not isinstance(inner, dict | list):
            raise InputError(f"override {key}: {section} is a value, not a section")
    inner[_place(inner, last, key) if isinstance(inner, list) else last] = plain(value)


def _place(entries: list[Any], text: str, key: str) -> int:
    """The place in a list that a part of a key means, from 0 as messages count them."""
    if text.isdecimal() and int(text) < len(entries):
        return int(text)
    raise InputError(f"override {key}: {text} is none of the {len(entries)} entries, which are counted from 0")


def plain(value: Any) -> Any:
    """A copy of settings as YAML would give them: lists for tuples, texts for paths."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
