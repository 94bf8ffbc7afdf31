"""Forecasts from a trained model, written to disk: directly to each lead time, or by feeding its own output back.

Legend: I initial time, M member, C channel, H lat, W lon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from weatherfm.data_pipeline.store.states import States, as_states, require_fit
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.earth.domain import Domain
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import ForecastConfig
from weatherfm.evaluation.forecasting.ensemble import Ensemble
from weatherfm.evaluation.forecasting.forecaster import require_finite_forecast, require_inputs_to_read
from weatherfm.evaluation.forecasting.init_times import choose_init_times, forecast_init_times, required_input_times
from weatherfm.evaluation.forecasting.missing_channels import cure_of
from weatherfm.evaluation.forecasting.processes import Processes
from weatherfm.evaluation.forecasting.provenance import ensemble_record
from weatherfm.evaluation.forecasting.threads import WriteBehind
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter
from weatherfm.file_lock import hold_output
from weatherfm.model.model import WeatherViT
from weatherfm.model.roles import find_roles

__all__ = ["choose_init_times", "forecast_init_times", "make_forecast", "required_input_times"]


def make_forecast(
    model: WeatherViT | Sequence[WeatherViT],
    place: Store | States,
    init_times: np.ndarray,
    config: ForecastConfig,
    path: str | Path,
    provenance: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    processes: Processes | None = None,
    domain: Sequence[Domain] | None = None,
) -> Path:
    """Forecast from every initial time to every lead time and write it (`weatherfm.evaluation.forecasts.writer`).

    Interrupted and called again with the same arguments it goes on, also with other processes; a finished forecast is
    left as it is. States are read and forecasts written while the model computes.

    Args:
        model: on its device; it may be split over several. A list of models makes an ensemble.
        place: holds the states at the input times; nothing else is asked of it.
        init_times: datetime64, ascending.
        config: lead times, mode, members, batch size and precision.
        path: folder to write, by custom `forecast.zarr`.
        provenance: JSON-able; at least `weights_sha256` where there is a weights file, `training` of the weights, and
            `name` where scores shall not call it `model`. Of several models a list.
        processes: the processes that make it together; all must call this.
        domain: of the whole of each model, where they are split.

    Returns:
        The path.

    Raises:
        InputError: model and states do not fit, an input time is missing, the path holds something else, or the model
            predicts a value that is not finite (named by channel, initial time and lead time).
    """
    processes, states = processes or Processes(), as_states(place)
    models = list(model) if isinstance(model, Sequence) else [model]
    origins = [provenance] if isinstance(provenance, Mapping) else list(provenance)
    domains = [one.domain for one in models] if domain is None else list(domain)
    for one, whole, told in zip(models, domains, origins, strict=True):
        roles = find_roles(one.config, whole.channels)
        require_inputs_to_read(roles, config)
        require_fit(whole.grid, roles.inputs, states, cure_of(config, told.get("training", {})))
    init_times = _ascending(init_times)
    run = Ensemble(models, domains, states, config, processes)
    run.check_inputs(init_times)
    contents = ForecastContents(
        run.channels,
        domains[0].grid,
        init_times,
        tuple(config.lead_times),
        ensemble_record(models, domains, states, config, origins, run.dtype),
        run.numbers,
        processes.parts,
        run.masks,
    )
    _make(run, path, contents, processes)
    return Path(path)


def _make(run: Ensemble, path: str | Path, contents: ForecastContents, processes: Processes) -> None:
    """Have the output for these processes alone, and write what it lacks."""
    with ExitStack() as held:
        writer = processes.first_then_all(partial(_open_writer, path, contents, held if processes.first else None))
        _write_all(run, writer, processes, processes.first_does(writer.remaining))
        processes.wait()
        if processes.first:
            writer.finish()


def _ascending(init_times: np.ndarray) -> np.ndarray:
    init_times = np.asarray(init_times).astype("datetime64[s]")
    if not len(init_times) or not (np.diff(init_times) > np.timedelta64(0, "s")).all():
        raise InputError(f"initial times must ascend, each once, at least one; got {len(init_times)}")
    return init_times


def _open_writer(path: str | Path, contents: ForecastContents, held: ExitStack | None) -> ForecastWriter:
    """The writer, or what is wrong with the path: nothing has been computed yet. `held` gets the lock of the output."""
    try:
        if held is not None:
            held.enter_context(hold_output(Path(path)))
        return ForecastWriter(path, contents)
    except OSError as error:
        raise InputError(
            f"the forecast cannot be written to {path} ({error.strerror}: {error.filename}); choose another path "
            "(--output), or mend that"
        ) from None


def _write_all(run: Ensemble, writer: ForecastWriter, processes: Processes, blocks: list[slice]) -> None:
    """Make and write this process's share of some blocks."""
    config, init_times = run.config, writer.contents.init_times
    samples = writer.block * run.size
    together = max(1, min(config.batch_size // samples, -(-len(blocks) // processes.parts)))
    groups = [blocks[i : i + together] for i in range(0, len(blocks), together)]
    own, counted = processes.deal_out(groups)
    size = together * writer.block if processes.in_step else 0
    inits = [_padded(np.concatenate([init_times[block] for block in group]), size) for group in own]
    total = sum(block.stop - block.start for group in own[:counted] for block in group) * len(config.lead_times)
    with (
        WriteBehind() as behind,
        tqdm(total=total, desc="forecast", unit="field", disable=None if processes.first else True) as bar,
        closing(run.make(inits)) as stream,
    ):
        for made in stream:
            processes.beat()
            if made.group < counted:
                if processes.writes:
                    behind.tell(partial(_write, writer, own[made.group], made.lead, made.fields))
                bar.update(sum(block.stop - block.start for block in own[made.group]))


def _padded(inits: np.ndarray, size: int) -> np.ndarray:
    """At least `size` initial times, the last one repeated: ranks in step all have as many."""
    return np.concatenate([inits, np.repeat(inits[-1:], max(0, size - len(inits)))])


def _write(writer: ForecastWriter, blocks: Sequence[slice], lead: int, fields: Tensor) -> None:
    """Write fields [I, M, C, H, W] of some blocks at one lead time; after the last of these the blocks are done."""
    contents, first = writer.contents, 0
    init_times = np.concatenate([contents.init_times[block] for block in blocks])
    fields = fields[: len(init_times)]
    lead_time = contents.lead_times[lead]
    require_finite_forecast(fields, contents.channels, contents.numbers, init_times, lead_time, contents.masks)
    values = fields.cpu().numpy()
    for block in blocks:
        count = block.stop - block.start
        part = values[first : first + count]
        writer.write(block, lead, part[:, 0] if contents.numbers is None else part)
        first += count
        if lead == len(contents.lead_times) - 1:
            writer.block_done(block)
