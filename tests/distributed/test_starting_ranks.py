"""Starting from weights on several ranks: each has its own parts of what one rank has."""

from __future__ import annotations

import pytest
import torch
import toy_run
from spawn_ranks import spawn
from torch.distributed.tensor import DTensor

from weatherfm.config import parse_settings
from weatherfm.training import trainer
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.channel_rows import local_part, named_parts
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import find_start


def config(folder, run, **start) -> RunConfig:
    settings = toy_run.run_settings(folder, run, steps=3, validate_every=10)
    settings["model"] |= {"width": 8, "input_gates": run != "old", "depth": 2 + (run != "old")}
    settings["data"]["channels"] = ["z500", "t850"] if run == "old" else toy_run.CHANNELS
    if run != "old":
        settings["training"]["start_from"] = {"weights": str(folder / "old"), **start}
    return parse_settings(RunConfig, settings, "test")


def begun(given: RunConfig, layout: Layout | None):
    start = find_start(given, open_parts(given))
    role = find_role(given.parallel, given.model, start.domain, layout and build_mesh(layout, "cpu"))
    model = build_model(given, start.domain, role, torch.device("cpu"), torch.float32, empty=True)
    start.freeze(model)
    start.fill(model)
    return model


def on_rank(rank: int, layout: Layout, folder, expected) -> list[str]:
    model = begun(config(folder, "new", freeze=["blocks.0"]), layout)
    wrong = []
    for name, parameter in model.named_parameters():
        for key, part in named_parts(model, name, parameter.detach()):
            own = part.to_local() if isinstance(part, DTensor) else part
            if not torch.equal(own, local_part(expected[key], part)):
                wrong.append(key)
        if parameter.requires_grad == name.startswith("blocks.0."):
            wrong.append(f"{name} learns: {parameter.requires_grad}")
    return wrong


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    toy_run.make_store(folder)
    trainer.train(config(folder, "old"))
    return folder


@pytest.mark.parametrize("layout", [Layout(1, 1, 2), Layout(1, 2, 1), Layout(1, 2, 2)], ids=str)
def test_each_rank_starts_from_its_parts(folder, layout):
    model = begun(config(folder, "new"), None)
    whole = {key: part for name, p in model.named_parameters() for key, part in named_parts(model, name, p.detach())}
    found = spawn(layout.devices, on_rank, layout, folder, whole)
    assert [wrong for wrong in found if wrong] == []
