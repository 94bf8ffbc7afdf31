"""What must hold between a run's settings and its store, found before compute is spent."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from weatherfm.data_pipeline.fields.spread import doubts_about_spread
from weatherfm.data_pipeline.loader import eligible_init_times, reached_leads
from weatherfm.data_pipeline.store.states import require_weather
from weatherfm.data_pipeline.store.training_store import Store
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.errors import InputError
from weatherfm.model.architecture import ModelConfig, patch_counts
from weatherfm.model.model import WeatherViT
from weatherfm.model.reconstruction_config import ReconstructionConfig
from weatherfm.training.feeding.samples import training_period, training_samples
from weatherfm.training.parts import Part
from weatherfm.training.run_config import RunConfig

_log = logging.getLogger(__name__)


def check_parts(config: RunConfig, parts: Sequence[Part]) -> None:
    """Check that a run can train on its stores, each by itself and together.

    Raises:
        InputError: as of `check_training`, a grid that the model is not for, grids that one table of positions cannot
            serve, or days that one store learns from and another holds out.
    """
    _require_validation(config, any(part.config.data.validation is not None for part in parts))
    for part in parts:
        try:
            _check_store(part.config, part.store)
            if part.name:  # of one alone it is the model of the run
                _check_model(part)
        except InputError as error:
            if not part.name:
                raise
            raise InputError(f"data.mix, {part.name}: {error}") from None
    tokens = {part.name: patch_counts(config.model.patch, part.store.grid.shape) for part in parts}
    if config.model.position == "learned" and len(set(tokens.values())) > 1:
        told = ", ".join(f"{rows} x {columns} in {name}" for name, (rows, columns) in tokens.items())
        raise InputError(
            f"the stores of data.mix have other numbers of patches ({told}), and a table of positions has one; set "
            "model.position: place"
        )
    for part in parts:
        for other in parts:
            _require_held_out(part, other)


def _require_validation(config: RunConfig, there: bool) -> None:
    if config.training.early_stopping is not None and not there:
        raise InputError(
            "training.early_stopping needs a validation period; set data.validation, or null to stop never"
        )
    if config.training.export == "best" and not there:
        raise InputError("training.export=best needs a validation period; set data.validation, or export last")


def _check_model(part: Part) -> None:
    """What grid and channels of one store among several ask of the model."""
    with torch.device("meta"):
        WeatherViT(part.config.model, part.domain)


def _require_held_out(part: Part, other: Part) -> None:
    """No store may learn from days that another of the same world holds out."""
    learned = training_period(part.config, part.store)
    data = other.config.data
    for name, held_out in (("validation", data.validation), ("test", data.test)):
        if part is other or held_out is None or part.store.world != other.store.world:
            continue
        if learned is None or learned.overlaps(held_out):
            raise InputError(
                f"data.mix: {part.name} learns from {learned or 'all of its days'}, and {other.name} holds out "
                f"{held_out} for {name}, of the same world: scores would be too good; separate them"
            )


def check_training(config: RunConfig, store: Store) -> None:
    """Check that a run can train on a store.

    Raises:
        InputError: channels, constant fields, days, times or grid that do not go together.
    """
    _require_validation(config, config.data.validation is not None)
    _check_store(config, store)


def _check_store(config: RunConfig, store: Store) -> None:
    if config.model.reconstruction is None:
        require_weather(store)
    else:
        _check_reconstruction(config.model, config.model.reconstruction, store)
    _check_fields(config, store)
    _check_statistics(config, store)
    _check_days(config, store)
    _check_times(config, store)
    _check_rollout(config, store)
    training_samples(config, store)
    rows, columns = config.model.patch
    if rows > store.grid.shape[0] or columns > store.grid.shape[1]:
        raise InputError(
            f"model.patch_size {config.model.patch_size} is larger than the grid, {store.grid}; choose smaller"
        )


def _check_reconstruction(model: ModelConfig, settings: ReconstructionConfig, store: Store) -> None:
    rows, columns = patch_counts(model.patch, store.grid.shape)
    settings.visible(rows * columns)
    if not store.grid.plane:
        return
    if model.input_times != [0]:
        raise InputError(
            f"model.input_times asks for earlier states, and {store.path} holds pictures, which do not follow one "
            "another; leave it out"
        )
    if model.conditioning == "adaln":
        raise InputError(
            f"model.conditioning: adaln tells a model time of day and of year, and {store.path} holds pictures, which "
            "have none; leave it out"
        )


def _check_rollout(config: RunConfig, store: Store) -> None:
    most, settings = max(config.training.model_steps.values()), config.training
    period, leads = training_period(config, store), reached_leads(settings.lead_times, most)
    found = len(eligible_init_times(store, period, config.model.input_times, leads))
    if most > 1 and found < settings.batch_size:
        raise InputError(
            f"only {found} initial times of the training days ({period}) have room for the {most} model steps of "
            f"training.rollout at each of training.lead_times, but a batch needs {settings.batch_size}; lengthen the "
            "period, shorten training.lead_times, or lower the number of steps"
        )


def warn_of_spreads(parts: Sequence[Part]) -> None:
    """As `warn_of_spread`, of each store."""
    for part in parts:
        warn_of_spread(part.config, part.store)


def warn_of_spread(config: RunConfig, store: Store) -> None:
    """Warn of channels of a run that hardly vary, or hardly change; once, not on every rank."""
    index = [store.channels.index(name) for name in config.data.channels]
    changes = store.tendency_std if config.model.reconstruction is None else store.std  # else nothing is to change
    texts = doubts_about_spread(
        config.data.channels, store.std[index], changes[index], store.minimum[index], store.maximum[index],
        store.manifest["tendency"]["lead_hours"], store.log_scales,
    )  # fmt: skip
    for text in texts:
        _log.warning("%s", text)


def _check_fields(config: RunConfig, store: Store) -> None:
    if absent := [name for name in config.data.channels if name not in store.channels]:
        raise InputError(
            f"data.channels names {', '.join(absent)}, which the store {store.path} does not hold; "
            f"it holds {' '.join(store.channels)}: prepare another store, or drop them"
        )
    if set(config.data.static) != set(store.static_names):
        raise InputError(
            f"data.static is [{', '.join(config.data.static)}], but the store {store.path} holds "
            f"[{', '.join(store.static_names)}]; set it so, or prepare another store"
        )


def _check_statistics(config: RunConfig, store: Store) -> None:
    """What decides statistics, and what fields are, stands in the store: settings that say otherwise would be idle."""
    held = store.manifest["request"]
    for name, value in config.data.model_dump(
        mode="json", include={"daily", "area_weighted", "tendency_leads"}
    ).items():
        before = held.get(name, DataConfig.model_fields[name].default)
        if value != before:
            raise InputError(
                f"data.{name} is {_told(value)}, but the store {store.path} was prepared with {_told(before)}; set it "
                "so, or prepare another store"
            )
    lead = config.data.tendency_lead
    if lead is not None and lead != store.manifest["tendency"]["lead_hours"]:
        raise InputError(
            f"data.tendency_lead is {lead}h, but the tendency_std of the store {store.path} is over "
            f"{store.manifest['tendency']['lead_hours']}h; set it so, or prepare another store"
        )
    scales = {name: scale for name, scale in store.log_scales.items() if name in config.data.channels}
    if config.data.log_scales != scales:
        raise InputError(
            f"data.transforms asks for log1p of {config.data.log_scales or 'nothing'}, but the statistics of the store "
            f"{store.path} are with {scales or 'none'}; set it so, or prepare another store"
        )


def _told(value: object) -> str:
    return "none" if value in (None, []) else f"{str(value).lower() if isinstance(value, bool) else value}"


def _check_days(config: RunConfig, store: Store) -> None:
    train = store.periods["train"]
    if config.data.train is not None and config.data.train != train:
        raise InputError(
            f"data.train is {config.data.train}, but the statistics of the store {store.path} are over {train}; "
            "prepare another store, or train on its own days"
        )
    held_out = {"validation": config.data.validation, "test": config.data.test}
    for name, period in held_out.items():
        if period is not None and train is not None and period.overlaps(train):
            raise InputError(
                f"data.{name} ({period}) shares days with the store's training period ({train}): "
                "scores would be too good; separate them"
            )


def _check_times(config: RunConfig, store: Store) -> None:
    leads, inputs = config.training.lead_times, config.model.input_times
    for setting, hours in (("training.lead_times", leads), ("model.input_times", inputs)):
        if odd := [f"{h}h" for h in hours if h % store.step_hours]:
            raise InputError(
                f"{setting} holds {', '.join(odd)}, but the times of {store.path} are {store.step_hours}h apart; "
                "choose multiples"
            )
    period = config.data.validation
    if period is not None and not len(eligible_init_times(store, period, inputs, leads)):
        raise InputError(
            f"no initial time of data.validation ({period}) has its input times and all lead times within it and in "
            f"{store.path}; lengthen the period, or shorten training.lead_times or model.input_times"
        )
