"""Low-rank factors on several ranks: what is written is what one rank writes, and each reads its own parts of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import test_starting_ranks as starting
import torch
import toy_run
from spawn_ranks import spawn
from torch.distributed.tensor import DTensor

from weatherfm.model.lora import is_factor
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import open_tensors
from weatherfm.training import trainer
from weatherfm.training.checkpoints.export import export_weights, weights_path
from weatherfm.training.checkpoints.state import TrainingState
from weatherfm.training.parallel.build_model import build_model, meta_model
from weatherfm.training.parallel.channel_rows import local_part, named_parts
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.load_weights import load_parts
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.role import find_role
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.stepping.optimizer import build_optimizer


def make_config(folder: Path, run: str, export: str) -> RunConfig:
    """The weights have two blocks, this model has three."""
    return starting.config(folder, "new", lora={"rank": 3, "alpha": 2, "export": export}).model_copy(
        update={"run": str(folder / run)}
    )


def write(folder: Path, run: str, layout: Layout | None) -> None:
    """Export weights whose factors have an effect: merged, then apart."""
    config = make_config(folder, run, "merged")
    parts, cpu = open_parts(config), torch.device("cpu")
    start = find_start(config, parts)
    role = find_role(config.parallel, config.model, start.domain, layout and build_mesh(layout, "cpu"))
    model = build_model(config, start.domain, role, cpu, torch.float32, empty=True, known_blocks=start.known_blocks)
    start.freeze(model)
    start.fill(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_factor(name):
                own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                own.copy_(local_part(torch.arange(parameter.numel()).sin().view(parameter.shape), parameter))
    state = TrainingState(model, build_optimizer(model, config.training), None, len(start.domain.channels), 2)
    export_weights(start, parts, state, role)
    export_weights(replace(start, config=make_config(folder, run, "apart")), parts, state, role)


def on_rank(rank: int, layout: Layout, folder: Path) -> list[str]:
    """Writes, then reads the adapter into a split model; the parts that are not those of the merged weights."""
    write(folder, str(layout), layout)
    torch.distributed.barrier()
    adapter = weights_path(make_config(folder, str(layout), "apart"))
    plain = starting.config(folder, "new")
    domain = find_start(plain, open_parts(plain)).domain
    role = find_role(plain.parallel, plain.model, domain, build_mesh(layout, "cpu"))
    model = meta_model(plain, domain, role, torch.float32)
    model.to_empty(device="cpu")
    load_parts(model, adapter, plain.model, domain, folder / "old")
    with torch.device("meta"):
        serial = WeatherViT(plain.model, domain)
    wrong = []
    with open_tensors(weights_path(make_config(folder, "alone", "merged"))) as file:
        for name, _ in serial.named_parameters():
            rows = {key: part for key, part in named_parts(serial, name, file.get_tensor(name))}
            for key, part in named_parts(model, name, model.get_parameter(name).detach()):
                own = part.to_local() if isinstance(part, DTensor) else part
                if not torch.equal(own, local_part(rows[key], part)):
                    wrong.append(key)
    return wrong


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora_ranks")
    toy_run.make_store(folder)
    trainer.train(starting.config(folder, "old"))
    write(folder, "alone", None)
    return folder


@pytest.mark.parametrize("layout", [Layout(1, 1, 2), Layout(1, 2, 1)], ids=str)
def test_ranks_write_and_read_what_one_does(folder, layout):
    assert [wrong for wrong in spawn(layout.devices, on_rank, layout, folder) if wrong] == []
    for export in ("merged", "apart"):
        one, several = (weights_path(make_config(folder, run, export)) for run in ("alone", str(layout)))
        assert one.read_bytes() == several.read_bytes()
