"""All that changes while training, and its way into a checkpoint and back.

Randomness and the position in the data are not state: both follow from (seed, step).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from weatherfm.errors import InputError
from weatherfm.model import WeatherViT
from weatherfm.training.checkpoint import Checkpoint
from weatherfm.training.ema import WeightAverage


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


class Window:
    """Sums over the steps since the last line in the log; on the device, so that adding never waits for it."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.channel_loss = torch.zeros(channels, dtype=torch.float64, device=device)
        self.gradient_norm = torch.zeros((), dtype=torch.float64, device=device)
        self.steps = torch.zeros((), dtype=torch.int64)

    def add(self, channel_loss: Tensor, gradient_norm: Tensor) -> None:
        """Take in the [C] weighted losses and the gradient norm of one step."""
        self.channel_loss += channel_loss
        self.gradient_norm += gradient_norm
        self.steps += 1

    def take(self) -> tuple[list[float], float]:
        """Mean [C] losses and gradient norm since the last call; starts a new window."""
        means = (self.channel_loss / self.steps).tolist(), float(self.gradient_norm / self.steps)
        for tensor in self.tensors().values():
            tensor.zero_()
        return means

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, not copied."""
        return {"channel_loss": self.channel_loss, "gradient_norm": self.gradient_norm, "steps": self.steps}


class TrainingState:
    """Model, optimizer, weight average, running sums and progress.

    Args:
        model: on its device.
        optimizer: over the model's parameters.
        average: None: the weights themselves are validated and exported.
    """

    def __init__(self, model: WeatherViT, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> None:
        self.model, self.optimizer, self.average = model, optimizer, average
        self.progress = Progress()
        self.window = Window(len(model.domain.channels), model.mean.device)

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside the block the model has the weights to validate: their average, where there is one."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def exported_parameters(self) -> dict[str, Tensor]:
        """The weights to give away, by name: their average, where there is one."""
        return dict(self.model.named_parameters()) if self.average is None else self.average.values

    def checkpoint(self, settings: dict[str, Any]) -> Checkpoint:
        """Everything, without copying; `settings` are those a resumed run must share."""
        record = {"progress": asdict(self.progress), "settings": settings}
        return Checkpoint(self.progress.step, self._fixed_tensors() | self._optimizer_tensors(), record)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint of a run with the same settings.

        Raises:
            InputError: tensors that do not fit this model.
        """
        found = dict(checkpoint.tensors)
        with torch.no_grad():
            for name, tensor in self._fixed_tensors().items():
                if name not in found or found[name].shape != tensor.shape:
                    raise InputError(
                        f"the checkpoint's {name} does not fit the model; start anew in another run folder"
                    )
                tensor.copy_(found.pop(name))
        self._restore_optimizer(found)
        self.progress = Progress(**checkpoint.record["progress"])

    def _fixed_tensors(self) -> dict[str, Tensor]:
        """Tensors that exist from the start, by name in a checkpoint; not copied."""
        tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in self.model.named_parameters()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.values.items()}
        return tensors | {f"window.{name}": value for name, value in self.window.tensors().items()}

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """AdamW's step count and moments by parameter name: independent of groups and of their order."""
        return {
            f"optimizer.{name}.{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        ordered = [names[p] for group in self.optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for i, name in enumerate(ordered):
            prefix = f"optimizer.{name}."
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if own:
                moments[i] = own
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
