"""What validation holds things to, by hand; and in one process, where a run is too large or does not go on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import toy_run
from torch import nn

import weatherfm
from weatherfm.cli import run_command
from weatherfm.config import parse_settings
from weatherfm.training import save_and_resume, validate
from weatherfm.training.checkpoints.state import TrainingState
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.run_config import RunConfig
from weatherfm.training.save_and_resume import folder_beside, resume_row
from weatherfm.training.timed_steps import Timed, speed_rows
from weatherfm.training.validating import expected, rates
from weatherfm.training.validating.bounds import TIMES, Bound, in_precision, judge
from weatherfm.training.validating.comparison import Comparison, Difference, compare, distance
from weatherfm.training.validating.evidence import GRADIENTS, WEIGHTS, Key, Piece
from weatherfm.training.validating.memory import memory_row
from weatherfm.training.validating.shortened import (
    largest_that_fits,
    quieten,
    short,
    what_is_smaller,
    with_chance_of,
    with_depth,
    without_chance,
)
from weatherfm.training.validating.table import Row, Validation, of_dict, to_dict, to_text

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validating")
    toy_run.make_store(folder)
    return folder


# bounds -----------------------------------------------------------------------------------------------------------


def apart(kind: str, **tensors: tuple[float, dict[int, float]]) -> Comparison:
    """Tensors by name: their size, and what each rank's part is off by."""
    return Comparison(tuple(Difference(Key(kind, name), *told) for name, told in tensors.items()), {})


def test_the_worst_tensor_and_the_ranks_that_are_wrong_are_named():
    near = apart(GRADIENTS, a=(2.0, {0: 2e-12, 1: 1e-12}), b=(1.0, {0: 0.0, 1: 3e-12}))
    row = judge("gradients", GRADIENTS, near, Bound(1e-9))
    assert (row.ok, row.found, row.bound) == (True, "3.0e-12, b", "1.0e-09")
    assert (row.value, row.limit) == (pytest.approx(3e-12), 1e-9)
    far = apart(GRADIENTS, a=(2.0, {0: 2e-12, 1: 1e-12}), b=(1.0, {0: 0.0, 1: 0.25}))
    assert judge("gradients", GRADIENTS, far, Bound(1e-9)).found == "2.5e-01 on rank 1, b"
    both = apart(GRADIENTS, a=(2.0, {0: 2.0, 1: 1e-12}), b=(1.0, {0: 0.0, 1: 0.25}))
    assert judge("gradients", GRADIENTS, both, Bound(1e-9)).found == "1.0e+00 on all ranks, a"
    assert judge("gradients", GRADIENTS, apart(GRADIENTS, a=(1.0, {0: 0.0})), Bound(0.0)).found == "the same to the bit"


def test_a_tensor_of_nearly_zero_counts_as_a_millionth_of_all():
    """By hand: all tensors together are 1 (to 1e-20), so one of 1e-10 counts as 1e-6."""
    found = apart(GRADIENTS, a=(1.0, {0: 0.0}), key_bias=(1e-10, {0: 1e-17}))
    assert judge("gradients", GRADIENTS, found, Bound(1e-9)).value == pytest.approx(1e-11)


def test_in_the_runs_precision_some_times_one_ranks_rounding_is_allowed():
    rounding = {Key(GRADIENTS, "a"): 3e-5, Key(GRADIENTS, "b"): 4e-5}  # of all, whose norm is 5: 5e-5 / 5
    found = apart(GRADIENTS, a=(3.0, {0: 2.3e-4}), b=(4.0, {0: 3.1e-4}))
    row = judge("gradients", GRADIENTS, found, in_precision(rounding))
    assert TIMES == 8
    assert row.limit == pytest.approx(8e-5)
    assert row.bound == "8.0e-05 (8 x one rank's)"
    assert row.ok
    assert not judge("gradients", GRADIENTS, apart(GRADIENTS, a=(3.0, {0: 2.5e-4})), in_precision(rounding)).ok


