"""A checkpoint saved by ranks of one layout is loaded by ranks of another, or by one process."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from spawn_ranks import spawn
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

import weatherfm.training.checkpoints.tensor_files as tensor_files
from weatherfm.errors import InputError, OutsideError
from weatherfm.training.checkpoints.checkpoint import CheckpointFolder, newest

CHANNELS = ["z500", "t850", "u10", "v10", "sp"]

SHAPES = {"whole": (4, 3), "position": (7, 6), "steps": (), **{f"channel.{name}": (6,) for name in CHANNELS}}

FIRST = (1, 2, 2)
LAYOUTS = [FIRST, (1, 4, 1), (1, 1, 4), (2, 2, 1), (2, 1, 2), (1, 2, 1), (1, 1, 2)]
"""(dp_replicate, dp_shard, tp)."""


def values(seed: int) -> dict[str, Tensor]:
    """Every tensor of the state, whole."""
    generator = torch.Generator().manual_seed(seed)
    whole = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return whole | {name: weight.detach() for name, weight in block(seed).named_parameters()}


def block(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 6))  # 10 rows: 5 a tp rank, 3 and 2 a dp rank


def state(layout: tuple[int, int, int], seed: int) -> dict[str, Tensor]:
    """This rank's part of `values(seed)`: every kind of placement that training has, and a smaller mesh."""
    if math.prod(layout) == 1:
        return values(seed)
    mesh = init_device_mesh("cpu", layout, mesh_dim_names=("dp_replicate", "dp_shard", "tp"))
    flat = init_device_mesh("cpu", (layout[0], layout[1] * layout[2]), mesh_dim_names=("dp_replicate", "shard"))
    dp, tp, rank = mesh["dp_replicate", "dp_shard"], mesh["tp"], mesh["tp"].get_local_rank()
    whole = values(seed)
    tensors = {
        "whole": distribute_tensor(whole["whole"], mesh, [Replicate(), Shard(0), Shard(1)], src_data_rank=None),
        "position": distribute_tensor(whole["position"], flat, [Replicate(), Shard(0)], src_data_rank=None),
        "steps": whole["steps"],
    }
    for name in CHANNELS[rank :: layout[2]]:  # only on the ranks that hold the channel
        key = f"channel.{name}"
        tensors[key] = distribute_tensor(whole[key], mesh["dp_shard"], [Shard(0)], src_data_rank=None)
    return tensors | dict(sharded_block(dp, tp, seed).named_parameters())


