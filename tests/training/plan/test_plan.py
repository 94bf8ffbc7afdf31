"""The plan: its counter on cases that can be counted by hand, its extrapolations, its advice and its refusals."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import torch.distributed as dist
from places import ROOT
from toy_run import make_store, run_settings
from whole_simulation import simulate_whole

from weatherfm.cli import run_command
from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.model.model import WeatherViT
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.plan.candidates import ALONE, Candidate, Choice, choices, evaluate, forms
from weatherfm.training.plan.counter import Moment, counting
from weatherfm.training.plan.machine import Machine, Seconds, Training
from weatherfm.training.plan.make_plan import Plan, make_plan, plan_domain
from weatherfm.training.plan.memory_formula import expected_peak
from weatherfm.training.plan.plan_as_text import to_dict, to_text
from weatherfm.training.plan.simulated_rank import _ranks, simulate
from weatherfm.training.plan.step_count import StepCount, Use
from weatherfm.training.plan.traffic import axis_names, sent_by
from weatherfm.training.run_config import RunConfig

CONFIGS = ROOT / "configs"
LOCAL = {"mlp_convolution": True, "rotary": True, "decoder_fields": 4, "truncation": 3}
LOCAL |= {"conditioning": "adaln", "position": "place"}
FORWARD, BACKWARD = Moment("forward", "front"), Moment("backward", "blocks", 0)


CRPS = {"loss": "crps", "members": 3}
NOISY = {"noise": 8, "conditioning": "adaln"}


def make_config(**sections) -> RunConfig:
    settings = {
        "run": "unused",
        "data": {"store": "no/store.zarr", "source": {"kind": "planet"}, "channels": ["z500", "t850", "u10"]},
        "model": {"width": 32, "depth": 3, "heads": 4} | sections.pop("model", {}),
        "training": {"batch_size": 4} | sections.pop("training", {}),
        "parallel": sections.pop("parallel", {}),
    }
    return parse_settings(RunConfig, settings, "plan")


def make_domain(channels: int = 6, shape=(16, 32)) -> Domain:
    ones = np.ones(channels)
    return Domain(tuple(f"c{i}" for i in range(channels)), regular_grid(shape), ones, ones, ones)


def same(a: StepCount, b: StepCount) -> None:
    assert a.peak == pytest.approx(b.peak, rel=1e-12)
    assert a.peak_moment == b.peak_moment
    assert a.at_peak == pytest.approx(b.at_peak, rel=1e-12)
    assert a.total_flops() == pytest.approx(b.total_flops(), rel=1e-12)
    assert a.total_sent() == pytest.approx(b.total_sent(), rel=1e-12)


# The counter --------------------------------------------------------------------------------------------------


def test_a_chain_of_products_is_counted_as_by_hand():
    size = 64 * 64 * 4  # bytes of a matrix
    x = torch.randn(64, 64)
    weights = [torch.randn(64, 64, requires_grad=True) for _ in range(3)]
    with counting() as counter:
        counter.hold("batches", [x])
        counter.hold("parameters", weights)
        counter.moment = FORWARD
        y = x
        for weight in weights:
            y = y @ weight
        counter.moment = BACKWARD
        y.sum().backward()
        counter.hold("gradients", [weight.grad for weight in weights])
    found = StepCount.of(counter)
    forward = found.peaks[FORWARD]
    # input, weights, and all three products: y keeps the last, the graph the first two
    assert forward == {Use("batches", ""): size, Use("parameters", ""): 3 * size, Use("activations", "front"): 3 * size}
    assert found.flops == {FORWARD: 3 * 2 * 64**3, BACKWARD: 5 * 2 * 64**3}  # the input's gradient is not wanted
    assert found.sent == {}


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("wanted", [False, True])
def test_convolutions_of_many_groups_are_counted_as_by_hand(groups, wanted):
    x, weight = torch.randn(2, 12, 10, 8, requires_grad=wanted), torch.randn(24, 12 // groups, 3, 3, requires_grad=True)
    with counting() as counter:
        counter.moment = FORWARD
        y = torch.nn.functional.conv2d(x, weight, groups=groups)
        counter.moment = BACKWARD
        y.backward(torch.ones_like(y))
    once = 2 * (2 * 24 * 8 * 6) * (12 // groups * 3 * 3)  # for each point of the output and of the filter
    assert counter.flops == {FORWARD: once, BACKWARD: (1 + wanted) * once}


def test_views_and_work_in_place_cost_nothing_and_what_is_freed_is_gone():
    x = torch.zeros(1000)
    with counting() as counter:
        counter.moment = FORWARD
        y = x + 1
        y[:10].mul_(2)
        del y
        z = x.exp()
    assert [event.change for event in counter.events] == [4000, -4000, z.numel() * 4]
    assert StepCount.of(counter).peak == 4000


def test_a_storage_that_changes_its_size_is_followed():
    with counting() as counter:
        counter.moment = FORWARD
        x = torch.empty(256)
        storage = x.untyped_storage()
        storage.resize_(0)
        storage.resize_(4 * 4096)
    found = StepCount.of(counter)
    assert found.at_peak == {Use("gathered", ""): 4 * 4096}


def test_messages_cost_what_a_ring_sends():
    with _ranks(Layout(1, 2, 4), 0) as mesh, counting(axis_names(mesh)) as counter:
        counter.moment = FORWARD
        part, whole = torch.zeros(100), torch.zeros(400)
        dist.all_gather_into_tensor(whole, part, group=mesh.tp.get_group())
        dist.reduce_scatter_tensor(part, whole, group=mesh.tp.get_group())
        dist.all_reduce(whole, group=mesh.data.get_group())
    sent = StepCount.of(counter).total_sent()
    assert sent == {("tp", "all-gather"): 3 * 400, ("tp", "reduce-scatter"): 1200, ("dp_shard", "all-reduce"): 1600}


def test_a_message_of_unknown_cost_is_not_passed_over():
    with _ranks(Layout(1, 1, 2), 0), pytest.raises(NotImplementedError, match="reduce_"):
        sent_by(torch.ops.c10d.reduce_.default, (), {})


# The simulation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "mode", "conditioning"),
    [
        (Layout(1, 1, 1), "none", "embed"),
        (Layout(1, 1, 2), "none", "adaln"),
        (Layout(2, 2, 2), "block", "embed"),
    ],
    ids=str,
)
def test_deep_models_are_extrapolated_exactly(layout, mode, conditioning):
    parallel = {"activation_checkpointing": mode}
    config = make_config(
        model={"depth": 6, "conditioning": conditioning}, training={"batch_size": 8}, parallel=parallel
    )
    same(simulate(config, make_domain(), layout), simulate_whole(config, make_domain(), layout))


@pytest.mark.parametrize("members", [{}, CRPS], ids=["single", "members"])
def test_so_are_the_model_steps_of_a_rollout(members):
    model = {"depth": 6} | (NOISY if members else {})
    training = {"batch_size": 8, "rollout": {"steps": {0: 1, 100: 2}}} | members
    config = make_config(model=model, training=training)
    same(simulate(config, make_domain(), Layout(1, 2, 2)), simulate_whole(config, make_domain(), Layout(1, 2, 2)))


@pytest.mark.parametrize(
    ("layout", "start"),
    [
        (Layout(1, 2, 2), {"lora": {"rank": 2}, "freeze": ["tokenizer"]}),
        (Layout(1, 1, 1), {"freeze": ["blocks.1"]}),
    ],
    ids=str,
)
def test_so_are_models_of_which_a_part_learns(layout, start):
    training = {"batch_size": 8, "start_from": {"weights": "unused"} | start}
    config = make_config(model={"depth": 6}, training=training)
    same(simulate(config, make_domain(), layout), simulate_whole(config, make_domain(), layout))


def test_what_does_not_learn_has_no_optimizer_state_and_no_gradient():
    """By hand: width 32, hidden 128, three blocks; rank 2 on the MLP alone, and the table of positions."""
    frozen = ["tokenizer", "aggregation", "lead_time", "blocks", "norm", "head", "to_patches"]
    start = {"weights": "unused", "lora": {"rank": 2, "on": ["mlp"]}, "freeze": frozen}
    found = simulate(make_config(training={"start_from": start}), make_domain(shape=(8, 16)), Layout(1, 1, 1))
    learn = 3 * 2 * 2 * (32 + 128) + 2 * 4 * 32  # patches of 4 x 4
    state = found.peaks[Moment("update", "other")]
    scalars = 4 * (3 * 4 + 1)  # the step of each tensor
    assert state[Use("optimizer", "")] == 8 * learn + scalars
    assert state[Use("gradients", "")] == 4 * learn


def test_further_batches_of_a_step_are_extrapolated():
    config = make_config(training={"accumulate": 4, "ema_decay": 0.9})
    found, whole = (f(config, make_domain(), Layout(1, 2, 2)) for f in (simulate, simulate_whole))
    assert found.total_flops() == pytest.approx(whole.total_flops(), rel=1e-12)
    assert found.total_sent() == pytest.approx(whole.total_sent(), rel=1e-12)
    assert found.peak == pytest.approx(whole.peak, rel=1e-3)  # losses of each batch, a few numbers, are left out


def test_copies_of_the_weights_change_no_memory():
    config = make_config(training={"batch_size": 64})
    few = simulate(config, make_domain(), Layout(2, 2, 2))
    many = simulate(make_config(training={"batch_size": 512}), make_domain(), Layout(16, 2, 2))
    assert few.peak == many.peak
    assert many.total_sent()["dp_replicate", "all-reduce"] > few.total_sent()["dp_replicate", "all-reduce"]


def test_sixteen_thousand_ranks_fit_on_this_machine():
    layout = Layout(32, 64, 8)
    config = make_config(model={"width": 512, "heads": 8}, training={"batch_size": 2 * layout.dp})
    found = simulate(config, make_domain(16), layout)
    weights = found.at_peak[Use("parameters", "")] / 4
    with torch.device("meta"):
        whole = sum(p.numel() for p in WeatherViT(config.model, make_domain(16)).parameters())
    assert weights == pytest.approx(whole / 512, rel=0.3)  # what does not divide evenly is rounded up


@pytest.mark.parametrize(
    ("layout", "mode", "aggregation", "channels", "local"),
    [
        (Layout(1, 1, 1), "none", {}, "split", False),
        (Layout(1, 1, 1), "none", {}, "split", True),
        (Layout(1, 4, 1), "selective", {}, "split", False),
        (Layout(1, 2, 4), "none", {}, "split", True),
        (Layout(1, 1, 4), "block", {"kind": "hierarchical", "groups": 4}, "split", False),
        (Layout(1, 1, 4), "block", {"kind": "hierarchical", "groups": 4, "local": "linear"}, "split", False),
        (Layout(1, 1, 4), "block", {"evaluate": "tokens"}, "whole", True),
        (Layout(1, 2, 2), "block", {"evaluate": "tokens"}, "split", False),
    ],
    ids=str,
)
def test_the_formula_is_within_a_fifth(layout, mode, aggregation, channels, local):
    config = make_config(
        model={"width": 512, "depth": 12, "heads": 8, "forcings": [], "drop_path": 0.0, "aggregation": aggregation}
        | (LOCAL if local else {}),
        training={"batch_size": 4 * layout.dp},
        parallel={"channels": channels, "activation_checkpointing": mode},
    )
    domain = make_domain(64, (64, 128))
    found = simulate(config, domain, layout).peak
    assert expected_peak(config, domain, layout, torch.bfloat16) == pytest.approx(found, rel=0.2)


@pytest.mark.parametrize(
    ("model", "training", "mode"),
    [
        ({}, {"rollout": {"steps": {0: 1, 100: 3}}}, "block"),
        (NOISY, CRPS, "none"),
        (NOISY, CRPS | {"rollout": {"steps": {0: 1, 100: 3}}}, "block"),
    ],
    ids=["rollout", "members", "both"],
)
def test_so_it_is_for_rollouts_and_members(model, training, mode):
    config = make_config(
        model={"width": 512, "depth": 12, "heads": 8, "forcings": [], "drop_path": 0.0} | model,
        training={"batch_size": 8} | training,
        parallel={"activation_checkpointing": mode},
    )
    domain = make_domain(64, (64, 128))
    found = simulate(config, domain, Layout(1, 2, 2)).peak
    assert expected_peak(config, domain, Layout(1, 2, 2), torch.bfloat16) == pytest.approx(found, rel=0.2)


@pytest.mark.parametrize(
    ("layout", "mode"),
    [(Layout(1, 1, 1), "block"), (Layout(1, 2, 4), "selective")],
    ids=str,
)
def test_so_it_is_where_few_numbers_learn(layout, mode):
    start = {"weights": "unused", "lora": {"rank": 8}, "freeze": ["blocks"]}
    config = make_config(
        model={"width": 512, "depth": 12, "heads": 8, "forcings": [], "drop_path": 0.0},
        training={"batch_size": 4 * layout.dp, "start_from": start},
        parallel={"activation_checkpointing": mode},
    )
    domain = make_domain(64, (64, 128))
    found = simulate(config, domain, layout).peak
    assert expected_peak(config, domain, layout, torch.bfloat16) == pytest.approx(found, rel=0.2)


def test_ranks_are_not_simulated_inside_a_job():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(InputError, match="in one process"):
            simulate(make_config(), make_domain(), Layout(1, 1, 2))
    finally:
        dist.destroy_process_group()


# The choice ---------------------------------------------------------------------------------------------------


def candidate(form="flat", mode="none", layout=None, peak=10e9, seconds=1.0, fits=True) -> Candidate:
    config = make_config(parallel={"activation_checkpointing": mode})
    count = StepCount({BACKWARD: {Use("optimizer", ""): peak}}, {BACKWARD: 1e12}, {})
    choice = Choice(form, layout or Layout(1, 4, 1), config)
    return Candidate(choice, count, peak, Seconds(seconds, 0.0), fits)


def make(candidates, config=None, **training) -> Plan:
    config = config or make_config()
    return Plan(config, make_domain(), Machine(4, 80), torch.bfloat16, candidates, Training(**training))


def test_the_fastest_that_fits_is_recommended():
    slow, fast, large = candidate(seconds=2.0), candidate(seconds=1.5), candidate(seconds=1.0, fits=False)
    alone = candidate(ALONE, seconds=0.5)
    assert make([slow, alone, fast, large]).recommended is fast


def test_of_equals_less_checkpointing_then_less_memory_is_recommended():
    block, large, small = candidate(mode="block", peak=1e9), candidate(peak=5e9), candidate(peak=4e9, seconds=1.005)
    assert make([block, large, small]).recommended is small


def test_another_model_is_recommended_only_where_the_one_configured_fits_nowhere():
    config = make_config(model={"aggregation": {"kind": "hierarchical", "groups": 2}})
    own, flat = candidate("attention x2", seconds=2.0), candidate("flat", seconds=1.0)
    assert make([own, flat], config).recommended is own
    own = candidate("attention x2", seconds=2.0, fits=False)
    plan = make([own, flat], config)
    assert plan.recommended is flat
    assert "model.aggregation={kind: flat}" in to_text(make([own, candidate("flat")], config))


def test_hours_money_and_energy_follow_from_the_time_of_a_step():
    best, alone = candidate(seconds=0.5), candidate(ALONE, seconds=2.0)
    plan = make([best, alone], samples=36e6, price_per_gpu_hour=3.0, watts=700)
    # 36e6 samples / 4 a step = 9e6 steps x 0.5 s = 4.5e6 s = 1,250 hours, on 4 devices
    assert plan.hours(best) == pytest.approx(1250)
    assert plan.gpu_hours(best) == pytest.approx(5000)
    assert plan.cost(best) == pytest.approx(15000)
    assert plan.energy(best) == pytest.approx(3500)  # 5,000 h x 0.7 kW
    assert plan.cost(alone) == pytest.approx(60000)
    text = to_text(plan)
    for line in (
        "the whole training, 36,000,000 samples: 1,250 hours; 5,000 GPU hours instead of 20,000, 15,000 saved",
        "  in money: 15,000 instead of 60,000, 45,000 saved",
        "  in energy: 3,500 kWh instead of 14,000, 10,500 saved",
    ):
        assert line in text.splitlines()
    found = to_dict(plan)
    assert found["recommended"]["gpu_hours"] == pytest.approx(5000)
    assert found["recommended"]["energy_kwh"] == pytest.approx(3500)
    assert found["tensor_parallel_alone"]["same_layout"]["cost"] == pytest.approx(60000)


def test_without_samples_a_plan_is_of_the_runs_own_steps_and_without_rates_in_hours_alone():
    config = make_config(training={"steps": 9000, "batch_size": 8, "accumulate": 3})
    best, alone = candidate(seconds=0.5), candidate(ALONE, seconds=2.0, fits=False)
    plan = make([best, alone], config)
    assert plan.samples == 9000 * 8 * 3
    assert plan.hours(best) == pytest.approx(1.25)  # 9,000 x 0.5 s
    assert plan.cost(best) is None
    assert plan.energy(best) is None
    lines = to_text(plan).splitlines()
    wanted = (
        "the whole training, 216,000 samples: 1.25 hours; 5 GPU hours instead of 20, 15 saved (were memory no limit)"
    )
    assert lines[-1] == wanted
    found = to_dict(plan)
    assert found["training"]["samples"] == 216000
    assert (found["recommended"]["cost"], found["recommended"]["energy_kwh"]) == (None, None)
    assert to_text(make([best], config)).splitlines()[-1].endswith("1.25 hours; 5 GPU hours")  # nothing to compare with


def test_time_takes_the_link_that_an_axis_crosses():
    machine = Machine(16, 80, tflops=100, devices_per_node=8, node_bandwidth=100, network_bandwidth=10)
    moment = {(BACKWARD, axis, "all-gather"): 1e9 for axis in ("tp", "dp_shard", "dp_replicate")}
    count = StepCount({}, {BACKWARD: 1e12}, moment)
    near, far = machine.seconds(Layout(2, 2, 4), count), machine.seconds(Layout(1, 4, 4), count)
    assert near.compute == pytest.approx(0.01)
    assert near.exchange == pytest.approx(0.01 + 0.01 + 0.1)
    assert far.exchange == pytest.approx(0.01 + 0.1 + 0.1)


def test_every_form_layout_and_checkpointing_is_a_choice():
    config = make_config(model={"aggregation": {"kind": "hierarchical", "groups": 2}}, training={"batch_size": 8})
    assert list(forms(config.model)) == ["attention x2", "flat", ALONE]
    found = choices(config, make_domain(), 4)
    assert len({(c.form, c.layout, c.checkpointing) for c in found}) == len(found)
    assert {c.layout for c in found if c.form == "flat"} >= {
        Layout(4, 1, 1),
        Layout(1, 4, 1),
        Layout(1, 2, 2),
        Layout(1, 1, 4),
    }
    assert max(c.layout.tp for c in found if c.form == "attention x2") == 2  # two groups
    assert {c.checkpointing for c in found} == {"none", "selective", "block"}
    assert all(c.config.parallel.channels == ("whole" if c.form == ALONE else "split") for c in found)


def test_several_processes_find_what_one_does():
    found, machine = choices(make_config(), make_domain(), 1)[:2], Machine(1, 80)
    one, two = (evaluate(found, make_domain(), machine, torch.bfloat16, jobs) for jobs in (1, 2))
    assert [c.count for c in one] == [c.count for c in two]


# The command --------------------------------------------------------------------------------------------------

PLAN = ["plan", str(CONFIGS / "debug.yaml"), "model.depth=1", "--grid", "16x32", "--jobs", "1"]


def test_the_command_prints_a_table_and_the_same_as_json(capsys):
    given = [*PLAN, "--devices", "1", "--memory", "8", "--samples", "1e6", "--price-per-gpu-hour", "2"]
    given += ["--watts", "500"]
    assert run_command(given) == 0
    text = capsys.readouterr().out
    assert "take flat, alone, checkpointing none" in text
    assert max(map(len, text.splitlines())) <= 160
    assert run_command([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["candidates"]) == 6
    best = found["recommended"]
    assert best["fits"]
    assert best["peak_gb"] == pytest.approx(sum(best["at_peak_gb"].values()))
    assert found["tensor_parallel_alone"]["same_layout"]["form"] == "tp alone"
    assert best["cost"] == pytest.approx(2 * best["gpu_hours"])
    assert best["energy_kwh"] == pytest.approx(0.5 * best["gpu_hours"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices", "1", "--memory", "0.001"], "no layout of 1 devices fits 0.001 GB"),
        (["--devices", "3", "--memory", "8"], "training.batch_size 8 .*multiple of the 3"),
        (["--devices", "0", "--memory", "8"], "--devices must be positive, got 0"),
        (["--devices", "1", "--memory", "-1"], "--memory must be positive, got -1"),
        (["--devices", "1", "--memory", "8", "--spare", "1"], r"--spare must lie in \[0, 1\), got 1"),
        (["--devices", "1", "--memory", "8", "--samples", "0"], "--samples must be positive, got 0"),
        (
            ["--devices", "1", "--memory", "8", "--price-per-gpu-hour", "0"],
            "--price-per-gpu-hour must be positive, got 0",
        ),
        (["--devices", "1", "--memory", "8", "--watts", "-3"], "--watts must be positive, got -3"),
        (["--devices", "1", "--memory", "8", "--grid", "16"], "--grid '16' cannot be read"),
        (["model.aggregation={kind: hierarchical, groups: 9}", "--devices", "1", "--memory", "8"], "6 channels cannot"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_input_is_one_message(options, message, capsys):
    grid = [] if "--grid" in options else ["--grid", "16x32"]
    assert run_command(["plan", PLAN[1], "model.depth=1", *options, "--jobs", "1", *grid]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_what_does_not_fit_is_told_with_what_would_help():
    def message(**changes):
        model = {"depth": 1} | changes.pop("model", {})
        config, domain = make_config(model=model, **changes), make_domain(6, (16, 32))
        with pytest.raises(InputError) as error:
            make_plan(config, domain, Machine(1, 1e-6), Training(), jobs=1)
        return str(error.value)

    assert "the smallest needs 0.0" in message()
    assert "split them over more devices than 1" in message(
        model={"width": 512, "heads": 8}, training={"batch_size": 1}
    )
    assert "lower model.aggregation.block_mib" in message(model={"width": 16, "heads": 16})
    large = {"width": 64, "patch_size": 1, "aggregation": {"block_mib": 0.1}}
    assert "lower training.batch_size" in message(model=large, training={"batch_size": 8})


def test_the_grid_comes_from_the_store_unless_it_is_given(tmp_path):
    config = parse_settings(RunConfig, run_settings(tmp_path), "plan")
    with pytest.raises(InputError, match="give --grid"):
        plan_domain(config, None)
    assert plan_domain(config, "6x12").grid.shape == (6, 12)
    make_store(tmp_path)
    assert plan_domain(config, None).grid.shape == (4, 8)
