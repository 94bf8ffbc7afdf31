"""Settings of training, and the one file that describes a whole run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from weatherfm.config import Config, Hours, parse_settings
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.device import Device, Precision
from weatherfm.earth.variables import parse_channel
from weatherfm.errors import InputError
from weatherfm.evaluation.forecast_config import EvaluationConfig, ForecastConfig
from weatherfm.home import expanded
from weatherfm.model.architecture import ModelConfig
from weatherfm.model.backbone_config import is_own
from weatherfm.model.roles import find_roles
from weatherfm.overrides import apply_overrides
from weatherfm.training.rollout_config import Rollout
from weatherfm.training.start_config import StartFrom
from weatherfm.yaml_text import read_yaml_file

_YAML_WORDS = {True: "on", False: "off"}
CacheMode = Annotated[
    Literal["auto", "on", "off"], BeforeValidator(lambda x: _YAML_WORDS[x] if isinstance(x, bool) else x)
]
"""YAML reads `on` and `off` as true and false."""
ChannelWeights = Annotated[
    dict[str, Annotated[Annotated[float, Field(allow_inf_nan=True)] | str, Field(union_mode="left_to_right")]],
    BeforeValidator(lambda x: {"scheme": x} if isinstance(x, str) else x),
]
"""Weights by channel or variable, and under `scheme` the one word that is no number."""


class WandbConfig(Config):
    """Weights & Biases; metrics always go to metrics.jsonl as well. `WANDB_MODE` overrides `mode`."""

    later = frozenset({"group", "name"})

    project: str = "weatherfm"
    """Where the run is filed."""
    group: str | None = None
    """Runs of one group are shown together; null: none, and for `train --seeds` the name of the run's folder."""
    name: str | None = None
    """Of the run; null: one that Weights & Biases invents. `train --seeds` adds the seed to it, or to the name of the
    run's folder."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """offline: written into the run's folder, for `wandb sync`; online needs a key (`wandb login`)."""


