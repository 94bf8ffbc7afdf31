"""All that changes while training, and its way into a checkpoint and back.

Randomness and the position in the data are not state: both follow from (seed, step).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weatherfm.model import WeatherViT
from weatherfm.training.channel_rows import named_parts
from weatherfm.training.ema import WeightAverage

if TYPE_CHECKING:
    from weatherfm.training.checkpoint import Saved


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
        model: on its device; it may hold a share of the channels, and parts of the weights.
        optimizer: over the model's parameters, its moments in place (`build_optimizer`).
        average: None: the weights themselves are validated and exported.
        channels: of the whole model.
    """

    def __init__(
        self, model: WeatherViT, optimizer: torch.optim.Optimizer, average: WeightAverage | None, channels: int
    ) -> None:
        self.model, self.optimizer, self.average = model, optimizer, average
        self._parameters = dict(model.named_parameters())  # as split over ranks: gathered they would be others
        self.progress = Progress()
        self.window = Window(channels, model.mean.device)

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
            if parameter not in self.optimizer.state:  # asking for it would make an empty one
                raise RuntimeError(f"the optimizer has no state of {name}: a checkpoint would be incomplete")
            tensors |= self._parts("model", name, parameter.detach())
            if self.average is not None:
                tensors |= self._parts("average", name, self.average.values[name])
            for key, value in self.optimizer.state[parameter].items():
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
        saved.read_into(self.tensors())
        self.progress = Progress(**saved.record["progress"])

    def _parts(self, prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
        return {f"{prefix}.{key}": part for key, part in named_parts(self.model, name, tensor)}
