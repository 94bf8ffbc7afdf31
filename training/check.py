"""`weatherfm check`: does the whole chain of a run fit together? Nothing is computed and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from weatherfm.data_pipeline.loader import eligible_init_times, reached_leads
from weatherfm.data_pipeline.store.states import as_states, require_fit
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import require_headline
from weatherfm.evaluation.forecasting.init_times import choose_init_times, require_test_days
from weatherfm.evaluation.forecasting.missing_channels import cure_of
from weatherfm.evaluation.forecasting.model_facts import ModelFacts, input_times_of, require_ensemble
from weatherfm.evaluation.forecasting.perturbation import require_harmonics
from weatherfm.evaluation.forecasting.weights_files import absent_members, open_weights_files
from weatherfm.evaluation.metrics.events import parse_events
from weatherfm.evaluation.regions import region_weights
from weatherfm.home import expanded
from weatherfm.model.adapter import ADAPTER
from weatherfm.model.architecture import patch_counts
from weatherfm.model.model import WeatherViT
from weatherfm.model.roles import find_roles
from weatherfm.model.share import channel_shares, input_names
from weatherfm.training.checkpoints.export import weights_path
from weatherfm.training.feeding.field_cache import choose_cache
from weatherfm.training.feeding.store_checks import check_parts, warn_of_spreads
from weatherfm.training.parallel.build_model import add_factors
from weatherfm.training.parts import Part, joint_domain, open_parts
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.learning import count_learning, freeze
from weatherfm.training.starting.run_start import RunStart, choose_layout_of, find_start
from weatherfm.training.stepping.grounds import require_losses
from weatherfm.training.stepping.optimizer import describe_schedule
from weatherfm.training.upkeep.run_lock import require_writable


@dataclass(frozen=True)
class Finding:
    """One link of the chain: what was looked at, whether it holds, and what was found."""

    link: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.ok else 'PROBLEM'} {self.link:<9} {self.text}"


_OF_CHANNELS = ("model", "layout", "start")
"""Links that say nothing more where the store lacks a channel."""


def check_run(config: RunConfig, devices: int | None = None) -> list[Finding]:
    """Look at every link of a run, going on after a problem, so that one call tells all of them.

    Args:
        config: the run.
        devices: it is to be trained on; without it, as many as its section `parallel` asks for.
    """
    found: list[Part] = []

    def store() -> str:
        found.extend(open_parts(config))
        return "; ".join(map(_told, found))

    findings = [_look("store", store)]
    if not found:
        return findings
    links: dict[str, Callable[[RunConfig, Sequence[Part]], str]] = {
        "training": _training,
        "model": _model,
        "layout": lambda config, parts: _layout(config, parts, devices),
    }
    if config.model.reconstruction is None:
        links["forecast"] = lambda config, parts: _forecast(config, parts[0])
        links["baselines"] = lambda config, parts: _baselines(config, parts[0].store)
    if config.training.start_from is not None:
        links["start"] = _start
    lacking = [name for part in found for name in part.config.data.channels if name not in part.store.channels]
    for name, look in links.items():
        if lacking and name in _OF_CHANNELS:
            findings.append(Finding(name, False, "not looked at, for what training says of channels"))
            continue
        finding = _look(name, lambda look=look: look(config, found))  # type: ignore[misc]
        same = next((one for one in findings if not one.ok and one.text == finding.text), None)
        findings.append(finding if same is None else Finding(name, False, f"not looked at, for what {same.link} says"))
    return findings


def _look(link: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(link, True, look())
    except InputError as error:
        return Finding(link, False, str(error))


def _told(part: Part) -> str:
    store, name = part.store, f"{part.name} ({part.weight:.0%}): " if part.name else ""
    times = store.times
    return f"{name}{len(store.channels)} channels, {len(times)} times {times[0]} .. {times[-1]}, {store.grid}"


def _training(config: RunConfig, parts: Sequence[Part]) -> str:
    if config.folder.exists() and not config.folder.is_dir():
        raise InputError(f"run {config.run} is a file, and a run is a folder; name another")
    require_writable(config.folder)
    check_parts(config, parts)
    require_losses(parts)
    warn_of_spreads(parts)
    settings = config.training
    counts = "; ".join(f"{part.name}{': ' * bool(part.name)}{_samples(part)}" for part in parts)
    steps = f"{settings.steps} steps of {settings.batch_size * settings.accumulate}"
    if config.model.reconstruction is not None:
        steps += f", reconstructing {config.model.reconstruction.mask_ratio:.0%} of the patches from the others"
    if settings.loss == "crps":
        steps += f" in {settings.members} members each, by their CRPS"
    if settings.rollout:
        steps += f" over model steps of their own output ({settings.rollout})"
    caches = [choose_cache(part.config, part.store, part.config.data.channels).text for part in parts]
    kept = ", ".join(f"{part.name} {text}".strip() for part, text in zip(parts, caches, strict=True))
    return f"{counts}; {steps}, {describe_schedule(settings)}; alone on this machine, {kept}"


def _samples(part: Part) -> str:
    config, store = part.config, part.store
    settings, inputs = config.training, config.model.input_times
    leads = {"train": reached_leads(settings.lead_times, max(settings.model_steps.values()))}
    samples = {
        name: len(eligible_init_times(store, period, inputs, leads.get(name, settings.lead_times)))
        for name in ("train", "validation")
        if (period := store.periods.get(name)) is not None
    }
    return ", ".join(f"{count} {name} samples" for name, count in samples.items())


def _model(config: RunConfig, parts: Sequence[Part]) -> str:
    with torch.device("meta"):
        model = WeatherViT(config.model, joint_domain(config, parts, [part.domain for part in parts]))
    add_factors(model, config)
    freeze(model, config.training.start_from)
    learn, parameters = count_learning(model)
    state = 4 * (parameters * (1 + (config.training.ema_decay > 0)) + 3 * learn)  # weights, average; gradients, moments
    inputs = len(input_names(config.model, model.domain))
    alone = "" if model.share.inputs == model.share.outputs else f", channels: {model.share.roles}"
    patches = dict.fromkeys(patch_counts(config.model.patch, part.store.grid.shape) for part in parts)
    return (
        f"{parameters / 1e6:.1f} M parameters ({state / 2**30:.2f} GiB with optimizer state), {inputs} input channels, "
        f"{', '.join(f'{rows} x {columns}' for rows, columns in patches)} patches{alone}"
    )


def _start(config: RunConfig, parts: Sequence[Part]) -> str:
    return "; ".join(" ".join(line.split()) for line in find_start(config, parts).lines())


def _layout(config: RunConfig, parts: Sequence[Part], devices: int | None) -> str:
    axes, settings = config.parallel, config.training
    if devices is None:
        devices = axes.tp * axes.dp_replicate * (axes.dp_shard or 1)
    if devices < 1:
        raise InputError(f"--devices must be 1 or more, got {devices}")
    domains = tuple(part.domain for part in parts)
    start = RunStart(config, joint_domain(config, parts, domains), domains)
    layout, domain = choose_layout_of(start, parts, devices), start.domain
    split = axes.channels == "split"
    most = len(channel_shares(config.model, domain, layout.tp)[0].channels) if split else len(domain.channels)
    return (
        f"{layout}: {devices} device{'s' * (devices > 1)}, {settings.batch_size // layout.dp} of {settings.batch_size} "
        f"samples of a batch and at most {most} of {len(domain.channels)} channels each"
    )


def _forecast(config: RunConfig, part: Part) -> str:
    models, told = _members(config, part)
    if config.forecast.init is None:
        require_test_days(config.data.test, part.store)
    times = choose_init_times(part.store, config.forecast, input_times_of(models))
    untrained = sorted(set(config.forecast.model_steps) - set(config.training.lead_times))
    if untrained:
        named = ", ".join(f"{hours}h" for hours in untrained)
        raise InputError(
            f"forecast takes model steps of {named}, for which training.lead_times has none; "
            "train on them, or use mode rollout with a trained step"
        )
    return f"{len(times)} initial times {times[0]} .. {times[-1]}, {len(config.forecast.lead_times)} lead times{told}"


def _members(config: RunConfig, part: Part) -> tuple[Sequence[ModelFacts], str]:
    """The models of an ensemble, as far as they are there, and what is said of it; the run's own without one."""
    settings, own = config.forecast, [ModelFacts("the model", config.model, part.store.domain(), {})]
    if settings.perturbation is not None and settings.perturbation.kind == "spherical":
        require_harmonics(part.store.grid)
    if settings.members is None or not settings.members.weights:
        require_ensemble(own, settings)
    if settings.members is None:
        return own, " (a single forecast, without noise)" if config.model.noise else ""
    if not settings.members.weights:
        return own, f", {settings.members.each} members"
    if absent := absent_members(settings.members.weights):
        return own, f", members of weights that are not there yet ({', '.join(absent)})"
    files = open_weights_files(weights_path(config), settings, _base(config))
    for one in files:
        require_fit(one.domain.grid, one.roles.inputs, as_states(part.store), cure_of(settings, one.provenance))
    return files, f", {len(files) * settings.members.each} members of {len(files)} weights files"


