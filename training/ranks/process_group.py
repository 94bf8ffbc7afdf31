"""The process group: the connections that collectives of PyTorch go over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore

from weatherfm.training.ranks.roster import Roster, muster

_MARGIN = 30.0  # seconds in which the ranks find out who is missing, before PyTorch ends them without a name


@contextmanager
def join(device: torch.device, timeout: float) -> Iterator[Roster]:
    """A process group of all ranks that were started together, while the block runs.

    Without a launcher there is no process group, and the roster holds this process alone; one that is there already
    is used as it is.

    Args:
        device: of this rank. Collectives of tensors on a GPU go over NCCL, those of tensors on the CPU over gloo.
        timeout: seconds at one step after which the job ends with the name of who was missing.

    Raises:
        OutsideError: a rank did not start, or is gone.
        QuietExit: the job failed and another rank tells why.
    """
    if device.type == "cuda":
        torch.cuda.set_device(
            device
        )  # also alone: streams, events and compiled kernels are those of the present device
    with muster() as roster:
        if roster.store is None:
            yield roster
            return
        roster.watch(timeout)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", roster.store),
            rank=roster.rank,
            world_size=roster.world,
            timeout=timedelta(seconds=timeout + _MARGIN),
        )
        yield roster
        roster.unwatch()  # only where all went well: after a failure the connections end with the process
        dist.destroy_process_group()
