from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
import warnings

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING
from toy_model import make_model

import weatherfm.training.checkpoints.checkpoint as checkpoints
import weatherfm.training.checkpoints.tensor_files as tensor_files
from weatherfm.errors import InputError
from weatherfm.training.checkpoints.checkpoint import CheckpointFolder, newest, saved_steps
from weatherfm.training.checkpoints.state import TrainingState
from weatherfm.training.run_config import TrainingConfig
from weatherfm.training.stepping.optimizer import build_optimizer

DATA, METADATA, RECORD = "__0_0.distcp", ".metadata", "record.json"


def make(step):
    return {"weights": torch.full((5,), float(step)), "count": torch.tensor(step)}


def save(folder, step, keep=2):
    with CheckpointFolder(folder, keep) as checkpoint:
        checkpoint.save(step, make(step), {"note": step})
    return folder / f"step-{step:08d}"


def steps(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    assert newest(tmp_path / "absent") is None
    path = save(tmp_path / "run" / "checkpoints", 3)
    found = newest(path.parent)
    assert (found.step, found.record, found.path) == (3, {"note": 3}, path)
    tensors = {"weights": torch.zeros(5, requires_grad=True), "count": torch.tensor(0)}
    found.read_into(tensors)
    assert torch.equal(tensors["weights"], make(3)["weights"])
    assert tensors["count"] == 3


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(7).to(torch.bfloat16),
        torch.tensor(True),
        torch.zeros(0, 3),
        torch.randn(4, 6).t()[1:, ::2],
        torch.nn.Parameter(torch.randn(2)),
    ],
    ids=["float64", "bfloat16", "scalar", "empty", "strided", "parameter"],
)
def test_every_kind_of_tensor_comes_back(tmp_path, tensor):
    with CheckpointFolder(tmp_path, 1) as checkpoint:
        checkpoint.save(1, {"it": tensor}, {})
    found = torch.ones_like(tensor)
    newest(tmp_path).read_into({"it": found})
    assert torch.equal(found, tensor)


def test_copied_before_save_returns(tmp_path, monkeypatch):
    """Training changes the weights while they are being written."""
    may_write, write = threading.Event(), checkpoints.write_tensors

    def write_late(*arguments):
        may_write.wait()
        return write(*arguments)

    monkeypatch.setattr(checkpoints, "write_tensors", write_late)
    tensors, record = make(1), {"progress": {"step": 1}}
    with CheckpointFolder(tmp_path, 1) as checkpoint:
        checkpoint.save(1, tensors, record)
        tensors["weights"].zero_()
        record["progress"]["step"] = 2
        assert newest(tmp_path) is None
        may_write.set()
    found = newest(tmp_path)
    assert found.record == {"progress": {"step": 1}}
    found.read_into(tensors)
    assert torch.equal(tensors["weights"], make(1)["weights"])


def test_same_content_same_files(tmp_path):
    first, second = save(tmp_path / "a", 1), save(tmp_path / "b", 1)
    for name in (DATA, METADATA, RECORD):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_pytorch_reads_it_too(tmp_path):
    dcp_to_torch_save(save(tmp_path / "run", 4), tmp_path / "all.pt")
    assert torch.equal(torch.load(tmp_path / "all.pt")["weights"], make(4)["weights"])


