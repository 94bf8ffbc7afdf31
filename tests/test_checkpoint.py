from __future__ import annotations

import json
import shutil

import pytest
import torch

import weatherfm.training.checkpoint as checkpoints
from weatherfm.errors import InputError
from weatherfm.training.checkpoint import Checkpoint, load_newest, save_checkpoint


def make(step):
    return Checkpoint(step, {"weights": torch.full((5,), float(step)), "count": torch.tensor(step)}, {"note": step})


def steps(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    assert load_newest(tmp_path / "absent") is None
    save_checkpoint(tmp_path, make(3), keep=2)
    found = load_newest(tmp_path)
    assert (found.step, found.record) == (3, {"note": 3})
    assert torch.equal(found.tensors["weights"], make(3).tensors["weights"])
    assert found.tensors["count"].dtype == torch.int64


def test_keeps_the_newest(tmp_path):
    for step in (5, 10, 15, 100000000):
        save_checkpoint(tmp_path, make(step), keep=2)
    assert steps(tmp_path) == ["step-00000015", "step-100000000"]
    assert load_newest(tmp_path).step == 100000000


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["tensors.safetensors", "record.json"])
@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.unlink()], ids=["cut", "flipped", "absent"])
def test_damaged_one_is_passed_over(tmp_path, caplog, name, damage):
    save_checkpoint(tmp_path, make(1), keep=2)
    newest = save_checkpoint(tmp_path, make(2), keep=2)
    damage(newest / name)
    if name == "record.json" and damage is flip:  # the last byte is the line's end: damage what matters
        newest.joinpath(name).write_text("{]")
    assert load_newest(tmp_path).step == 1
    assert "step-00000002 is damaged" in caplog.text


def test_only_damaged_ones_are_refused(tmp_path):
    flip(save_checkpoint(tmp_path, make(1), keep=1) / "tensors.safetensors")
    with pytest.raises(InputError, match=r"no checkpoint can be read:\n.*checksum.*\n.*remove"):
        load_newest(tmp_path)


def test_other_version_is_refused(tmp_path):
    record = save_checkpoint(tmp_path, make(1), keep=1) / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": "weatherfm checkpoint 0"}))
    with pytest.raises(InputError, match="not of this version"):
        load_newest(tmp_path)


def test_passed_over_checkpoint_does_not_outlive_newer_work(tmp_path):
    save_checkpoint(tmp_path, make(10), keep=1)
    damaged = tmp_path / "step-00000020"
    shutil.copytree(tmp_path / "step-00000010", damaged)
    flip(damaged / "tensors.safetensors")
    save_checkpoint(tmp_path, make(15), keep=1)
    assert steps(tmp_path) == ["step-00000015"]


@pytest.mark.parametrize("dies_in", ["_flush", "rename"])
def test_death_in_the_middle_leaves_the_old_one(tmp_path, monkeypatch, dies_in):
    def die(*arguments):
        raise KeyboardInterrupt

    save_checkpoint(tmp_path, make(1), keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints if dies_in == "_flush" else checkpoints.os, dies_in, die)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, make(2), keep=1)
    assert steps(tmp_path) == [".step-00000002", "step-00000001"]
    assert load_newest(tmp_path).step == 1
    save_checkpoint(tmp_path, make(2), keep=1)
    assert steps(tmp_path) == ["step-00000002"]


def test_same_step_is_replaced(tmp_path):
    save_checkpoint(tmp_path, make(1), keep=1)
    save_checkpoint(tmp_path, Checkpoint(1, {"weights": torch.zeros(2)}, {}), keep=1)
    assert load_newest(tmp_path).tensors.keys() == {"weights"}
