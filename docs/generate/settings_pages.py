"""The configuration reference: one page a section of a run's file, from the settings classes and the text under each.

Nothing of it is written by hand: key, type, default and text come from `weatherfm.training.run_config.RunConfig`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel, BeforeValidator, TypeAdapter
from pydantic.fields import FieldInfo

from weatherfm.config import Config, Hours
from weatherfm.data_pipeline.source_config import Lead
from weatherfm.data_pipeline.store_config import Days, Period
from weatherfm.training.run_config import CacheMode, ChannelWeights, RunConfig

_PLAIN = {
    date: "day, as `2023-01-01`",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    Any: "anything",
}
_WORDS = {
    Hours: "time span, as `6h` or `3d`",
    Lead: "time span, as `6h`, or `shortest`",
    CacheMode: "`auto`, `on` or `off`",
    ChannelWeights: "`pressure`, or channel or variable → number",
}
"""Types that are written otherwise than Python's own type of them says."""
_LIMITS = {
    annotated_types.Ge: ("at least", "ge"),
    annotated_types.Gt: ("above", "gt"),
    annotated_types.Le: ("at most", "le"),
    annotated_types.Lt: ("below", "lt"),
}


@dataclass(frozen=True)
class Setting:
    """One key of a run's file, with all that the page says of it, in Markdown."""

    key: str
    """Dotted, as on the command line: `data.regrid.method`."""
    type: str
    default: str | None
    """None where a run's file must give it."""
    text: str


@dataclass(frozen=True)
class Group:
    """The settings of one class."""

    key: str
    title: str
    text: str
    settings: list[Setting] = field(default_factory=list)


def sections() -> list[str]:
    """Keys at the top of a run's file that hold others, in its order."""
    return [name for name, info in RunConfig.model_fields.items() if _models_of(info.annotation)]


def top_settings() -> list[Setting]:
    """What stands at the top of a run's file beside the sections."""
    return [_setting(name, name, info) for name, info in RunConfig.model_fields.items() if name not in sections()]


def groups(section: str) -> list[Group]:
    """The settings of a section, those of its own first, then of each group inside it."""
    (cls,) = _models_of(RunConfig.model_fields[section].annotation)
    return list(_groups_of(cls, section, section, set()))


def page(section: str) -> str:
    """The page of a section, in Markdown."""
    own, *inner = groups(section)
    lines = [f"# Settings: {section}", "", own.text, ""]
    for one in [own, *inner]:
        if one is not own:
            lines += [f"## {one.title} {{ #{_anchor(one.title)} }}", "", one.text, ""]
        for setting in one.settings:
            lines += _lines(setting, one)
    return "\n".join(lines)


def index(examples: Mapping[str, str]) -> str:
    """The page before those of the sections: how settings are written, and whole files.

    Args:
        examples: name of a runnable file -> its text.
    """
    lines = [_OPENING, "", "| section | |", "|---|---|"]
    for name in sections():
        lines.append(f"| [`{name}`]({name}.md) | {groups(name)[0].text} |")
    lines += ["", "## At the top { #top }", ""]
    for setting in top_settings():
        lines += _lines(setting, Group("top", "top", ""))
    lines += ["## Runnable files { #files }", "", "All in `configs/`, smallest first; a test opens each.", ""]
    for name, text in examples.items():
        language = {"yaml": "yaml", "sh": "bash"}[name.rpartition(".")[2]]
        lines += [f"### {name} {{ #{_anchor(name)} }}", "", f"```{language}", text.strip(), "```", ""]
    return "\n".join(lines)


_OPENING = """# Configuration

A run is one YAML file; each of its sections has a page here, made from the settings classes that read it. Any setting
can be changed on the command line, by its key as it stands here:

    weatherfm train my_run.yaml model.depth=8 training.learning_rate=1e-3

An unknown key is refused, with the one that was probably meant; so is a value of another type or beyond its bounds,
and settings that contradict each other. Time spans carry their unit (`6h`, `3d`). `not set` means that the key may be
left out, and the text says what happens then."""


