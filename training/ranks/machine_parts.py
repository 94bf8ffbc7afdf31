"""What each of several trainings side by side has of a machine: GPUs that no other has, threads, memory."""

from __future__ import annotations

import os

import torch

from weatherfm.data_pipeline.machine.host_memory import BESIDE
from weatherfm.training.ranks.launch import on_gpus

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def machine_parts(count: int, devices: int, device: str) -> list[dict[str, str]]:
    """Environment variables of each of `count` trainings at once, for all of its processes.

        machine_parts(2, 2, "auto")  # on four GPUs: CUDA_VISIBLE_DEVICES 0,1 and 2,3

    Ranks take the GPUs they see in their order, by LOCAL_RANK. Of those that this process sees itself the last may stay
    idle. Threads are those of this process in equal parts, unless OMP_NUM_THREADS says how many.

    Args:
        count: trainings side by side, for which there are GPUs enough (`require_devices`).
        devices: processes of each.
        device: that setting of the run.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, torch.get_num_threads() // (count * devices)))
    parts = [{BESIDE: str(count), "OMP_NUM_THREADS": threads} for _ in range(count)]
    if on_gpus(device):
        gpus = _visible_gpus()
        for place, part in enumerate(parts):
            part[_VISIBLE] = ",".join(gpus[place * devices : (place + 1) * devices])
    return parts


def _visible_gpus() -> list[str]:
    """Names of the GPUs that this process sees, as the variable has them: numbers, or those of a part of a GPU."""
    named = os.environ.get(_VISIBLE)
    return [str(i) for i in range(torch.cuda.device_count())] if named is None else named.replace(" ", "").split(",")
