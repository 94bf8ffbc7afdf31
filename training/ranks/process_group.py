"""The process group: the connections that collectives of PyTorch go over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore

from weatherfm.training.ranks.job import Job, join_job

_MARGIN = 30.0  # seconds in which the ranks find out who is missing, before PyTorch ends them without a name


@contextmanager
def join(device: torch.device, timeout: float) -> Iterator[Job]:
    """A process group of all ranks that were started together, while the block runs.

    Without a launcher there is no process group, and the job holds this process alone; one that is there already
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
    with join_job() as job:
        if job.store is None:
            yield job
            return
        job.watch(timeout)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore(f"group{job.trainings}", job.store),
            rank=job.rank,
            world_size=job.world,
            timeout=timedelta(seconds=timeout + _MARGIN),
        )
        yield job
        job.unwatch()  # only where all went well: after a failure the connections end with the process
        dist.destroy_process_group()