def _lines(setting: Setting, group: Group) -> list[str]:
    default = "required" if setting.default is None else f"default {setting.default}"
    if setting.default == "not set":
        default = "not set by default"
    name = setting.key.rpartition(".")[2]
    anchor = _anchor(f"{group.title}.{name}" if "kind" in group.title else setting.key)
    return [
        f"### `{setting.key}` {{ #{anchor} }}",
        "",
        f"{setting.type}  ·  {default}",
        "{ .setting }",
        "",
        setting.text,
        "",
    ]


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def _groups_of(cls: type[BaseModel], key: str, title: str, told: set[type[BaseModel]]) -> Iterator[Group]:
    """Of a class and those inside it, but for the classes that have been told before: sources are made of sources."""
    own = Group(key, title, _text_of(cls))
    inner = []
    for name, info in sorted(cls.model_fields.items(), key=lambda item: item[0] != "kind"):
        path, models = f"{key}.{name}", [model for model in _models_of(info.annotation) if model not in told]
        named = get_origin(info.annotation) is dict
        if not models or named:
            own.settings.append(_setting(path, name, info))
        path += ".NAME" if named else ""
        several, kind = len(models) > 1, "".join(title.partition(", kind:")[1:])
        told |= set(models)
        for model in models:
            heading = f"{path}, kind: {_kind_of(model)}" if several else f"{path}{kind}"
            first, *rest = _groups_of(model, path, heading, told)
            inner += [replace(first, text=" ".join([first.text, *(info.description or "").split()])), *rest]
    yield own
    yield from inner


def _setting(key: str, name: str, info: FieldInfo) -> Setting:
    whole = _with_metadata(info)
    default = None if info.is_required() else _default(whole, info.get_default(call_default_factory=True))
    words = _described(whole)
    if default not in (None, "not set") and type(None) in get_args(info.annotation):
        words += ", or `null`"
    text = info.description or ("Which source the others are of." if name == "kind" else "")
    return Setting(key, words, default, " ".join(text.split()))


def _with_metadata(info: FieldInfo) -> Any:
    annotation: Any = info.annotation
    for extra in info.metadata:
        annotation = Annotated[annotation, extra]
    return annotation


def _default(annotation: Any, value: Any) -> str:
    """As a run's file would have it."""
    if value is None:
        return "not set"
    plain = TypeAdapter(annotation).dump_python(value, mode="json")
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _described(annotation: Any) -> str:
    """What may be given, in words."""
    if words := _named(annotation):
        return words
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *given = arguments
        extras = [extra for one in given for extra in (one.metadata if isinstance(one, FieldInfo) else [one])]
        limits = [text for extra in extras if inner is not str and (text := _limit(extra))]
        return " ".join([_described(inner), *limits]) if len(limits) < 2 else _between(_described(inner), limits)
    if origin is Literal:
        return _one_of([f"`{value}`" for value in arguments])
    if origin in (Union, types.UnionType):
        return _one_of([_described(part) for part in arguments if part is not type(None)])
    if origin is list:
        return f"list of {_described(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)} {_described(arguments[0])}s"
    if origin is dict:
        return f"{_described(arguments[0])} → {_described(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Config) and annotation not in (Period, Days):
        return "settings"
    if annotation is Days:
        return "days, as `2000-2007` or `{years: 2000-2007, season: JJA}`, or a list of them"
    if annotation is Period:
        return "days, as `2008`, `2008-03`, `2000-2007` or `2000-01-01/2000-06-30`"
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    raise TypeError(f"no words for a setting of type {annotation!r}; add them to _PLAIN or _WORDS of {__name__}")


def _named(annotation: Any) -> str | None:
    """The words of an annotated type that a settings class names, which pydantic has taken apart."""
    parser = next((a for a in getattr(annotation, "__metadata__", ()) if isinstance(a, BeforeValidator)), None)
    known = {next(a for a in t.__metadata__ if isinstance(a, BeforeValidator)).func: w for t, w in _WORDS.items()}
    return known.get(parser.func) if parser else None


def _limit(extra: Any) -> str:
    for cls, (words, name) in _LIMITS.items():
        if isinstance(extra, cls):
            limit = getattr(extra, name)
            return f"{words} {limit:,}" if isinstance(limit, int) else f"{words} {limit:g}"
    return "(one or more)" if isinstance(extra, annotated_types.MinLen) else ""


def _between(noun: str, limits: list[str]) -> str:
    return f"{noun}, {' and '.join(limits)}"


def _one_of(parts: list[str]) -> str:
    unique = list(dict.fromkeys(parts))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} or {unique[-1]}"


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """Settings classes that a setting holds; a period is written as one text."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Config) and annotation not in (Period, Days) else []
    return [model for part in get_args(annotation) for model in _models_of(part)]


def _kind_of(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["kind"].annotation)[0])


def _text_of(cls: type[BaseModel]) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())