class TrainingConfig(Config):
    """How the weights are found."""

    later = frozenset(
        {
            "schedule", "cooldown_steps", "start_from", "rollout", "channel_sampling", "loss", "members", "crps_alpha",
            "objective",
        }
    )  # fmt: skip

    objective: Literal["forecast", "reconstruct"] = "forecast"
    """reconstruct: make of some patches of a state all others (`model.reconstruction`), to learn from data without
    forecasts, as pictures; every time of the store is a sample by itself."""
    steps: int = Field(1000, ge=1)
    """Optimizer steps in all."""
    batch_size: int = Field(32, ge=1, le=1_000_000)
    """Samples in one batch, over all devices: the part of an optimizer step that is in memory at once."""
    accumulate: int = Field(1, ge=1, le=1_000_000)
    """Batches whose gradients are averaged into one optimizer step."""
    start_from: StartFrom | None = None
    """Trained weights to start from, as `{weights: runs/pretrained}`; without it, initial values."""
    lead_times: list[Hours] = Field(default=[24], min_length=1)
    """Each sample draws its lead time from this list; with `objective: reconstruct` there are none."""
    rollout: Rollout | None = None
    """Train over successive steps of the model's own output, as `{steps: {0: 1, 2000: 2}}`; without it, over one."""
    loss: Literal["squared_error", "crps"] = "squared_error"
    """crps: of an ensemble of `members` a sample that differ by noise (`model.noise`), almost fair: a model that knows
    how sure it is."""
    members: int = Field(2, ge=2, le=1000)
    """Forecasts of each sample in training with `loss: crps`; time and memory behind the aggregation over channels grow
    with it, and two suffice."""
    crps_alpha: float = Field(0.95, ge=0, le=1)
    """1: the fair CRPS, of an endless ensemble like these members; 0: the CRPS of the members, which wants too little
    spread. A little less than 1 forbids that one member is anything while another is the truth."""
    lead_time_weighting: Literal["equal", "inverse"] = "equal"
    """inverse: a sample counts in the loss by shortest lead time / its lead time, so that long leads, whose errors
    are larger, do not drown the short ones."""
    channel_sampling: float | None = Field(None, gt=0, le=1)
    """Share of the channels that go in which a sample shows the model, in the mean; each sample draws how many, and
    which. The others are absent, and forecast all the same: such weights bear missing channels (`forecast
    --allow-missing`). null: all are shown."""
    learning_rate: float = Field(5e-4, gt=0)
    """Of AdamW, where the warm-up ends."""
    min_learning_rate: float = Field(0.0, ge=0)
    """Where the cosine or the cooldown ends."""
    warmup_steps: int = Field(50, ge=0)
    """Steps over which the learning rate rises linearly at the beginning."""
    schedule: Literal["cosine", "constant_cooldown"] = "cosine"
    """How the learning rate goes on after the warm-up. cosine: it falls along half a cosine over all `steps`, which
    cannot change later. constant_cooldown: it stays until the last `cooldown_steps`; until then a run can be given more
    `steps`, also once it is finished."""
    cooldown_steps: int | None = Field(None, ge=1)
    """Steps at the end of `constant_cooldown` over which the learning rate falls to `min_learning_rate`; null: a tenth
    of `steps`."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW: how slowly the means of the gradient and of its square forget."""
    weight_decay: float = Field(0.05, ge=0)
    """For matrices; biases, norms and embeddings have none."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest gradient norm; null: no clipping."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the exponential moving average of the weights that is validated and exported; 0: none."""
    channel_weights: ChannelWeights = {}
    """Weights in the loss by channel (`z500`) or, for all of its levels, by variable (`z`); 1 where not named, then all
    divided by their mean. `pressure`, or `scheme: pressure` among them: where not named, in proportion to pressure on
    levels, 1 for `t2m` and 0.1 for other fields at the surface."""
    precision: Precision = "auto"
    """Of matrix products; weights stay float32. auto: bfloat16 on a GPU that has it, else float32. tf32: float32 whose
    products a GPU rounds to 10 bits."""
    device: Device = "auto"
    """auto: the first GPU, else the CPU; or a PyTorch device such as cuda:1."""
    compile: bool = False
    """torch.compile: pays on a GPU and in long runs."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Decides initial weights, order of samples, lead times, dropout and the channels that samples show."""
    validate_every: int = Field(200, ge=1)
    """Steps between validations."""
    validation_samples: int = Field(256, ge=1)
    """Initial times a validation uses, spread evenly over the validation period; each at every lead time."""
    early_stopping: int | None = Field(None, ge=1)
    """Stop after so many validations without a better loss; null: never."""
    export: Literal["last", "best"] = "last"
    """Which weights become weights.safetensors: those of the last step, or of the best validation loss."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between checkpoints: what an interruption costs at most."""
    keep_checkpoints: int = Field(2, ge=1)
    """The newest so many stay, the older ones are removed."""
    log_every: int = Field(10, ge=1)
    """Steps between lines in the log and in metrics.jsonl."""
    workers: int = Field(2, ge=0, le=1000)
    """Threads that read from disk, each a batch ahead; 0: only the one thread that makes the next batch ready."""
    cache: CacheMode = "auto"
    """Whether the fields of training and validation are read into memory once, before the first step. auto: if they
    take at most a quarter of what is available, and training reads them at least once; on: always. Processes of one
    machine that read the same channels share one copy."""
    wandb: WandbConfig = WandbConfig()

    @model_validator(mode="before")
    @classmethod
    def _at_once(cls, given: Any) -> Any:
        """What is reconstructed is the state itself."""
        if isinstance(given, dict) and given.get("objective") == "reconstruct":
            return {"lead_times": [0]} | given
        return given

    @model_validator(mode="after")
    def _sensible(self) -> TrainingConfig:
        if self.objective == "reconstruct":
            self._check_reconstruction()
        elif min(self.lead_times) <= 0 or len(set(self.lead_times)) < len(self.lead_times):
            given = ", ".join(f"{hours}h" for hours in self.lead_times)
            raise InputError(f"lead_times must be positive and each given once; got [{given}]")
        if self.min_learning_rate > self.learning_rate:
            raise InputError(
                f"min_learning_rate {self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}; lower it"
            )
        self._check_channel_weights()
        self._check_schedule()
        self._check_loss()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must lie in [0, 1); got {list(self.betas)}")
        return self

    def _check_channel_weights(self) -> None:
        given = dict(self.channel_weights)
        if (scheme := given.pop("scheme", "pressure")) != "pressure":
            raise InputError(f"channel_weights knows the scheme pressure alone, got {scheme!r}; write it, or weights")
        bad = [f"{name}: {w}" for name, w in given.items() if isinstance(w, str) or not 0 <= w < float("inf")]
        if bad:
            raise InputError(f"channel_weights must be finite and not negative; got {', '.join(bad)}")

    def _check_schedule(self) -> None:
        if self.cooldown_begins is None:
            if self.cooldown_steps is not None:
                raise InputError(
                    f"cooldown_steps {self.cooldown_steps} is for schedule constant_cooldown, and schedule is cosine; "
                    "set schedule, or leave cooldown_steps out"
                )
        elif self.cooldown_begins < self.warmup_steps:
            cooldown = self.steps - self.cooldown_begins
            raise InputError(
                f"warmup_steps {self.warmup_steps} and cooldown_steps {cooldown} are more than steps {self.steps}; "
                "lower one of them, or raise steps"
            )

    def _check_reconstruction(self) -> None:
        idle = [] if self.lead_times == [0] else ["lead_times"]
        idle += [key for key in ("rollout", "loss", "lead_time_weighting") if self._is_set(key)]
        if idle:
            raise InputError(f"{', '.join(idle)} belong to forecasts, and objective is reconstruct; leave them out")

    def _is_set(self, key: str) -> bool:
        return bool(getattr(self, key) != type(self).model_fields[key].default)

    def _check_loss(self) -> None:
        idle = sorted({"members", "crps_alpha"} & self.model_fields_set)
        if self.loss != "crps" and idle:
            raise InputError(f"{' and '.join(idle)} belong to loss: crps; set it, or leave them out")

    @property
    def crps_alpha_used(self) -> float | None:
        """`crps_alpha`; None where the loss is another."""
        return self.crps_alpha if self.loss == "crps" else None

    def steps_at(self, step: int) -> int:
        """Successive model steps of the samples of optimizer step `step` (from 0)."""
        return next(count for begin, count in reversed(self.model_steps.items()) if begin <= step)

    @property
    def model_steps(self) -> dict[int, int]:
        """Optimizer step -> successive model steps of a sample from there on; ascending, from 0."""
        return {0: 1} if self.rollout is None else self.rollout.steps

    @property
    def cooldown_begins(self) -> int | None:
        """Steps that are done when the cooldown begins, fewer than `steps`; None for a schedule without one."""
        if self.schedule == "cosine":
            return None
        return self.steps - (self.cooldown_steps or max(1, self.steps // 10))


MOST_DEVICES = 1_000_000
"""No machine has as many; ways to divide the work among more are not looked for."""


class ParallelConfig(Config):
    """How the devices share the work. It decides speed and memory, never the function that is learned."""

    tp: int = Field(1, ge=1, le=MOST_DEVICES)
    """Devices that hold one model together: channels, heads and positions are split over them."""
    dp_shard: int | None = Field(None, ge=1, le=MOST_DEVICES)
    """Data-parallel devices that split weights and optimizer state; without it, all that the other two leave."""
    dp_replicate: int = Field(1, ge=1, le=MOST_DEVICES)
    """Groups of devices that hold copies of the weights."""
    channels: Literal["split", "whole"] = "split"
    """whole: every device of `tp` makes the tokens of all channels (tensor parallelism alone, to compare with)."""
    activation_checkpointing: Literal["none", "block", "selective"] = "none"
    """Make activations again in the backward pass: of whole blocks, or of all in them but matrix products."""
    timeout: float = Field(600.0, gt=0)
    """Seconds after which a silent device ends the job with its name."""


class RunConfig(Config):
    """One run: data, model, training, forecasts, evaluation. A YAML file holds exactly this."""

    run: str = Field(min_length=1, pattern=r"\S")
    """Folder of everything the run makes: checkpoints, weights, metrics, forecasts, scores, report."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    parallel: ParallelConfig = ParallelConfig()
    forecast: ForecastConfig = ForecastConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        known = {"scheme", *self.data.channels, *(parse_channel(name).variable.short for name in self.data.channels)}
        if unknown := sorted(set(self.training.channel_weights) - known):
            raise InputError(
                f"training.channel_weights names {', '.join(unknown)}, not among data.channels; remove or add them"
            )
        if (self.training.loss == "crps") != (self.model.noise > 0):
            raise InputError(
                f"training.loss is {self.training.loss} and model.noise {self.model.noise}: members differ by noise "
                "alone, and learn to by the CRPS alone; set both (loss: crps, noise: 16), or neither"
            )
        if (self.training.objective == "reconstruct") != (self.model.reconstruction is not None):
            given = "null" if self.model.reconstruction is None else "given"
            raise InputError(
                f"training.objective is {self.training.objective} and model.reconstruction {given}; set both "
                "(objective: reconstruct, reconstruction: {mask_ratio: 0.75}), or neither"
            )
        roles = find_roles(self.model, self.data.channels)
        scored = {"scheme", *roles.outputs, *(parse_channel(name).variable.short for name in roles.outputs)}
        if idle := sorted(set(self.training.channel_weights) - scored):
            raise InputError(
                f"training.channel_weights names {', '.join(idle)}, which model.outputs leaves out: no loss is theirs"
            )
        if (start := self.training.start_from) is not None and is_own(self.model.backbone):
            start.require_blocks_unasked(self.model.backbone)
        if start is not None and start.lora is not None:
            start.lora.require_fit(self.model.width, int(self.model.width * self.model.mlp_ratio))
        if self.training.rollout is not None:
            if self.training.rollout.inputs == "read" and set(roles.inputs) <= set(roles.outputs):
                raise InputError(
                    "training.rollout.inputs: read, but all channels that go into the model are predicted "
                    "(model.outputs); leave it out"
                )
            self.training.rollout.require_states(self.model.input_times, self.training.lead_times)
            if self.training.channel_sampling is not None and len(self.model.input_times) > 1:
                raise InputError(
                    "training.rollout with channel_sampling is for input_times of 0h alone: of a channel that was not "
                    "shown, earlier states would be missing in the next step; leave one of the two out"
                )
        return self

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return expanded(self.run)


def load_run(path: str | os.PathLike[str], overrides: Sequence[str | Mapping[str, Any]] = ()) -> RunConfig:
    """Read a run's YAML file and apply overrides, `section.key=value` or {"section.key": value}.

    Raises:
        InputError: no such file, not YAML, an unknown key, a wrong type, or settings that contradict each other.
    """
    path = Path(path)
    data = read_yaml_file(path) or {}
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold `section:` entries, got {type(data).__name__}")
    apply_overrides(data, overrides)
    return parse_settings(RunConfig, data, str(path))
