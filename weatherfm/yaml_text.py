"""YAML as settings are written in it, read strictly: a key that stands twice is refused, and a file that is none."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from weatherfm.errors import InputError

_MOST = 2**20
"""Bytes of a file of settings; a run's has some kB."""
_MERGE = "tag:yaml.org,2002:merge"


class _Strict(yaml.SafeLoader):
    """Plain values alone; of a key that stands twice YAML would take the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in lines:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} stands twice, first in line {lines[key.value]}", key.start_mark
                )
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        """A date; as text where the calendar has none such, for the setting to refuse by its name."""
        try:
            return self.construct_yaml_timestamp(node)
        except ValueError:
            return self.construct_scalar(node)


_Strict.add_constructor("tag:yaml.org,2002:timestamp", _Strict.construct_date)


def read_yaml(text: str, origin: str) -> Any:
    """The plain values that a YAML text holds.

    Args:
        text: one document.
        origin: begins the message, as "run.yaml is".

    Raises:
        InputError: no YAML, a key that stands twice, or a value that is none; without the line itself, in which a
            secret may stand.
    """
    try:
        return yaml.load(text, _Strict)
    except yaml.YAMLError as error:
        raise InputError(f"{origin} not valid YAML: {_told(error)}") from None
    except RecursionError:
        raise InputError(f"{origin} not valid YAML for settings: it is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{origin} not valid YAML: a value in it cannot be read ({error})") from None


def read_yaml_file(path: Path) -> Any:
    """What a file of settings holds.

    Raises:
        InputError: no such file, a folder, a file that is no text, too large for settings, or no YAML.
    """
    if not os.path.isfile(path):
        what = "it is a folder" if os.path.isdir(path) else "it is no file" if os.path.exists(path) else ""
        raise InputError(
            f"no configuration file {path}{f' ({what})' if what else ''}; name a YAML file, e.g. configs/planet.yaml"
        )
    try:
        size = os.path.getsize(path)
        if size > _MOST:
            raise InputError(f"{path} has {size / 2**20:.1f} MiB, and settings have some KiB; name a run's YAML file")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); name a YAML file"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give yourself the right to, or name another"
        ) from None
    return read_yaml(text, f"{path} is")


def _told(error: yaml.YAMLError) -> str:
    """What is wrong and where."""
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or type(error).__name__}{where}"
