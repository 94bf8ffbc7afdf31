"""All that changes while training, and its way into a checkpoint and back.

Randomness and the position in the data are not state: both follow from (seed, step).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.channel_rows import named_parts
from weatherfm.training.stepping.weight_average import WeightAverage

if TYPE_CHECKING:
    from weatherfm.training.checkpoints.checkpoint import Saved
    from weatherfm.training.run_config import TrainingConfig


@dataclass
class Progress:
    """Scalars: how far training is, and how good it was."""

    step: int = 0
    """Optimizer steps done."""
    best_loss: float | None = None
    """Lowest validation loss so far."""
    best_step: int | None = None
    validations_since_best: int = 0

    def validated(self, loss: float) -> bool:
        """Take in a validation loss; True when it is the best so far."""
        better = self.best_loss is None or loss < self.best_loss
        if better:
            self.best_loss, self.best_step, self.validations_since_best = loss, self.step, 0
        else:
            self.validations_since_best += 1
        return better

    def is_finished(self, settings: TrainingConfig) -> bool:
        """All steps are done, or validation has not improved for too long."""
        patience = settings.early_stopping
        gave_up = patience is not None and self.validations_since_best >= patience
        return gave_up or self.step >= settings.steps


class Window:
    """Sums over the steps since the last line in the log; on the device, so that adding never waits for it."""

    def __init__(
        self, channels: int, lead_times: int, device: torch.device, rollout_steps: int = 0, mixed: bool = False
    ) -> None:
        self.channel_steps = torch.zeros(channels, dtype=torch.float64, device=device) if mixed else None
        self.channel_loss = torch.zeros(channels, dtype=torch.float64, device=device)
        self.lead_loss = torch.zeros(2, lead_times, dtype=torch.float64, device=device)  # sums, and samples
        self.rollout_loss = torch.zeros(2, rollout_steps, dtype=torch.float64, device=device)  # sums, and steps
        self.gradient_norm = torch.zeros((), dtype=torch.float64, device=device)
        self.steps = torch.zeros((), dtype=torch.int64)

    def add(self, channel_loss: Tensor, lead_loss: Tensor, gradient_norm: Tensor, step_loss: Tensor) -> None:
        """Take in one step: the [C] weighted losses, by lead time [2, L] sums and samples, the gradient norm, and the
        losses of model steps, as many as it had. A channel that the step did not have is not a number."""
        if self.channel_steps is None:
            self.channel_loss += channel_loss
        else:
            self.channel_loss += channel_loss.nan_to_num(0.0)
            self.channel_steps += ~channel_loss.isnan()
        self.lead_loss += lead_loss
        if self.rollout_loss.numel():
            self.rollout_loss[0, : len(step_loss)] += step_loss
            self.rollout_loss[1, : len(step_loss)] += 1
        self.gradient_norm += gradient_norm
        self.steps += 1

    def take(self) -> tuple[list[float], list[float], float, list[float]]:
        """Mean losses by channel [C] and lead time [L], gradient norm, and mean losses by model step of a rollout since
        the last call; starts a new window.

        A lead time that no sample had is not a number, nor is a model step that none took, or a channel that no step
        had.
        """
        by_lead, by_step = ((sums / counts).tolist() for sums, counts in (self.lead_loss, self.rollout_loss))
        steps = self.steps if self.channel_steps is None else self.channel_steps
        means = (self.channel_loss / steps).tolist(), by_lead, float(self.gradient_norm / self.steps), by_step
        for tensor in self.tensors().values():
            tensor.zero_()
        return means

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, not copied."""
        some = {"rollout_loss": self.rollout_loss} if self.rollout_loss.numel() else {}
        some |= {} if self.channel_steps is None else {"channel_steps": self.channel_steps}
        return some | {
            "channel_loss": self.channel_loss,
            "lead_loss": self.lead_loss,
            "gradient_norm": self.gradient_norm,
            "steps": self.steps,
        }


class TrainingState:
    """Model, optimizer, weight average, running sums and progress.

    Args:
        model: on its device; it may hold a share of the channels, and parts of the weights.
        optimizer: over the model's parameters, its moments in place (`build_optimizer`).
        average: None: the weights themselves are validated and exported.
        channels: of the whole model that are scored.
        lead_times: that samples draw from.
        rollout_steps: the largest number of a rollout; 0 without one.
        mixed: steps may have some of the channels alone.
    """

    def __init__(
        self,
        model: WeatherViT,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
        channels: int,
        lead_times: int,
        rollout_steps: int = 0,
        mixed: bool = False,
    ) -> None:
        self.model, self.optimizer, self.average = model, optimizer, average
        self._parameters: dict[str, Tensor] = dict(model.named_parameters())  # as split over ranks, never gathered
        self.progress = Progress()
        self.window = Window(channels, lead_times, model.mean.device, rollout_steps, mixed)

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside the block the model has the weights to validate: their average, where there is one."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def exported_parameters(self) -> dict[str, Tensor]:
        """The weights to give away, by name: their average, where there is one."""
        return self._parameters if self.average is None else self.average.values

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is not in `record`, by layout-free name; views, not copies.

        Raises:
            RuntimeError: the optimizer does not know a parameter, so that half of its state would be lost.
        """
        tensors = {f"window.{name}": value for name, value in self.window.tensors().items()}
        for name, parameter in self._parameters.items():
            learns = parameter.requires_grad
            if learns and parameter not in self.optimizer.state:  # asking for it would make an empty one
                raise RuntimeError(f"the optimizer has no state of {name}: a checkpoint would be incomplete")
            tensors |= self._parts("model", name, parameter.detach())
            if self.average is not None:
                tensors |= self._parts("average", name, self.average.values[name])
            for key, value in self.optimizer.state[parameter].items() if learns else ():
                if value.ndim:
                    tensors |= self._parts(f"optimizer.{key}", name, value)
                else:
                    tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def record(self, identity: dict[str, Any]) -> dict[str, Any]:
        """The scalars, JSON-able, beside what a resumed run is compared with (`resume.find_identity`)."""
        return {"progress": asdict(self.progress), **identity}

    def restore(self, saved: Saved) -> None:
        """Take over a checkpoint of a run with the same settings, saved on any layout.

        Raises:
            InputError: tensors that do not fit this model.
        """
        tensors, known = self.tensors(), saved.names()
        if "window.lead_loss" not in known:  # an older version kept none: this one's first line begins with the restart
            del tensors["window.lead_loss"]
        saved.read_into(tensors)
        self.progress = Progress(**saved.record["progress"])

    def _parts(self, prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
        return {f"{prefix}.{key}": part for key, part in named_parts(self.model, name, tensor)}
