"""Settings of forecasts and their scores."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from weatherfm.config import Config, Hours
from weatherfm.device import Device, Precision
from weatherfm.errors import InputError
from weatherfm.evaluation.ensemble_config import Members, PerturbationConfig
from weatherfm.evaluation.regions import parse_region

_log = logging.getLogger(__name__)

_MOST_LEADS = 20_000


def _expand_leads(value: Any) -> Any:
    """Write out ranges as `24h..365d/24h` among lead times."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        return value
    return [lead for item in items for lead in (_range_of(item) if isinstance(item, str) and ".." in item else [item])]


def _range_of(text: str) -> list[str]:
    span = r"\s*(\d+)\s*([hd])\s*"
    match = re.fullmatch(rf"{span}\.\.{span}/{span}", text)
    if match is None:
        raise ValueError(f"write a range of lead times as 24h..365d/24h (first..last/step), not {text!r}")
    first, last, step = (int(match[i]) * (24 if match[i + 1] == "d" else 1) for i in (1, 3, 5))
    if step < 1 or last < first or (last - first) // step >= _MOST_LEADS:
        raise ValueError(f"the range of lead times {text!r} has no step, ends before it starts or has too many")
    return [f"{hours}h" for hours in range(first, last + 1, step)]


def _init_text(value: Any) -> Any:
    """YAML reads 2018 as a number and 2018-10-01 as a date; a list means its items."""
    if isinstance(value, list | tuple):
        return ",".join(str(_init_text(item)) for item in value)
    if isinstance(value, date):  # also a datetime
        return value.isoformat()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _known_region(text: str) -> str:
    parse_region(text)
    return text


RegionName = Annotated[str, AfterValidator(_known_region)]
_STORAGE_OPTIONS: Any = Field({}, exclude=True, repr=False)


