"""The user's run, made short: few steps, nothing kept in memory, nothing told; perhaps shallower, never narrower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from weatherfm.training.run_config import RunConfig, WandbConfig
from weatherfm.training.start_config import StartFrom

STEPS = 64
"""Steps that a short run could take; none takes all."""


def short(config: RunConfig, **training: Any) -> RunConfig:
    """Few steps at the full learning rate, each over as many model steps as the run ever takes.

    Args:
        config: of the user.
        training: settings that become something else.
    """
    settings = config.training
    rollout = settings.rollout
    changed = {
        "steps": STEPS,
        "warmup_steps": 0,
        "cooldown_steps": None,
        "rollout": None if rollout is None else rollout.model_copy(update={"steps": {0: rollout.most}}),
        "cache": "off",
        "early_stopping": None,
        "wandb": WandbConfig(mode="disabled"),
        "export": "last",
        "log_every": 1,
        "validation_samples": 1,
    }
    return with_changes(config, training=changed | training)


def without_chance(config: RunConfig) -> RunConfig:
    """Without what layouts draw differently: dropout and drop path."""
    return with_changes(config, model={"dropout": 0.0, "drop_path": 0.0})


def quieten(backbone: nn.Module) -> None:
    """The same for a backbone of the user's own, as far as it drops out by PyTorch's modules."""
    for part in backbone.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0


def with_chance_of(config: RunConfig, used: RunConfig) -> RunConfig:
    """One run with the dropout and drop path of another, which a run that goes on draws again."""
    return with_changes(used, model={"dropout": config.model.dropout, "drop_path": config.model.drop_path})


def with_depth(config: RunConfig, depth: int) -> RunConfig:
    """With fewer blocks; those that are frozen by number and gone are no longer named."""
    start = config.training.start_from
    kept = None if start is None else start.model_copy(update={"freeze": _blocks_below(start, depth)})
    return with_changes(config, model={"depth": depth}, training={"start_from": kept})


def with_changes(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    """The same run with other settings in some of its sections; they are not checked again."""
    changed = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=changed)


def largest_that_fits(config: RunConfig, groups: int, fits: Callable[[RunConfig], bool]) -> RunConfig | None:
    """The run itself, or with half, a quarter, ... of its blocks down to two, or then with a smaller batch.

    Args:
        config: of the run.
        groups: data-parallel, which share a batch.
        fits: whether one rank can take a step of a run in memory and time.

    Returns:
        None where none fits.
    """
    return next((tried for tried in _smaller(config, groups) if fits(tried)), None)


def _smaller(config: RunConfig, groups: int) -> Iterator[RunConfig]:
    depth, batch = config.model.depth, config.training.batch_size
    yield config
    while depth > 2:
        depth = max(2, depth // 2)
        yield with_depth(config, depth)
    shallow = with_depth(config, depth)
    while batch > groups:
        batch = max(groups, batch // 2 // groups * groups)
        yield with_changes(shallow, training={"batch_size": batch})


def what_is_smaller(config: RunConfig, used: RunConfig) -> str:
    """In words; empty where nothing is."""
    sizes = [
        ("blocks", used.model.depth, config.model.depth),
        ("samples of a batch", used.training.batch_size, config.training.batch_size),
        ("batches of a step", used.training.accumulate, config.training.accumulate),
    ]
    return ", ".join(f"{few} of {all} {what}" for what, few, all in sizes if few != all)


def _blocks_below(start: StartFrom, depth: int) -> list[str]:
    def gone(part: str) -> bool:
        words = part.split(".")
        return words[0] == "blocks" and len(words) > 1 and words[1].isdecimal() and int(words[1]) >= depth

    return [part for part in start.freeze if not gone(part)]