def test_weights_after_a_step_may_be_judged_as_one_vector():
    found = apart(WEIGHTS, a=(3.0, {0: 3e-6, 1: 0.0}), b=(4.0, {0: 4e-6}))
    row = judge("weights", WEIGHTS, found, in_precision({Key(WEIGHTS, "a"): 1e-6}), together=True)
    assert row.value == pytest.approx(1e-6)  # 5e-6 / 5
    assert row.limit == pytest.approx(1.6e-6)  # 8 x 1e-6 / 5
    assert row.found == "1.0e-06, all as one vector"


def test_what_nobody_has_is_missed_and_what_one_rank_has_not_is_strange():
    missing = Comparison((Difference(Key(WEIGHTS, "a"), 1.0, {}),), {})
    assert judge("weights", WEIGHTS, missing, Bound(1.0)).found == "no rank has a"
    strange = Comparison((Difference(Key(WEIGHTS, "a"), 1.0, {0: 0.0}),), {Key(WEIGHTS, "b"): (1,)})
    row = judge("weights", WEIGHTS, strange, Bound(1.0))
    assert (row.ok, row.found) == (False, "on rank 1 there is b, which one rank alone has not")
    assert not judge("weights", WEIGHTS, Comparison((), {}), Bound(1.0)).ok


def test_distances():
    nan = float("nan")
    one = torch.tensor([3.0, nan, 1.0])
    assert distance(one, torch.tensor([0.0, nan, 5.0])) == pytest.approx(5.0)  # 3, 4
    assert distance(one, torch.tensor([3.0, 2.0, 1.0])) == float("inf")
    assert distance(one, torch.tensor([3.0, nan])) == float("inf")
    own = {Key(WEIGHTS, "a"): Piece(torch.tensor([4.0]), lambda whole: whole[1:])}
    (found,) = compare(own, {Key(WEIGHTS, "a"): torch.tensor([3.0, 4.0])}).differences
    assert (found.size, found.by_rank) == (5.0, {0: 0.0})


# memory, speed ----------------------------------------------------------------------------------------------------


def test_memory_is_held_against_the_plan():
    config, gpu = SimpleNamespace(data=SimpleNamespace(mix=[])), torch.device("cuda")
    assert memory_row(config, 1.09e9, 1e9, CPU).ok
    assert not memory_row(config, 1.11e9, 1e9, CPU).ok
    assert not memory_row(config, 0.89e9, 1e9, CPU).ok
    assert memory_row(config, 1.19e9, 1e9, gpu).ok  # 0.1 GB of workspaces
    assert not memory_row(config, 1.21e9, 1e9, gpu).ok
    assert memory_row(SimpleNamespace(data=SimpleNamespace(mix=[1, 2])), 0.5e9, 1e9, gpu).ok
    row = memory_row(config, 1.09e9, 1e9, CPU)
    assert row.found == "1.09 GB counted on real tensors, 1 GB planned"


def test_figures_of_speed_by_hand():
    config = parse_settings(RunConfig, toy_run.run_settings(Path("x"), accumulate=3), "test")
    step = SimpleNamespace(total_sent=lambda: {("tp", "all-gather"): 2e6, ("dp_shard", "all-gather"): 4e6})
    timed = Timed(0.5, 7, 0.25, 4e12, False, 1e8, 0.0)
    rows = speed_rows(config, SimpleNamespace(step=step, flops=1e12), timed, 2)
    assert {row.check: row.value for row in rows} == {
        "a step": 0.5,
        "samples a second": 24.0,  # 4 x 3 in half a second
        "waiting for data": 0.25,
        "sent a step": 6e6,
        "sending": pytest.approx(0.12),  # 6e6 / 1e8 of 0.5 s
        "model FLOPs utilisation": pytest.approx(0.5),  # 1e12 / 0.5 s of 4e12
    }
    assert rows[-1].found == "50.0% of 2 TFLOP/s a device (a product timed here)"
    assert all(row.ok is None for row in rows)


