"""Rows of channels that no batch of a step had: the step leaves them, and what the optimizer knows of them, alone.

Their gradient is zero, but AdamW would move them all the same: by what it remembers, and by weight decay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from weatherfm.model.initial import row_names
from weatherfm.model.model import WeatherViT
from weatherfm.model.share import ChannelShare
from weatherfm.training.parallel.channel_rows import local, rows_here


class UntouchedRows:
    """Keeps rows through an update.

    Args:
        model: of this rank.
        optimizer: of its weights.
        shares: what of each store's channels the model holds.
    """

    def __init__(self, model: WeatherViT, optimizer: torch.optim.Optimizer, shares: Sequence[ChannelShare]) -> None:
        self._optimizer = optimizer
        times = model.config.input_times
        self._names = [
            {*share.input_names(times), *(f"{name} predicted" for name in share.outputs)} for share in shares
        ]
        self._rows = [(p, _local_rows(model, name, p)) for name, p in model.named_parameters() if p.requires_grad]
        self._absent: dict[frozenset[int], list[tuple[torch.nn.Parameter, Tensor]]] = {}

    @contextmanager
    def kept(self, stores: Iterable[int]) -> Iterator[None]:
        """Inside, an update may move them; behind it they are as they were. `stores`: those of the step's batches."""
        held = [
            (tensor, rows, tensor.index_select(0, rows))
            for parameter, rows in self._absent_of(frozenset(stores))
            for tensor in map(local, self._tensors(parameter))
        ]
        yield
        for tensor, rows, values in held:
            tensor.index_copy_(0, rows, values)

    def _absent_of(self, stores: frozenset[int]) -> list[tuple[torch.nn.Parameter, Tensor]]:
        if stores not in self._absent:
            there = set().union(*(self._names[store] for store in stores))
            found = []
            for parameter, names in self._rows:
                places = [i for i, name in enumerate(names) if name not in there]
                if places:
                    found.append((parameter, torch.tensor(places, device=local(parameter).device)))
            self._absent[stores] = found
        return self._absent[stores]

    def _tensors(self, parameter: torch.nn.Parameter) -> list[Tensor]:
        return [parameter.data, *(value for value in self._optimizer.state[parameter].values() if value.ndim)]


def _local_rows(model: WeatherViT, name: str, parameter: Tensor) -> Sequence[str]:
    """Names of the rows of a parameter that are on this rank; none of one without rows."""
    rows = row_names(model, name) or []
    return rows_here(rows if name.startswith("tokenizer.") else [f"{row} predicted" for row in rows], parameter)
