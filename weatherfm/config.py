"""Strict typed settings: the base class, time spans written as `24h`, and messages that name the cure."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from weatherfm.errors import InputError, clipped


class Config(BaseModel):
    """Base of every settings class: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()
    """Settings that came after stores, weights and checkpoints were first written: they are recorded where they differ
    from their default, so that what was made without them is still the same."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_none_of_truth(cls, given: Any) -> Any:
        """Python takes `true` for 1."""
        for key, value in given.items() if isinstance(given, dict) else ():
            kinds = _kinds_in(cls.model_fields[key].annotation) if key in cls.model_fields else set()
            if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
                raise InputError(f"{key} is a number, not {str(value).lower()}")
        return given

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        """A name that stands twice in a list is a slip of the pen, and one of the two would be idle."""
        for key in type(self).model_fields:
            value = getattr(self, key)
            texts = [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
            if twice := [name for name, count in Counter(texts).items() if count > 1]:
                raise InputError(f"{key} repeat {', '.join(map(clipped, twice[:_MOST_SHOWN]))}; name each once")
        return self

    @model_serializer(mode="wrap")
    def _record(self, usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = usual(self)
        default = {key: type(self).model_fields[key].get_default(call_default_factory=True) for key in self.later}
        return {k: v for k, v in told.items() if k not in default or getattr(self, k) != default[k]}


def _parse_hours(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([+-]?\d+)\s*(h|d)\s*", value)):
        return int(match[1]) * (24 if match[2] == "d" else 1)
    if isinstance(value, bool) or not isinstance(value, int) or value != 0:
        raise ValueError("write a whole time span with its unit, such as 6h or 3d")
    return value


Hours = Annotated[int, BeforeValidator(_parse_hours), PlainSerializer(lambda hours: f"{hours}h", when_used="json")]
"""A time span in hours; written `6h`, `-24h` or `3d` in YAML and JSON."""
Span = Annotated[Hours, Field(gt=0)]
"""A time span above 0h."""

SECRET = "storage_options"
"""The setting that no message shows."""
_MOST_SHOWN = 8
"""Problems that one message tells."""
_KNOWN = "; known here: "
_LONGEST = 600
"""Characters of one of them."""

SettingsT = TypeVar("SettingsT", bound=Config)


def parse_settings(cls: type[SettingsT], data: Any, origin: str) -> SettingsT:
    """Check plain data (from YAML or JSON) against a settings class.

    Raises:
        InputError: one line a problem, each with its key, what was given and what to do; `origin` names the file.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        told = [clipped(_describe(cls, problem), _LONGEST) for problem in found[:_MOST_SHOWN]]
        hints = [text.partition(_KNOWN)[2] for text in told]  # what is known in a section is said once
        problems = [
            text.partition(_KNOWN)[0] if hint and hint in hints[:place] else text
            for place, (text, hint) in enumerate(zip(told, hints, strict=True))
        ]
        problems += [f"and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
        raise InputError(f"{origin}: " + "\n  ".join(problems)) from None


def _describe(cls: type[BaseModel], problem: Any) -> str:
    path = [clipped(str(part)) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        inside = [f"{name}.{path[-1]}" for name in known if path[-1] in _fields_at(cls, [*path[:-1], name])]
        close = inside or get_close_matches(path[-1], known, n=1, cutoff=0.5)
        parent = ".".join([*path[:-1], ""])
        hint = f"did you mean {parent}{close[0]}?" if close else f"{_KNOWN[2:]}{', '.join(known)}"
        return f"unknown key {key}; {hint}"
    if problem["type"] == "missing":
        return f"{key} is missing; set it in the file or as {key}=VALUE"
    message = problem["msg"].removeprefix("Value error, ")
    given = "***" if SECRET in path else shown(problem["input"])
    return f"{key or 'settings'}: {message[0].lower()}{message[1:]} (got {given})"


class _Short(reprlib.Repr):
    """Settings as messages may show them: shortly, and without keys to private stores."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict({key: "***" if key == SECRET else part for key, part in x.items()}, level)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 10
_SHORT.maxlevel = 4


def shown(value: Any) -> str:
    """A value as messages quote it, a hundred characters of each part at most."""
    return _SHORT.repr(value)


def _fields_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the settings at a key path; a union is narrowed by the tag pydantic puts into the path."""
    candidates: list[type[BaseModel]] = [cls]
    for part in path:
        inner = [c.model_fields[part].annotation for c in candidates if part in c.model_fields]
        if inner:
            candidates = [model for annotation in inner for model in _models_in(annotation)]
        elif tagged := [c for c in candidates if part in _kinds_of(c)]:
            candidates = tagged  # of a discriminated union; any other part is a place in a list or a name of a dict
    return sorted({name for candidate in candidates for name in candidate.model_fields})


def _kinds_of(cls: type[BaseModel]) -> tuple[Any, ...]:
    """Values that tell a class of a discriminated union from the others."""
    return get_args(cls.model_fields["kind"].annotation) if "kind" in cls.model_fields else ()


def _kinds_in(annotation: Any) -> set[Any]:
    """Types that a value may have; those of lists not."""
    if get_origin(annotation) in (list, tuple, dict):
        return set()
    parts = get_args(annotation)
    return {kind for part in parts for kind in _kinds_in(part)} if parts else {annotation}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