def _base(config: RunConfig) -> Path | None:
    """Weights that adapters among the members belong to."""
    start = config.training.start_from
    return None if start is None or weights_path(config).name != ADAPTER else expanded(start.weights)


def _baselines(config: RunConfig, store: Store) -> str:
    times = choose_init_times(store, config.forecast, config.model.input_times)
    valid = times[:, None] + np.array(config.forecast.lead_times, "timedelta64[h]")
    hours = valid.astype("datetime64[h]").astype(int) % 24
    if missing := sorted(set(hours.ravel().tolist()) - set(np.asarray(store.climatology_hours).tolist())):
        raise InputError(f"the climatology has no {missing[0]:02d} UTC, where a forecast ends; choose other lead times")
    wanted = config.evaluation
    scored = [name for name in find_roles(config.model, config.data.channels).outputs if name in store.channels]
    from weatherfm.evaluation.scoring.cases_to_score import Cases, refuse_learned_days  # brings xarray

    refuse_learned_days(Cases(times, tuple(config.forecast.lead_times), tuple(scored), {}), store)
    parse_events(wanted.events, scored)
    require_headline(wanted.headline, scored)
    if wanted.regions:
        region_weights(store.grid, wanted.regions, dict(zip(store.static_names, store.static, strict=True)).get("lsm"))
    if not wanted.ridge_regression:
        return f"persistence, and the climatology of {store.climatology_period}"
    from weatherfm.evaluation.baselines.ridge_predictors import ridge_starts  # brings scipy

    starts, _ = ridge_starts(store, scored, config.forecast.lead_times, times, wanted.ridge_times)
    return f"persistence, the climatology of {store.climatology_period}, and ridge regression on {len(starts)} times"