def test_a_devices_peak(monkeypatch):
    gpu, bfloat16 = torch.device("cuda:0"), torch.bfloat16
    names = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA L40S": 362e12, "Riva TNT": None}
    for name, peak in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert rates.known_peak(gpu, bfloat16) == peak
        assert rates.known_peak(gpu, torch.float32) is None
    assert rates.known_peak(CPU, bfloat16) is None
    assert rates.product_rate(CPU, torch.float64) > 0
    assert rates.link_rate(CPU) is None


# what is too large ------------------------------------------------------------------------------------------------


def make_run(folder, depth: int = 12, **training) -> RunConfig:
    settings = toy_run.run_settings(folder, **training)
    settings["model"]["depth"] = depth
    return parse_settings(RunConfig, settings, "test")


def test_a_model_too_large_for_one_rank_loses_blocks_then_samples(folder):
    config = short(make_run(folder, batch_size=24))
    for most, depth, batch in ((12 * 24, 12, 24), (7 * 24, 6, 24), (2 * 24, 2, 24), (47, 2, 12), (13, 2, 4)):
        used = largest_that_fits(config, 4, lambda c, most=most: c.model.depth * c.training.batch_size <= most)
        assert (used.model.depth, used.training.batch_size) == (depth, batch), most
    assert what_is_smaller(config, used) == "2 of 12 blocks, 4 of 24 samples of a batch"
    assert what_is_smaller(config, config) == ""
    assert used.model.width == config.model.width
    assert largest_that_fits(config, 4, lambda c: False) is None


def test_blocks_that_are_gone_are_no_longer_frozen(folder):
    config = make_run(folder, start_from={"weights": "w", "freeze": ["blocks.1", "blocks.11", "tokenizer"]})
    assert with_depth(config, 2).training.start_from.freeze == ["blocks.1", "tokenizer"]
    assert with_depth(config, 12).training.start_from.freeze == ["blocks.1", "blocks.11", "tokenizer"]


def test_what_is_random_comes_back_where_a_run_goes_on(folder):
    config = make_run(folder)
    assert (config.model.dropout, config.model.drop_path) == (0.1, 0.1)
    used = without_chance(with_depth(config, 2))
    assert (used.model.dropout, used.model.drop_path) == (0.0, 0.0)
    again = with_chance_of(config, used).model
    assert (again.dropout, again.drop_path, again.depth) == (0.1, 0.1, 2)


def test_a_rollout_is_as_long_as_it_gets(folder):
    rollout = {"steps": {0: 1, 10: 3, 20: 2}}
    config = short(make_run(folder, lead_times=["6h"], rollout=rollout, warmup_steps=7))
    assert (config.training.rollout.steps, config.training.warmup_steps) == ({0: 3}, 0)


def test_what_one_device_cannot_take_at_all_is_refused(folder, monkeypatch):
    monkeypatch.setattr(expected, "_memory", lambda device: 1.0)
    with pytest.raises(weatherfm.InputError, match="one device alone cannot take two blocks of this model with 1 samp"):
        weatherfm.validate(make_run(folder, depth=2, batch_size=1))


def test_so_a_shallower_model_is_compared_and_the_table_says_so(folder, monkeypatch):
    """Memory for the model of two blocks, by what its own simulation says."""
    config = make_run(folder, depth=4, batch_size=2, lead_times=["6h"]).model_copy(update={"run": str(folder / "run")})
    two = expected.as_counted(with_depth(short(config), 2), CPU)
    peak = expected.simulate(two, weatherfm.open_store(config.data.store).domain(), Layout(1, 1, 1), torch.float32)
    monkeypatch.setattr(expected, "_memory", lambda device: 2 * peak.peak)
    depths = []
    rows = validate.function_rows
    monkeypatch.setattr(
        validate, "function_rows", lambda config, *rest: depths.append(config.model.depth) or rows(config, *rest)
    )
    found = weatherfm.validate(config)
    assert found.ok
    assert depths == [2]
    assert "compared and resumed with 2 of 4 blocks, as one rank alone cannot take all" in found.setting
    assert list(folder.glob(".*")) == []