def sharded_block(dp: DeviceMesh, tp: DeviceMesh, seed: int) -> nn.Module:
    """Tensor parallel and FSDP2, which split the first weight's rows both."""
    module = block(seed)
    parallelize_module(module, tp, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    return fully_shard(module, mesh=dp)


def compare(tensors: dict[str, Tensor], seed: int) -> None:
    expected = values(seed)
    for name, tensor in tensors.items():
        found = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        assert torch.equal(found, expected[name]), name


def save_on(rank: int, folder: Path, layout: tuple[int, int, int], *steps: int, keep: int = 2) -> None:
    with CheckpointFolder(folder, keep) as checkpoint:
        for step in steps:
            checkpoint.save(step, state(layout, seed=step), {"step": step})


def load_on(rank: int, folder: Path, layout: tuple[int, int, int], step: int) -> None:
    saved = newest(folder)
    assert (saved.step, saved.record) == (step, {"step": step})
    tensors = state(layout, seed=0)
    saved.read_into(tensors)
    compare(tensors, step)


def load_and_save_on(rank: int, folder: Path, layouts: list[tuple[int, int, int]]) -> None:
    for layout in layouts:
        load_on(rank, folder / str(FIRST), layout, 5)
        if layout != FIRST:
            save_on(rank, folder / str(layout), layout, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds checkpoints of step 5 by layout; each layout has loaded the first one's."""
    folder = tmp_path_factory.mktemp("checkpoints")
    spawn(4, save_on, folder / str(FIRST), FIRST, 5)
    for world in (4, 2):
        spawn(world, load_and_save_on, folder, [layout for layout in LAYOUTS if math.prod(layout) == world])
    return folder


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_one_process_loads_what_ranks_saved(folder, layout):
    load_on(0, folder / str(layout), (1, 1, 1), 5)


def test_one_file_a_rank(folder):
    names = {path.name for path in (folder / str(FIRST) / "step-00000005").iterdir()}
    assert names == {".metadata", "record.json", *(f"__{rank}_0.distcp" for rank in range(4))}


@pytest.mark.slow
def test_eight_ranks(tmp_path):
    save_on(0, tmp_path, (1, 1, 1), 5)
    spawn(8, load_on, tmp_path, (2, 2, 2), 5)


def save_beside_training(rank: int, folder: Path) -> None:
    """Many small collectives in training's group, while the thread of the checkpoint has its own."""
    with CheckpointFolder(folder, keep=2) as checkpoint:
        for step in range(1, 6):
            checkpoint.save(step, {"copies": torch.arange(100_000.0) * step}, {})
            for i in range(40):
                total = torch.tensor(float(rank + i))
                dist.all_reduce(total)
                assert total == 2 * i + 1


def test_copies_are_written_once_and_beside_training(tmp_path):
    spawn(2, save_beside_training, tmp_path)
    steps = sorted(path.name for path in tmp_path.iterdir())
    assert steps == ["step-00000004", "step-00000005"]
    assert sum(path.stat().st_size for path in (tmp_path / steps[-1]).glob("*.distcp")) < 1.1 * 400_000
    tensors = {"copies": torch.zeros(100_000)}
    newest(tmp_path).read_into(tensors)
    assert torch.equal(tensors["copies"], torch.arange(100_000.0) * 5)


def die_while_writing(rank: int, folder: Path) -> None:
    """Rank 1 is killed after its file is written, before rank 0 hears of it."""
    save_on(rank, folder, (1, 2, 1), 1)
    if rank == 1:
        tensor_files.sha256 = lambda path: os.kill(os.getpid(), signal.SIGKILL)
    save_on(rank, folder, (1, 2, 1), 2)


def test_killed_rank_leaves_the_checkpoint_before(tmp_path):
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        spawn(2, die_while_writing, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".step-00000002", "step-00000001"]
    spawn(2, load_on, tmp_path, (1, 1, 2), 1)
    spawn(2, save_on, tmp_path, (1, 1, 2), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    load_on(0, tmp_path, (1, 1, 1), 2)


def fail_on_one_rank(rank: int, folder: Path) -> None:
    checkpoint = CheckpointFolder(folder, keep=2)
    checkpoint.save(1, {"shared": torch.ones(3)}, {})
    checkpoint.wait()

    wanted = {"shared": torch.zeros(3)} | ({"absent": torch.zeros(2)} if rank == 1 else {})
    with pytest.raises(InputError, match="absent is not there"):
        newest(folder).read_into(wanted)
    assert not wanted["shared"].any()

    def fail(path: Path) -> str:
        raise OSError(28, "No space left on device")

    if rank == 1:
        tensor_files.sha256 = fail
    checkpoint.save(2, {f"own{rank}": torch.ones(3)}, {})
    kind, words = (OSError, "No space left") if rank == 1 else (OutsideError, "rank 1: OSError: .*No space left")
    with pytest.raises(kind, match=words):
        checkpoint.wait()


def test_failure_on_one_rank_is_told_on_all(tmp_path):
    spawn(2, fail_on_one_rank, tmp_path)
    assert newest(tmp_path).step == 1


def pass_over_damage(rank: int, folder: Path) -> None:
    save_on(rank, folder, (1, 1, 2), 1, 2, 3, keep=3)
    if rank == 0:
        (folder / "step-00000003" / "__0_0.distcp").write_bytes(b"")
        (folder / "step-00000002" / "__1_0.distcp").unlink()
    dist.barrier()
    load_on(rank, folder, (1, 1, 2), 1)


def test_damage_is_passed_over_by_all_ranks(tmp_path):
    spawn(2, pass_over_damage, tmp_path)


def save_apart(rank: int, folder: Path) -> None:
    checkpoint = CheckpointFolder(folder / str(rank), keep=1)
    checkpoint.save(1, {f"own{rank}": torch.ones(3)}, {})
    with pytest.raises(InputError, match=r"not one folder for all ranks \(no __1_0.distcp in it\)"):
        checkpoint.wait()


def test_ranks_that_do_not_share_a_disk_are_refused(tmp_path):
    spawn(2, save_apart, tmp_path)
    assert newest(tmp_path / "0") is None