def test_quiet_in_one_process(tmp_path):
    """Warnings of other threads would reach the screen of every run."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(tmp_path, 1)
        newest(tmp_path).read_into(make(0))


def test_keeps_the_newest(tmp_path):
    for step in (5, 10, 15, 100000000):
        save(tmp_path, step)
    assert steps(tmp_path) == ["step-00000015", "step-100000000"]
    assert newest(tmp_path).step == 100000000


def test_one_is_kept_apart(tmp_path):
    for step in (5, 10, 15, 20):
        with CheckpointFolder(tmp_path, 1, apart=10) as checkpoint:
            checkpoint.save(step, make(step), {})
    assert saved_steps(tmp_path) == [20, 10]
    save(tmp_path, 7)  # of a run that went back: what is later, is not its own
    assert saved_steps(tmp_path) == [7]


def test_what_was_passed_over_takes_no_place_of_those_to_keep(tmp_path):
    """Of a run that goes back, its next checkpoint after some of the former end."""
    for step in (3, 6, 7, 8):
        save(tmp_path, step, keep=4)
    with CheckpointFolder(tmp_path, 2, start=6) as checkpoint:
        assert saved_steps(tmp_path) == [8, 7, 6, 3]
        checkpoint.save(9, make(9), {})
        checkpoint.wait()
        assert saved_steps(tmp_path) == [9, 6]
        checkpoint.save(10, make(10), {})
    assert saved_steps(tmp_path) == [10, 9]


def test_those_that_suit_come_first(tmp_path, caplog):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, keep=4)
    assert newest(tmp_path, lambda record: record["note"] < 3).step == 2
    assert newest(tmp_path, lambda record: False).step == 4
    flip(tmp_path / "step-00000002" / DATA)
    assert newest(tmp_path, lambda record: record["note"] < 3).step == 1
    (tmp_path / "step-00000004" / RECORD).unlink()
    caplog.clear()
    assert newest(tmp_path, lambda record: record["note"] == 3).step == 3
    assert "step-00000004 is damaged" in caplog.text


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [DATA, METADATA, RECORD])
@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.unlink()], ids=["cut", "flipped", "absent"])
def test_damaged_one_is_passed_over(tmp_path, caplog, name, damage):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    damage(path)
    if name == RECORD and damage is flip:  # the last byte is the line's end: damage what matters
        path.write_text("{]")
    assert newest(tmp_path).step == 1
    assert "step-00000002 is damaged" in caplog.text


def test_only_damaged_ones_are_refused(tmp_path):
    flip(save(tmp_path, 1) / DATA)
    with pytest.raises(InputError, match=r"no checkpoint can be read:\n.*checksum.*\n.*remove"):
        newest(tmp_path)


def test_other_version_is_refused(tmp_path):
    record = save(tmp_path, 1) / RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": "weatherfm checkpoint 1"}))
    with pytest.raises(InputError, match="not of this version"):
        newest(tmp_path)


class Harm:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [(os.mkdir, ("harm",)), (getattr, (torch.Size, "__init__"))], ids=["mkdir", "getattr"])
def test_metadata_that_would_run_code_is_refused(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "run", 1)
    saved = newest(tmp_path / "run")
    (saved.path / METADATA).write_bytes(pickle.dumps(Harm(*call)))
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir|__init__"):
        saved.read_into(make(0))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("by_name", [True, False])
def test_every_python_writes_enums_that_are_read(tmp_path, monkeypatch, by_name):
    """Python 3.11.2 writes a member of an enum as getattr(enum, name), others as enum(value)."""

    def reduce(member, protocol):
        kind = type(member)
        return (getattr, (kind, member.name)) if by_name else (kind, (member.value,))

    monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", reduce)
    save(tmp_path, 1)
    tensors = make(0)
    newest(tmp_path).read_into(tensors)
    assert torch.equal(tensors["weights"], make(1)["weights"])


def test_a_checkpoint_that_lacks_a_tensor_does_not_count(tmp_path, monkeypatch):
    """As if the writer had lost one: its list is read back before the folder gets its name."""
    save(tmp_path, 1)
    monkeypatch.setattr(tensor_files, "tensor_names", lambda folder: {"weights"})
    with pytest.raises(RuntimeError, match="does not hold what the ranks do: count"):
        save(tmp_path, 2)
    assert newest(tmp_path).step == 1


def test_optimizer_state_that_is_not_there_is_not_saved():
    model = make_model()
    optimizer = build_optimizer(model, TrainingConfig())
    state = TrainingState(model, optimizer, None, len(model.domain.channels), 1)
    assert "optimizer.exp_avg.position.weight" in state.tensors()
    del optimizer.state[model.position.weight]
    with pytest.raises(RuntimeError, match=r"no state of position\.weight"):
        state.tensors()


def test_tensors_that_do_not_fit_are_named(tmp_path):
    save(tmp_path, 1)
    wanted = {"weights": torch.ones(2, 3), "count": torch.tensor(0), "bias": torch.ones(1)}
    with pytest.raises(
        InputError, match=r"weights has shape \[5\] there, \[2, 3\] here; bias is not there; start anew"
    ):
        newest(tmp_path).read_into(wanted)
    assert torch.equal(wanted["count"], torch.tensor(0))
    with pytest.raises(InputError, match=r"t4 is not there and 3 more;"):
        newest(tmp_path).read_into({f"t{i}": torch.ones(1) for i in range(8)})


def test_passed_over_checkpoint_does_not_outlive_newer_work(tmp_path):
    damaged = tmp_path / "step-00000020"
    shutil.copytree(save(tmp_path, 10), damaged)
    flip(damaged / DATA)
    save(tmp_path, 15, keep=1)
    assert steps(tmp_path) == ["step-00000015"]


@pytest.mark.parametrize("dies_in", ["_flush", "rename"])
def test_death_in_the_middle_leaves_the_old_one(tmp_path, monkeypatch, dies_in):
    def die(*arguments):
        raise KeyboardInterrupt

    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints if dies_in == "_flush" else checkpoints.os, dies_in, die)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [".step-00000002", "step-00000001"]
    assert newest(tmp_path).step == 1
    save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == ["step-00000002"]


def test_same_step_is_replaced(tmp_path):
    save(tmp_path, 1)
    with CheckpointFolder(tmp_path, 1) as checkpoint:
        checkpoint.save(1, {"weights": torch.zeros(2)}, {})
    with pytest.raises(InputError, match="count is not there"):
        newest(tmp_path).read_into({"count": torch.tensor(0)})


def break_disk(monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_tensors", fail)


def test_failure_in_the_background_is_raised_by_the_next_save(tmp_path, monkeypatch):
    break_disk(monkeypatch)
    checkpoint = CheckpointFolder(tmp_path, 1)
    checkpoint.save(1, make(1), {})
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(2, make(2), {})
    checkpoint.wait()  # told once


def train_into_nan(folder):
    with CheckpointFolder(folder, 1) as checkpoint:
        checkpoint.save(1, make(1), {})
        raise InputError("loss is not finite")


def test_error_in_training_does_not_lose_the_save_under_way(tmp_path):
    with pytest.raises(InputError, match="loss is not finite"):
        train_into_nan(tmp_path)
    assert newest(tmp_path).step == 1


def test_failure_in_the_background_does_not_hide_why_training_ended(tmp_path, monkeypatch, caplog):
    break_disk(monkeypatch)
    with pytest.raises(InputError, match="loss is not finite"):
        train_into_nan(tmp_path)
    assert "is lost ([Errno 28] No space left on device)" in caplog.text


def test_record_that_is_no_json_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        CheckpointFolder(tmp_path, 1).save(1, make(1), {"loss": float("nan")})
