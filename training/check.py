"""`weatherfm check`: does the whole chain of a run fit together? Nothing is computed and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from weatherfm.data_pipeline.loader import eligible_init_times, reached_leads
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.forecasting.init_times import choose_init_times
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import channel_shares, input_names
from weatherfm.training.feeding.field_cache import choose_cache
from weatherfm.training.feeding.store_checks import check_training, warn_of_spread
from weatherfm.training.parallel.build_model import add_factors
from weatherfm.training.parallel.layout import choose_layout
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.learning import count_learning, freeze
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.stepping.optimizer import describe_schedule


@dataclass(frozen=True)
class Finding:
    """One link of the chain: what was looked at, whether it holds, and what was found."""

    link: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.ok else 'PROBLEM'} {self.link:<9} {self.text}"


def check_run(config: RunConfig, devices: int | None = None) -> list[Finding]:
    """Look at every link of a run, going on after a problem, so that one call tells all of them.

    Args:
        config: the run.
        devices: it is to be trained on; without it, as many as its section `parallel` asks for.
    """
    found: list[Store] = []

    def store() -> str:
        found.append(open_store(config.data.store))
        times = found[0].times
        return f"{len(found[0].channels)} channels, {len(times)} times {times[0]} .. {times[-1]}, {found[0].grid}"

    findings = [_look("store", store)]
    if not found:
        return findings
    links: dict[str, Callable[[RunConfig, Store], str]] = {
        "training": _training,
        "model": _model,
        "layout": lambda config, store: _layout(config, store, devices),
        "forecast": _forecast,
        "baselines": _baselines,
    }
    if config.training.start_from is not None:
        links["start"] = _start
    for name, look in links.items():
        findings.append(_look(name, lambda look=look: look(config, found[0])))  # type: ignore[misc]
    return findings


def _look(link: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(link, True, look())
    except InputError as error:
        return Finding(link, False, str(error))


def _training(config: RunConfig, store: Store) -> str:
    check_training(config, store)
    warn_of_spread(config, store)
    settings, inputs = config.training, config.model.input_times
    leads = {"train": reached_leads(settings.lead_times, max(settings.model_steps.values()))}
    samples = {
        name: len(eligible_init_times(store, period, inputs, leads.get(name, settings.lead_times)))
        for name in ("train", "validation")
        if (period := store.periods.get(name)) is not None
    }
    counts = ", ".join(f"{count} {name} samples" for name, count in samples.items())
    cache = choose_cache(config, store, config.data.channels)
    steps = f"{settings.steps} steps of {settings.batch_size * settings.accumulate}"
    if settings.rollout:
        steps += f" over model steps of their own output ({settings.rollout})"
    return f"{counts}; {steps}, {describe_schedule(settings)}; alone on this machine, {cache.text}"


def _model(config: RunConfig, store: Store) -> str:
    with torch.device("meta"):
        model = WeatherViT(config.model, store.domain(config.data.channels))
    add_factors(model, config)
    freeze(model, config.training.start_from)
    learn, parameters = count_learning(model)
    state = 4 * (parameters * (1 + (config.training.ema_decay > 0)) + 3 * learn)  # weights, average; gradients, moments
    inputs = len(input_names(config.model, model.domain))
    return (
        f"{parameters / 1e6:.1f} M parameters ({state / 2**30:.2f} GiB with optimizer state), {inputs} input channels, "
        f"{model.tokens[0]} x {model.tokens[1]} patches"
    )


def _start(config: RunConfig, store: Store) -> str:
    return "; ".join(" ".join(line.split()) for line in find_start(config, store).lines())


def _layout(config: RunConfig, store: Store, devices: int | None) -> str:
    axes, settings = config.parallel, config.training
    if devices is None:
        devices = axes.tp * axes.dp_replicate * (axes.dp_shard or 1)
    if devices < 1:
        raise InputError(f"--devices must be 1 or more, got {devices}")
    domain = store.domain(config.data.channels)
    layout = choose_layout(axes, devices, config.model, domain, settings.batch_size)
    split = axes.channels == "split"
    most = len(channel_shares(config.model, domain, layout.tp)[0].channels) if split else len(domain.channels)
    return (
        f"{layout}: {devices} device{'s' * (devices > 1)}, {settings.batch_size // layout.dp} of {settings.batch_size} "
        f"samples of a batch and at most {most} of {len(domain.channels)} channels each"
    )


def _forecast(config: RunConfig, store: Store) -> str:
    times = choose_init_times(store, config.forecast, config.model.input_times)
    untrained = sorted(set(config.forecast.model_steps) - set(config.training.lead_times))
    if untrained:
        named = ", ".join(f"{hours}h" for hours in untrained)
        raise InputError(
            f"forecast takes model steps of {named}, for which training.lead_times has none; "
            "train on them, or use mode rollout with a trained step"
        )
    return f"{len(times)} initial times {times[0]} .. {times[-1]}, {len(config.forecast.lead_times)} lead times"


def _baselines(config: RunConfig, store: Store) -> str:
    times = choose_init_times(store, config.forecast, config.model.input_times)
    valid = times[:, None] + np.array(config.forecast.lead_times, "timedelta64[h]")
    hours = valid.astype("datetime64[h]").astype(int) % 24
    if missing := sorted(set(hours.ravel().tolist()) - set(np.asarray(store.climatology_hours).tolist())):
        raise InputError(f"the climatology has no {missing[0]:02d} UTC, where a forecast ends; choose other lead times")
    return f"persistence, and the climatology of {store.climatology_period}"
