"""Run a function on several gloo ranks of this machine and report each rank's failure by name."""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# ranks are forked from a process that has imported all this once: that takes longer than most tests
LATE = ["torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.tensor.parallel"]  # at its first use
OWN = ["weatherfm.training.trainer", "weatherfm.training.forecast_on_ranks", "weatherfm.training.plan.rank_step"]
TESTS = ["pytest", "yaml", "weatherfm.data_pipeline.prepare"]  # what files of tests import, and so each of their ranks
multiprocessing.set_forkserver_preload(["torch", *LATE, *OWN, *TESTS])


def spawn(world: int, function: Callable[..., Any], *arguments: Any, timeout: float = 300) -> list[Any]:
    """Call `function(rank, *arguments)` on every rank of a process group; returns what each gave back.

    The function must be importable (module level), its result picklable.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _rank, (world, folder, timeout, function, arguments), nprocs=world, start_method="forkserver"
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, folder: str, timeout: float, function: Callable[..., Any], arguments: tuple) -> None:
    gc.freeze()  # what was imported is never garbage: not to be looked through in every rank
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout))
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