# save and resume --------------------------------------------------------------------------------------------------


def test_a_run_that_forgets_its_moments_is_found(folder, monkeypatch):
    restore = TrainingState.restore

    def forget(self, saved) -> None:
        restore(self, saved)
        for state in self.optimizer.state.values():
            state["exp_avg"].zero_()

    run = short(toy_run.make_run(folder))
    with folder_beside(folder / "run") as place:
        assert resume_row(run, place, True).ok
    assert not place.exists()
    monkeypatch.setattr(TrainingState, "restore", forget)
    with folder_beside(folder / "run") as place:
        row = resume_row(run, place, True)
    assert not row.ok
    assert "apart after 4 steps, the last 2 resumed" in row.found


def test_a_run_that_begins_anew_is_found(folder, monkeypatch):
    """It ends with the same weights, but has not gone on."""
    monkeypatch.setattr("weatherfm.training.trainer.find_checkpoint", lambda config: None)
    with folder_beside(folder / "run") as place:
        row = resume_row(short(toy_run.make_run(folder)), place, True)
    assert not row.ok


def test_weights_of_other_names_are_apart():
    assert save_and_resume._apart({"a": torch.ones(2)}, {"b": torch.ones(2)}) == float("inf")
    assert save_and_resume._apart({"a": torch.ones(4)}, {"a": torch.tensor([1.0, 1, 1, 2])}) == pytest.approx(0.5)


# the table --------------------------------------------------------------------------------------------------------


def test_the_table_and_its_json():
    rows = (
        Row("function", "outputs, float64", "0.3 on rank 1, z500", "1.0e-09", False, 0.3, 1e-9),
        Row("speed", "a step", "0.5 s", value=0.5),
        Row("resume", "checkpoint and back", "the same weights", "to the bit", True, 0.0, 0.0),
    )
    made = Validation("tp2 on 2 x cpu", "tp2", 2, rows, {"function": 3.2, "speed": 1.0, "resume": 2.0})
    assert not made.ok
    assert made.failed == rows[:1]
    assert of_dict(json.loads(json.dumps(to_dict(made)))) == made
    lines = to_text(made).splitlines()
    assert lines[0] == "tp2 on 2 x cpu"
    assert lines[2] == "against one rank (3 s)"
    assert lines[3].split() == ["outputs,", "float64", "0.3", "on", "rank", "1,", "z500", "<=", "1.0e-09", "FAILED"]
    assert lines[-1] == "1 of 2 checks FAILED (6 s)"
    assert "all 2 checks hold" in to_text(Validation("", "", 2, (*rows[1:], rows[2])))


def test_one_process_from_python(folder):
    config = toy_run.make_run(folder, "alone", validation_samples=2)
    found = weatherfm.validate(config, output=folder / "found.json")
    assert found.ok
    assert (found.layout, found.devices) == ("alone", 1)
    assert not (folder / "alone").exists()
    assert weatherfm.training.validating.table.of_dict(json.loads((folder / "found.json").read_text())) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.store=none.zarr"], "none.zarr"),
        (["--devices", "0"], "--devices must be 1 or more, got 0"),
        (["--devices", "2", "training.device=cuda:1"], "training.device cuda:1 is one device, not 2"),
        (["parallel.tp=2"], "the layout needs"),
        (["--output", "."], "is a folder; name a file in it"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_input_is_one_message(folder, capsys, arguments, message):
    (folder / "run.yaml").write_text(json.dumps(toy_run.run_settings(folder)))
    assert run_command(["validate", str(folder / "run.yaml"), *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_a_backbone_of_the_users_own_is_quietened():
    """PyTorch's layers drop out a tenth where nothing is said; layouts draw it differently."""
    backbone = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Dropout2d(0.5)).train()
    tokens = torch.ones(1, 3, 8)
    assert not torch.equal(backbone(tokens), backbone(tokens))
    quieten(backbone)
    assert torch.equal(backbone(tokens), backbone(tokens))
