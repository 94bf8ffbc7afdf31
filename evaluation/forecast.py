"""Forecasts from a trained model: directly to each lead time, or by feeding its own output back.

Legend: B initial time, T input time, C channel, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from weatherfm import __version__
from weatherfm.data_pipeline.config import Period
from weatherfm.data_pipeline.loader import eligible_init_times
from weatherfm.data_pipeline.store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.config import ForecastConfig
from weatherfm.evaluation.forecasts.store import ForecastRequest, ForecastWriter
from weatherfm.forcings import forcing_fields
from weatherfm.model import WeatherViT


def forecast_init_times(
    store: Store, config: ForecastConfig, input_times: Sequence[int], period: Period | None = None
) -> np.ndarray:
    """Initial times every `config.init_every` for which the store has all inputs and the truth at every lead time.

    Args:
        store: where inputs and truth are.
        config: lead times and mode.
        input_times: hours (<= 0) of the model's input states.
        period: days that hold all of it; without it, the store's test period.

    Returns:
        datetime64[s], ascending; counted from the first time of the period on, so that models with other input times
        share their initial times but for the first days.

    Raises:
        InputError: no test period, or no initial time in it.
    """
    period = period or store.periods.get("test")
    if period is None:
        raise InputError(f"{store.path} names no test period; set data.test and prepare again, or give initial times")
    inits = eligible_init_times(store, period, required_input_times(input_times, config), config.lead_times)
    if len(inits):
        hours = (inits - store.times[period.contains(store.times)][0]) // np.timedelta64(1, "h")
        inits = inits[hours % config.init_every == 0]
    if not len(inits):
        raise InputError(
            f"no initial time in {period} has its inputs and lead times up to {config.lead_times[-1]}h within the "
            f"period, every {config.init_every}h; lengthen the period or shorten the lead times"
        )
    return inits


def required_input_times(input_times: Sequence[int], config: ForecastConfig) -> list[int]:
    """Hours (<= 0) of the analysed states a forecast starts from; a rollout's later steps may need more than one step.

    Raises:
        InputError: a rollout whose steps do not land on the earlier times the model wants to see.
    """
    if config.mode == "direct" or config.lead_times[-1] == config.rollout_step:
        return sorted(input_times)
    if odd := [hours for hours in input_times if hours % config.rollout_step]:
        raise InputError(
            f"the model sees input times {', '.join(f'{h}h' for h in odd)}, which a rollout in steps of "
            f"{config.rollout_step}h does not produce; choose a rollout_step that divides them, or mode direct"
        )
    starts = range(0, config.lead_times[-1], config.rollout_step)
    return sorted({start + hours for start in starts for hours in input_times if start + hours <= 0})


def make_forecast(
    model: WeatherViT,
    store: Store,
    init_times: np.ndarray,
    config: ForecastConfig,
    path: str | Path,
    provenance: Mapping[str, Any],
) -> Path:
    """Forecast from every initial time to every lead time and write it (`weatherfm.evaluation.forecasts.store`).

    Interrupted and called again with the same arguments it goes on; a finished forecast is left as it is.

    Args:
        model: on its device; it may be split over several.
        store: holds the states at the input times.
        init_times: datetime64, ascending.
        config: lead times, mode and batch size.
        path: folder to write, by custom `forecast.zarr`.
        provenance: JSON-able; at least `weights_sha256` where there is a weights file, and `name` where scores shall
            not call it `model`.

    Returns:
        The path.

    Raises:
        InputError: model and store do not fit, an input time is missing, the path holds something else, or the model
            predicts a value that is not finite (named by channel, initial time and lead time).
    """
    _check_fit(model, store)
    init_times = np.asarray(init_times).astype("datetime64[s]")
    if not len(init_times) or not (np.diff(init_times) > np.timedelta64(0, "s")).all():
        raise InputError(f"initial times must ascend, each once, at least one; got {len(init_times)}")
    record = {
        **provenance,
        "code_version": __version__,
        "model": model.config.model_dump(mode="json"),
        "store_source": store.manifest.get("source"),
        "simulated": bool(store.simulated),
        "mode": config.mode,
    } | ({"rollout_step_hours": config.rollout_step} if config.mode == "rollout" else {})
    run = _Run(model, store, config)
    run.check_inputs(init_times)
    channels = model.domain.channels
    writer = ForecastWriter(
        path, ForecastRequest(channels, model.domain.grid, init_times, tuple(config.lead_times), record)
    )
    total = len(init_times) * len(config.lead_times)
    left = sum(block.stop - block.start for block in writer.remaining()) * len(config.lead_times)
    with tqdm(total=total, initial=total - left, desc="forecast", unit="field", disable=None) as bar:
        for block in writer.remaining():
            inits = init_times[block]
            for lead_index, fields in enumerate(run.fields(inits)):
                _check_finite(fields, channels, inits, config.lead_times[lead_index])
                writer.write(block, lead_index, fields)
                bar.update(len(inits))
            writer.block_done()
    writer.finish()
    return Path(path)


class _Run:
    """A model about to forecast from a store."""

    def __init__(self, model: WeatherViT, store: Store, config: ForecastConfig) -> None:
        self.model, self.store, self.config = model, store, config
        self.input_times = list(model.config.input_times)
        self.required = required_input_times(self.input_times, config)
        self.device = next((x.device for x in (*model.parameters(), *model.buffers())), torch.device("cpu"))

    def check_inputs(self, init_times: np.ndarray) -> None:
        """Refuse initial times whose inputs the store lacks, before anything is computed."""
        for hours in self.required:
            self.store.index_of(init_times + np.timedelta64(hours, "h"))

    def fields(self, init_times: np.ndarray) -> Iterator[np.ndarray]:
        """[B, C, H, W] float32 in physical units, for one lead time after the other."""
        states = {hours: self._analysed(init_times, hours) for hours in self.required}
        steps = self._rollout if self.config.mode == "rollout" else self._direct
        training = self.model.training
        self.model.eval()
        try:
            for state in steps(init_times, states):
                yield self._denormalized(state)
        finally:
            self.model.train(training)

    def _direct(self, init_times: np.ndarray, states: dict[int, Tensor]) -> Iterator[Tensor]:
        for lead_time in self.config.lead_times:
            yield self._step(init_times, states, 0, lead_time)

    def _rollout(self, init_times: np.ndarray, states: dict[int, Tensor]) -> Iterator[Tensor]:
        """`states`: hours after the initial time -> normalised [B, C, H, W]; grows by a step, forgets its tail."""
        step = self.config.rollout_step
        for start in range(0, self.config.lead_times[-1], step):
            states[start + step] = self._step(init_times, states, start, step)
            for hours in [h for h in states if h < start + step + min(self.input_times)]:
                del states[hours]
            if start + step in self.config.lead_times:
                yield states[start + step]

    @torch.inference_mode()
    def _step(self, init_times: np.ndarray, states: dict[int, Tensor], start: int, lead_time: int) -> Tensor:
        """From `start` hours after the initial times, `lead_time` hours on; normalised [B, C, H, W] on the CPU."""
        model, grid = self.model, self.model.domain.grid
        times = init_times + np.timedelta64(start, "h")
        out = []
        for first in range(0, len(times), self.config.batch_size):
            part = slice(first, first + self.config.batch_size)
            history = torch.stack([states[start + hours][part] for hours in self.input_times], dim=1).to(self.device)
            forcings = torch.from_numpy(forcing_fields(model.forcings, times[part], grid)).to(self.device)
            lead = torch.full((len(history),), lead_time, device=self.device)
            out.append(model(history, forcings, lead).float().cpu())
        return torch.cat(out)

    @torch.inference_mode()
    def _analysed(self, init_times: np.ndarray, hours: int) -> Tensor:
        times = init_times + np.timedelta64(hours, "h")
        fields = self.store.read(self.store.index_of(times), self.model.domain.channels)
        return self.model.normalize(torch.from_numpy(fields).to(self.device)).cpu()

    @torch.inference_mode()
    def _denormalized(self, state: Tensor) -> np.ndarray:
        return self.model.denormalize(state.to(self.device)).cpu().numpy()


def _check_fit(model: WeatherViT, store: Store) -> None:
    missing = [channel for channel in model.domain.channels if channel not in store.channels]
    if missing:
        raise InputError(
            f"the model needs {', '.join(missing)}, which {store.path} lacks (it has {', '.join(store.channels)}); "
            "forecast from a store prepared for this model"
        )
    if model.domain.grid != store.grid:
        raise InputError(
            f"the model's grid is {model.domain.grid}, that of {store.path} is {store.grid}; "
            "forecast from a store on the model's grid"
        )


def _check_finite(fields: np.ndarray, channels: Sequence[str], init_times: np.ndarray, lead_time: int) -> None:
    finite = np.isfinite(fields).all((2, 3))  # [B, C]
    if finite.all():
        return
    init, channel = np.argwhere(~finite)[0]
    raise InputError(
        f"the model predicts a value that is not finite: {channels[channel]} from {init_times[init]} at {lead_time}h "
        f"({(~finite).sum()} of {finite.size} fields); check the store with `weatherfm verify`, "
        "and train on, or with a smaller learning rate, where its data are sound"
    )
