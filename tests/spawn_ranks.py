"""Run a function on several gloo ranks of this machine and report each rank's failure by name."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

multiprocessing.set_forkserver_preload(["rank_imports"])  # once: that takes longer than most tests
HERE = str(Path(__file__).parent)


def spawn(world: int, function: Callable[..., Any], *arguments: Any, timeout: float = 300) -> list[Any]:
    """Call `function(rank, *arguments)` on every rank of a process group; returns what each gave back.

    The function must be importable (module level), its result picklable.
    """
    with tempfile.TemporaryDirectory() as folder:
        start_fork_server()
        mp.start_processes(
            _rank, (world, folder, timeout, function, arguments), nprocs=world, start_method="forkserver"
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def start_fork_server() -> None:
    """Unless it runs. It finds `rank_imports` by its environment alone, which no other process is to inherit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", HERE, prepend=os.pathsep)
        forkserver.ensure_running()


def _rank(rank: int, world: int, folder: str, timeout: float, function: Callable[..., Any], arguments: tuple) -> None:
    gc.set_threshold(50_000)
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout))
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