class ForecastConfig(Config):
    """Which forecasts are made from the trained weights."""

    later = frozenset({"members", "seed", "noise_scale", "dropout", "perturbation"})

    lead_times: Annotated[list[Hours], BeforeValidator(_expand_leads)] = Field(default=[24], min_length=1)
    """Lead times written to disk, ascending; many as `24h..365d/24h`."""
    mode: Literal["direct", "rollout", "mean"] = "direct"
    """direct: one model step to each lead time; rollout: steps of `rollout_step` fed back into the model; mean: the
    average of both, in normalised units."""
    rollout_step: Hours = 24
    """Length of a step that is fed back; lead times are multiples of it."""
    inputs: Literal["persist", "read"] = "persist"
    """Of a rollout's later steps, the channels that are inputs alone (`model.outputs`): as they were at the initial
    time, or read at the time that is reached, as for prescribed sea surface temperatures."""
    init_every: Hours = 24
    """Distance between initial times in a period."""
    init: Annotated[str | None, BeforeValidator(_init_text)] = None
    """Initial times: days (2018, 2018-10-01, 2018-10-01/2018-10-31), hours (2018-10-01T06), several with commas, or
    latest; without it, those of the test period that have the truth to score them with."""
    allow_missing: bool = False
    """Forecast also from states that lack channels of the model, with these absent: they are predicted like the others.
    For weights that were trained with `channel_sampling`."""
    members: Members = None
    """Make an ensemble: 16 members, or weights files, or `{weights: [a, b], each: 4}`; null: a single forecast, by a
    model with noise without it."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of what is random in members; the same again gives the same forecast."""
    noise_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Size of members' noise (`model.noise`), 1 as in training. More of it spreads them more: members that are too sure
    on days that are not learned from can be mended so, by what validation days ask for."""
    dropout: bool = False
    """Members differ by dropout and drop path, left on as in training; for weights that were trained with them."""
    perturbation: PerturbationConfig | None = None
    """Members start from states that differ; null: from the same."""
    batch_size: int = Field(16, ge=1, le=1_000_000)
    """Samples, of initial times and members, that go through the model at once."""
    device: Device = "auto"
    """auto: a GPU where there is one, else the CPU; or a PyTorch device such as cuda:1."""
    precision: Precision = "auto"
    """Of matrix products. auto: bfloat16 on a GPU that has it, else float32."""
    storage_options: dict[str, Any] = _STORAGE_OPTIONS
    """What opens a private store of states that --store gives by its address, as `source.storage_options`. Never
    written into forecasts, logs or messages."""

    @model_validator(mode="after")
    def _consistent(self) -> ForecastConfig:
        if min(self.lead_times) <= 0 or self.lead_times != sorted(set(self.lead_times)):
            listed = ", ".join(f"{hours}h" for hours in self.lead_times)
            raise InputError(f"lead_times must be positive and ascend, each once; got [{listed}]")
        for name in ("rollout_step", "init_every"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}h; write e.g. 24h")
        if self.inputs == "read" and self.mode == "direct":
            raise InputError("forecast.inputs: read is for later steps of a rollout; set mode rollout, or leave it out")
        if self.mode != "direct" and (odd := [h for h in self.lead_times if h % self.rollout_step]):
            raise InputError(
                f"lead times {', '.join(f'{h}h' for h in odd)} are not multiples of rollout_step "
                f"{self.rollout_step}h; change either, or use mode direct"
            )
        return self

    @property
    def model_steps(self) -> list[int]:
        """Lead times in hours that the model itself is asked for."""
        direct = [] if self.mode == "rollout" else self.lead_times
        return sorted({*direct, *([] if self.mode == "direct" else [self.rollout_step])})


class EvaluationConfig(Config):
    """How forecasts are scored."""

    later = frozenset({"ridge_regression", "ridge_times", "ensemble_mean", "series"})
    regions: list[RegionName] | None = Field(None, min_length=1)
    """Named regions (global, tropics, europe, ...), any of them with _land or _sea, or boxes as alps:48/5/44/16
    (north/west/south/east); without it, those that suit the grid."""
    by: list[Literal["season", "month"]] = ["season"]
    """Scores of every season or month of the valid time, beside those of all cases."""
    events: list[str] = []
    """Thresholds for the Brier score, as "t2m > 303.15" or "tp > 0.001", in canonical units."""
    damped_persistence: bool = True
    """Score damped persistence too, fitted on the training days."""
    ridge_regression: bool = False
    """Score ridge regression on the state at the initial time too, fitted on the training days, with the spread of its
    errors: a reference that knows the day. It holds the training days' fields in memory."""
    ridge_times: list[Hours] = Field(default=[0], min_length=1)
    """Times of the states that ridge regression knows, 0h and before, as [-24h, 0h]: those of the model
    (`model.input_times`) for a fair comparison."""
    ensemble_mean: bool = True
    """Of every ensemble NAME score its mean as a single forecast too, as NAME_mean."""
    probabilistic_climatology: bool | None = None
    """Score an ensemble of training days too; without it, where an ensemble forecast is scored."""
    seeps: bool = True
    """Score precipitation (tp) by SEEPS where it is forecast."""
    spectra: bool = True
    """Energy spectra of forecasts and truth."""
    series: bool = True
    """Keep the scores of every case too, for tests between files: four bytes a forecast, initial time, lead time,
    region and channel before compression."""
    storage_options: dict[str, Any] = _STORAGE_OPTIONS
    """What opens private forecasts by their addresses, as `source.storage_options`; one for all that are scored. Never
    written into scores, logs or messages."""
    headline: list[str] = []
    """Channels the report shows first; without it, those of z500 t850 t2m msl u10 v10 that exist, else the
    first four."""

    @model_validator(mode="before")
    @classmethod
    def _without_resamples(cls, given: Any) -> Any:
        """Files of before name the size of a bootstrap; intervals have a closed form now."""
        if not isinstance(given, dict) or "resamples" not in given:
            return given
        _log.warning("evaluation.resamples is no longer used: intervals of skill need no bootstrap; leave it out")
        return {key: value for key, value in given.items() if key != "resamples"}

    @model_validator(mode="after")
    def _times_of_ridge_regression(self) -> EvaluationConfig:
        given = ", ".join(f"{hours}h" for hours in self.ridge_times)
        if max(self.ridge_times) > 0 or len(set(self.ridge_times)) < len(self.ridge_times):
            raise InputError(f"evaluation.ridge_times are 0h and before, each once, as [-24h, 0h]; got [{given}]")
        if self.ridge_times != [0] and not self.ridge_regression:
            raise InputError(
                f"evaluation.ridge_times [{given}] are for ridge regression, which is not scored; set "
                "evaluation.ridge_regression=true, or leave them out"
            )
        return self


def require_headline(wanted: Sequence[str], scored: Sequence[str]) -> None:
    """Refuse channels to show first that are not scored.

    Raises:
        InputError: naming them.
    """
    if missing := [channel for channel in wanted if channel not in scored]:
        raise InputError(f"headline names {', '.join(missing)}, which were not scored; scored are {', '.join(scored)}")
