"""A store in memory with the face of `store.training_store.Store`, for tests of what reads stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from weatherfm.data_pipeline.config import Period
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import Grid, regular_grid
from weatherfm.errors import InputError
from weatherfm.model.model import ModelConfig

CHANNELS = ("z500", "t850", "t500", "t2m")
EUROPE = Grid(np.arange(60, 29, -3.0), np.arange(-20, 15, 5.0))


def days(first: str, count: int, step_hours: int = 24) -> np.ndarray:
    return np.datetime64(first, "s") + np.arange(count) * np.timedelta64(step_hours, "h")


class SmallStore:
    """Red noise around a climatology that turns with the day of year."""

    path = Path("small.zarr")
    static_names: tuple[str, ...] = ()
    simulated = True
    climatology_window = 61

    def __init__(self, grid: Grid | None = None, count: int = 20, step_hours: int = 24, seed: int = 0) -> None:
        self.grid = grid or regular_grid((8, 16))
        self.static = np.zeros((0, *self.grid.shape), np.float32)
        self.channels, self.step_hours = CHANNELS, step_hours
        self.times = days("2020-01-01", count, step_hours)
        self.climatology_period = Period.model_validate("2010-2019")
        self.periods = {
            "train": self.climatology_period,
            "validation": None,
            "test": Period.model_validate("2020-01-01/2020-01-31"),
        }
        self.manifest = {"source": {"kind": "planet", "simulated": True}}
        self.mean = np.array([5.4e4, 280.0, 250.0, 285.0])
        self.std = np.array([3e3, 12.0, 10.0, 15.0])
        self.tendency_std = self.std / 3
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((count, len(CHANNELS), *self.grid.shape))
        for i in range(1, count):
            noise[i] = 0.8 * noise[i - 1] + 0.6 * noise[i]
        spread = self.std[:, None, None]
        self.state = (self._normal(self.times) + spread * noise).astype(np.float32)
        self.reads: list[np.datetime64] = []

    def _normal(self, times: np.ndarray) -> np.ndarray:
        day = (times - np.datetime64("2020-01-01")) / np.timedelta64(1, "D")
        season = np.sin(2 * np.pi * day / 365)[:, None, None, None]
        warmth = np.cos(np.deg2rad(self.grid.latitude))[:, None]
        return self.mean[:, None, None] + self.std[:, None, None] * (season + warmth + np.zeros(self.grid.shape))

    def index_of(self, times: np.ndarray) -> np.ndarray:
        absent = times[~np.isin(times, self.times)]
        if len(absent):
            raise InputError(f"{self.path} lacks {absent[0]}; choose other times")
        return np.searchsorted(self.times, times)

    def read(self, time_indices, channels=None) -> np.ndarray:
        self.reads += list(self.times[time_indices])
        return self.state[time_indices][:, self._index(channels)]

    def climatology_at(self, times: np.ndarray, channels=None) -> np.ndarray:
        return self._normal(times).astype(np.float32)[:, self._index(channels)]

    def domain(self, channels=None) -> Domain:
        index = self._index(channels)
        statistics = (self.mean[index], self.std[index], self.tendency_std[index])
        return Domain(tuple(channels or self.channels), self.grid, *statistics)

    def _index(self, channels) -> list[int]:
        return [self.channels.index(c) for c in channels or self.channels]


class TestModel(nn.Module):
    """A model with a rule instead of weights: `rule(history [B, T, C, H, W], lead [B, 1, 1, 1])`, normalised."""

    __test__ = False

    def __init__(self, domain: Domain, rule, input_times: tuple[str, ...] = ("0h",), forcings=("latitude",)) -> None:
        super().__init__()
        self.domain, self.rule = domain, rule
        self.config = ModelConfig(input_times=list(input_times), forcings=list(forcings))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.as_tensor(getattr(domain, name)).float()[:, None, None])
        self.forcings = tuple(forcings)
        self.calls: list[int] = []
        self.given_forcings: list[torch.Tensor] = []

    def normalize(self, state):
        return (state - self.mean) / self.std

    def denormalize(self, state):
        return state * self.std + self.mean

    def forward(self, history, forcings, lead_time_hours):
        assert not self.training
        assert forcings.shape[1] == len(self.forcings)
        self.calls.append(int(lead_time_hours[0]))
        self.given_forcings.append(forcings)
        return self.rule(history, lead_time_hours.float()[:, None, None, None])


def identity(history, lead):
    """Persistence (of the first input time)."""
    return history[:, 0]


def drift(history, lead):
    """Every value rises by one standard deviation a day."""
    return history[:, 0] + lead / 24
