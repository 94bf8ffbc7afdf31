"""Does a layout compute one rank's function? The same optimizer steps on both, and all that is in them compared.

Rank 0 takes them alone first, in float64 and in the run's precision, while the others wait; then all take them
together. Weights are moved off their initial values (`stirring`), the samples are the run's first.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import torch
from torch import Tensor

from weatherfm.device import choose_precision
from weatherfm.model.model import WeatherViT
from weatherfm.training.begin import Begun, assemble, feed
from weatherfm.training.feeding.ready_batches import ReadyBatch
from weatherfm.training.parallel.mesh import Mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.steps import Steps
from weatherfm.training.upkeep.stop_signals import StopSignals
from weatherfm.training.validating import evidence
from weatherfm.training.validating.bounds import FLOAT64, Bound, in_precision, judge
from weatherfm.training.validating.comparison import Comparison, compare, distance
from weatherfm.training.validating.evidence import Evidence, Key, Recorder
from weatherfm.training.validating.shortened import quieten, with_changes
from weatherfm.training.validating.stirring import stir
from weatherfm.training.validating.table import Row

Alive = Callable[[], None]
"""Called now and then: this rank is at work."""

_READ = {"samples read": evidence.SAMPLES, "weights at the start": evidence.START}
_COMPUTED = {
    "outputs": evidence.OUTPUTS,
    "loss": evidence.LOSSES,
    "gradients": evidence.GRADIENTS,
    "weights after a step": evidence.WEIGHTS,
}


def function_rows(config: RunConfig, mesh: Mesh | None, device: torch.device, first: bool, alive: Alive) -> list[Row]:
    """Compare on all ranks together; the rows are on rank 0, which alone knows all bounds.

    Args:
        config: a run that one rank can take, without random regularisation.
        mesh: of the layout; None: one device.
        device: of this rank.
        first: this is rank 0.
        alive: called now and then.

    Raises:
        InputError: a loss or gradient that is not finite.
    """
    dtype = choose_precision(config.training.precision, device)
    exact, rounding = _alone(config, device, alive) if first else (None, {})
    rows = []
    comparison = compare(take_steps(config, mesh, device, True, alive), exact, alive)
    rows += [judge(check, kind, comparison, Bound(0.0)) for check, kind in _READ.items()]
    rows += _computed("float64", comparison, Bound(FLOAT64))
    comparison = compare(take_steps(config, mesh, device, False, alive), exact, alive)
    name = "tf32" if config.training.precision == "tf32" else str(dtype).removeprefix("torch.")
    return rows + _computed(name, comparison, in_precision(rounding))


def _computed(precision: str, comparison: Comparison, bound: Bound) -> list[Row]:
    rounds = bool(bound.rounding)
    return [
        judge(f"{check}, {precision}", kind, comparison, bound, together=rounds and kind == evidence.WEIGHTS)
        for check, kind in _COMPUTED.items()
    ]


def _alone(config: RunConfig, device: torch.device, alive: Alive) -> tuple[Mapping[Key, Tensor], dict[Key, float]]:
    """On one rank in float64, and what the run's precision makes of it: how far each tensor is off."""
    exact = evidence.wholes(take_steps(config, None, device, True, alive))
    rounded = take_steps(config, None, device, False, alive)
    return exact, {key: distance(piece.own, exact[key]) for key, piece in rounded.items() if key in exact}


def take_steps(config: RunConfig, mesh: Mesh | None, device: torch.device, double: bool, alive: Alive) -> Evidence:
    """One optimizer step, or as many as it takes until each store has been trained on, and what is in them.

    Args:
        config: of the run.
        mesh: None: on this rank alone, asking no other.
        device: of this rank.
        double: in float64.
        alive: called now and then.
    """
    if double:
        config = with_changes(config, training={"precision": "float32"})  # which nothing rounds
    with _default_dtype(torch.float64 if double else torch.float32):
        steps = prepare_steps(config, mesh, device, alive, stirred=True)
        found = _recorded(steps, double, alive)
    del steps
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def prepare_steps(config: RunConfig, mesh: Mesh | None, device: torch.device, alive: Alive, stirred: bool) -> Steps:
    """The trainer's steps from the beginning of a run; `stirred`: with weights moved. Asks no other rank."""
    parts = open_parts(config)
    start = find_start(config, parts)
    role = find_role(config.parallel, config.model, start.domain, mesh)

    def fill(model: WeatherViT) -> None:
        with _default_dtype(torch.float32):  # draws the same numbers for a model in float64
            start.fill(model, alive)
            if stirred:
                stir(model, alive)

    mixture = feed(start, parts, role, device, alive, keep=False)
    dtype = choose_precision(config.training.precision, device)
    state, grounds = assemble(start, parts, role, device, dtype, fill)
    state.model.train()
    if state.model.backbone is not None:
        quieten(state.model.backbone)
    return Steps(Begun(start, parts, role, mixture, state, grounds))


def _recorded(steps: Steps, double: bool, alive: Alive) -> Evidence:
    model, stop = steps.state.model, StopSignals()
    found = evidence.of_weights(model, evidence.START, dict(model.named_parameters()))
    recorder, count = Recorder(steps.grounds, reads=True), _until_all_stores(steps)
    with closing(steps.batches()) as stream, recorder.listening(model):
        for number in range(count):
            batches: Iterator[ReadyBatch] = steps.next_batches(stream)
            if double:
                batches = map(evidence.in_float64, batches)
            steps.step(recorder.passing(batches), stop)
            steps.settle()
            alive()
            which = f" (step {number + 1})" if count > 1 else ""
            found |= evidence.of_weights(model, evidence.GRADIENTS, evidence.gradients_of(model), which)
            found |= evidence.of_numbers(evidence.LOSSES, _losses(steps, which))
    return found | recorder.found | evidence.of_weights(model, evidence.WEIGHTS, dict(model.named_parameters()))


def _until_all_stores(steps: Steps) -> int:
    """Optimizer steps until each store has been trained on."""
    stores = steps.mixture.stores
    firsts = [int((stores == store).argmax()) for store in range(len(steps.parts)) if (stores == store).any()]
    return max(firsts) // steps.settings.accumulate + 1


def _losses(steps: Steps, which: str) -> dict[str, list[float]]:
    by_channel, by_lead, norm, by_step = steps.state.window.take()
    channels = dict(zip(steps.role.channels, by_channel, strict=True))
    leads = {f"{hours}h": value for hours, value in zip(steps.settings.lead_times, by_lead, strict=True)}
    rollout = {f"model step {i}": value for i, value in enumerate(by_step, 1)}
    numbers = channels | leads | rollout | {"gradient norm": norm}
    return {name + which: [value] for name, value in numbers.items()}


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
