"""The settings of a run in the forms people have them: a YAML file, a dict, settings that were checked before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import yaml
from pydantic import BaseModel

from weatherfm.config import SECRET, Config, parse_settings, shown
from weatherfm.errors import InputError, clipped
from weatherfm.file_errors import naming
from weatherfm.overrides import apply_overrides, names_in, plain

if TYPE_CHECKING:
    from weatherfm.training.run_config import RunConfig

RunLike: TypeAlias = Union[str, os.PathLike[str], dict[str, Any], "RunConfig"]
"""A YAML file, what one holds as a dict, or settings that `read_run` has checked."""
Override: TypeAlias = str | Mapping[str, Any]
"""`"model.depth=6"`, as on the command line, or `{"model.depth": 6}`."""


def read_run(config: RunLike, *overrides: Override) -> RunConfig:
    """The settings of a run, checked.

        run = weatherfm.read_run("my_run.yaml", "training.steps=500", {"model.depth": 6})
        run.training.steps, run.folder

    Args:
        config: path of a YAML file, what such a file holds as a dict, or settings that were checked before. Spans of
            time have their unit, as "6h", in a dict too.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.

    Returns:
        Sections as attributes (`data`, `model`, `training`, `parallel`, `forecast`, `evaluation`), and `folder`, that
        of everything the run makes. Nothing in it changes any more.

    Raises:
        InputError: no such file, an unknown key, a wrong type, or settings that contradict each other; one line a
            problem.
    """
    from weatherfm.training.run_config import RunConfig, load_run  # brings torch

    if isinstance(config, str | os.PathLike):
        return load_run(config, overrides)
    if isinstance(config, RunConfig):
        if not overrides:
            return config
        data, origin = settings_of(config), "changed settings"
    elif isinstance(config, dict):
        data, origin = plain(config), "settings"
    else:
        raise InputError(
            f"a run is a YAML file, a dict or settings of weatherfm.read_run, got {type(config).__name__} {config!r}"
        )
    apply_overrides(data, overrides)
    return parse_settings(RunConfig, data, origin)


def is_run(source: Any) -> bool:
    """True for settings of a run and for a path that ends as their files do."""
    if isinstance(source, dict | Config):
        return True
    return isinstance(source, str | os.PathLike) and Path(source).suffix in (".yaml", ".yml")


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What was given of checked settings, as a YAML file would have it; with keys to private stores."""
    return _with_secrets(config.model_dump(mode="json", exclude_unset=True), config)


def given_sections(
    source: str, overrides: Sequence[Override], what: str, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Settings that follow a source which is no run, by section.

    Args:
        source: what messages call it.
        overrides: what follows it.
        what: the source is, for messages.
        names: of the sections that can be set.

    Raises:
        InputError: a setting of another section, or one that cannot be read.
    """
    if not overrides:
        return {name: {} for name in names}
    data: dict[str, Any] = {}
    apply_overrides(data, overrides)
    if unknown := [key for key in data if key not in names]:
        raise InputError(
            f"{source} holds {what}: only {' and '.join(f'{name}.*' for name in names)} can be set with it, not "
            f"{', '.join(unknown)}; name a run's YAML file to change others"
        )
    for name, value in data.items():
        if not isinstance(value, dict):
            raise InputError(f"{name}={value!r} is a section, not a setting; write {name}.KEY=VALUE")
    return {name: data.get(name, {}) for name in names}


def refuse_overrides(source: Any, overrides: Sequence[Override], what: str) -> None:
    """Refuse settings behind what is no run: nothing would read them.

    Args:
        source: what messages call it.
        overrides: what follows it.
        what: the source is.

    Raises:
        InputError: naming the first.
    """
    if overrides:
        told = clipped(", ".join(names_in(overrides[0])) or shown(overrides[0]))
        raise InputError(
            f"{source} is {what}, and {told} would change nothing; leave it out, or name a run's YAML file"
        )


def refuse_set_twice(overrides: Sequence[Override], options: Mapping[str, str]) -> None:
    """Refuse settings that an option of the same call gives, too: one of the two would not be used.

    Args:
        overrides: of the call.
        options: setting -> the option that gives it.

    Raises:
        InputError: naming both.
    """
    names = [name for one in overrides for name in names_in(one)]
    if twice := [name for name in names if name in options]:
        raise InputError(f"{options[twice[0]]} and {twice[0]} say the same; leave one of the two out")


@contextmanager
def on_command_line(source: Any, overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The arguments by which a process of its own reads the same settings.

    What is no file already is written into one that nobody else can read, and that is gone in the end.
    """
    if isinstance(source, str | os.PathLike) and all(isinstance(override, str) for override in overrides):
        yield [os.fspath(source), *map(str, overrides)]
    elif is_run(source):
        with tempfile.TemporaryDirectory(prefix="weatherfm") as folder:
            path = Path(folder) / "run.yaml"
            text = yaml.safe_dump(settings_of(read_run(source, *overrides)), sort_keys=False)
            with naming(path):
                path.write_text(text)
            yield [str(path)]
    else:
        yield [os.fspath(source), *(text for override in overrides for text in _texts(override))]


def _texts(override: Override) -> list[str]:
    if isinstance(override, str):
        return [override]
    if any(SECRET in key for key in override):
        raise InputError(
            f"{SECRET} would stand on the command line of other processes, where all users see it; give a run whose "
            "settings hold it"
        )
    return [f"{key}={_as_yaml(value)}" for key, value in override.items()]


def _as_yaml(value: Any) -> str:
    """On one line; YAML writes an end of document behind a single word."""
    return yaml.safe_dump(plain(value), default_flow_style=True, width=2**20).removesuffix("...\n").strip()


def _with_secrets(data: dict[str, Any], settings: BaseModel) -> dict[str, Any]:
    """A dump with what no dump has."""
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if name == SECRET:
            data[name] = value
        elif isinstance(value, BaseModel):
            data[name] = _with_secrets(data[name], value)
        elif isinstance(value, list):
            parts = zip(data[name], value, strict=True)
            data[name] = [_with_secrets(told, one) if isinstance(one, BaseModel) else told for told, one in parts]
    return data
