"""Counts what a training step holds, computes and sends, on real tensors and on simulated ones alike.

It stands below autograd, FSDP and DTensor and sees every operation on this rank's own tensors. What happens inside of
one operation (a kernel's workspace) and between them (an allocator's rounding) it does not see.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from weatherfm.training.parallel.channel_rows import local
from weatherfm.training.plan.traffic import sent_by

_aten = torch.ops.aten
_WRAPPERS = (DTensor, AsyncCollectiveTensor)
"""Tensors around a tensor of this rank, which is what counts."""
_DEVICE = torch.ops.prim.device.default
_WAIT = torch.ops._c10d_functional.wait_tensor.default


class Moment(NamedTuple):
    """Where a step is."""

    phase: str
    """setup, forward, backward or update."""
    part: str
    """front (tokenise and aggregate), blocks, head, or other."""
    block: int | None = None
    """Number of the transformer block."""


@dataclass(eq=False)
class Allocation:
    """A storage: its size now, and what is known of its use."""

    size: int
    born: Moment
    name: str | None = None
    """What the counter was told that it holds."""
    sent: bool = False
    """FSDP's buffers: whole tensors that a collective reads or fills in place."""
    resized: bool = False
    """FSDP's gathered weights: emptied and filled again."""


class Event(NamedTuple):
    """Bytes that came or went."""

    allocation: Allocation
    change: int
    moment: Moment


class StepCounter(TorchDispatchMode):
    """Counts while active; make one with `counting`.

    Attributes:
        moment: where the step is; set from outside (see `weatherfm.training.plan.model_parts`).
        events: of memory, in order.
        flops: of matrix products, convolutions and attention by moment; a multiply-add is two.
        sent: bytes by (moment, axis, kind of collective).
    """

    def __init__(self, axes: Mapping[str, str]) -> None:
        super().__init__()
        self.moment = Moment("setup", "other")
        self.events: list[Event] = []
        self.flops: Counter[Moment] = Counter()
        self.sent: Counter[tuple[Moment, str, str]] = Counter()
        self._axes = axes
        self._live: dict[int, Allocation] = {}
        self._paused = False

    def hold(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Say what tensors are; those made before counting began are counted from now on."""
        for tensor in tensors:
            allocation = self._see(local(tensor).detach())
            if allocation is not None:
                allocation.name = name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        if any(issubclass(t, _WRAPPERS) for t in types):
            return NotImplemented  # it goes on to operations on local tensors, which come here again
        kwargs = kwargs or {}
        if func is _DEVICE:  # asked for at every turn
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if func is _WAIT:
            return args[0]  # as it truly is; the simulated one would be a new tensor
        if self._paused:
            return out
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and not isinstance(tensor, _WRAPPERS):
                self._see(tensor)
        if flops := flops_of(func, args, kwargs, out):
            self.flops[self.moment] += flops
        if (sent := sent_by(func, args, kwargs)) is not None:
            self.sent[self.moment, self._axes.get(sent.group, sent.group), sent.kind] += sent.size
            if func.namespace == "c10d":
                self._mark_sent(args)
        return out

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Count nothing inside."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def resized(self, storage: torch.UntypedStorage) -> None:
        """A storage has another size now."""
        if (allocation := self._live.get(storage._cdata)) is not None:
            self._change(allocation, storage.nbytes() - allocation.size)
            allocation.resized = True

    def _see(self, tensor: Tensor) -> Allocation | None:
        if tensor.device.type == "meta":  # shapes only: DTensor finds out what an operation would give
            return None
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            allocation = self._live[key] = Allocation(0, self.moment)
            weakref.finalize(storage, self._free, key).atexit = False
            self._change(allocation, storage.nbytes())
        return self._live[key]

    def _change(self, allocation: Allocation, change: int) -> None:
        if change:
            allocation.size += change
            self.events.append(Event(allocation, change, self.moment))

    def _free(self, key: int) -> None:
        allocation = self._live.pop(key)
        self._change(allocation, -allocation.size)

    def _mark_sent(self, args: tuple[Any, ...]) -> None:
        for tensor in tree_leaves(args):
            if isinstance(tensor, Tensor) and (allocation := self._see(tensor)) is not None:
                allocation.sent = True


@contextmanager
def counting(axes: Mapping[str, str] | None = None) -> Iterator[StepCounter]:
    """Count all that this thread does inside; `axes` names process groups (see `axis_names`)."""
    counter = StepCounter(axes or {})

    def resize(original: Callable[..., Any], storage: torch.UntypedStorage, size: int) -> Any:
        out = original(storage, size)
        counter.resized(storage)
        return out

    def propagate(original: Callable[..., Any], *args: Any) -> Any:
        with counter.pausing():
            return original(*args)

    with (
        _wrapped(torch.UntypedStorage, "resize_", resize),  # no operation: the counter would not see it
        # DTensor asks once what an operation on whole tensors would give; nobody computes that
        _wrapped(ShardingPropagator, "_propagate_tensor_meta_non_cached", propagate),
        counter,
    ):
        yield counter


@contextmanager
def _wrapped(owner: type, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: wrapper(original, *args, **kwargs))
    try:
        yield
    finally:
        setattr(owner, name, original)


def flops_of(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """Operations of a matrix product, a convolution or an attention, forward or backward; 0 for all else."""
    packet = func._overloadpacket
    if packet is _aten.convolution_backward:  # that registry takes the weight's gradient for one of a single group
        of_output, _, weight, *_, wanted = args
        return 2 * of_output.numel() * weight[0].numel() * sum(wanted[:2])
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    if packet is _aten._scaled_dot_product_flash_attention_for_cpu:  # unknown to that registry
        return int(sdpa_flop_count(*(t.shape for t in args[:3])))
    if packet is _aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return int(sdpa_backward_flop_count(*(t.shape for t in args[:4])))
    return 0
