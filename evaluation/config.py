"""Settings of forecasts and their scores."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from weatherfm.config import Config, Hours
from weatherfm.errors import InputError


class ForecastConfig(Config):
    """Which forecasts are made from the trained weights."""

    lead_times: list[Hours] = Field(default=[24], min_length=1)
    """Lead times written to disk, ascending."""
    mode: Literal["direct", "rollout"] = "direct"
    """direct: one model step to each lead time; rollout: steps of `rollout_step` fed back into the model."""
    rollout_step: Hours = 24
    init_every: Hours = 24
    """Distance between initial times in the test period."""
    batch_size: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> ForecastConfig:
        given = ", ".join(f"{hours}h" for hours in self.lead_times)
        if min(self.lead_times) <= 0 or self.lead_times != sorted(set(self.lead_times)):
            raise InputError(f"lead_times must be positive and ascend, each once; got [{given}]")
        for name in ("rollout_step", "init_every"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}h; write e.g. 24h")
        if self.mode == "rollout" and (odd := [h for h in self.lead_times if h % self.rollout_step]):
            raise InputError(
                f"lead times {', '.join(f'{h}h' for h in odd)} are not multiples of rollout_step "
                f"{self.rollout_step}h; change either, or use mode direct"
            )
        return self


class EvaluationConfig(Config):
    """How forecasts are scored."""

    regions: list[str] | None = None
    """Named regions (global, tropics, europe, ...), any of them with _land or _sea, or boxes as alps:48/5/44/16
    (north/west/south/east); without it, those that suit the grid."""
    by: list[Literal["season", "month"]] = ["season"]
    """Scores of every season or month of the valid time, beside those of all cases."""
    events: list[str] = []
    """Thresholds for the Brier score, as "t2m > 303.15" or "tp > 0.001", in canonical units."""
    damped_persistence: bool = True
    """Score damped persistence too, fitted on the training days."""
    probabilistic_climatology: bool | None = None
    """Score an ensemble of training days too; without it, where an ensemble forecast is scored."""
    seeps: bool = True
    """Score precipitation (tp) by SEEPS where it is forecast."""
    spectra: bool = True
    """Energy spectra of forecasts and truth."""
    resamples: int = Field(1000, ge=100)
    """Of the block bootstrap, for the intervals of skill."""
    headline: list[str] = []
    """Channels the report shows first; without it, those of z500 t850 t2m msl u10 v10 that exist, else the
    first four."""
