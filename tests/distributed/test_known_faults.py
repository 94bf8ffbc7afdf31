"""Faults of the method's only public code (arXiv 2506.21411, its artifact), each made impossible by a test.

1. Every rank tokenised the first channels instead of its own.
2. Biases of row-parallel layers were added once a rank.
3. Weights that ranks of `tp` hold alike drifted apart.
4. The sum over test batches was reported as a mean: here of one process with batches of several sizes; of ranks in
   test_train_layouts.py.
5. Checkpoints were one file a rank that no other layout could read: tests/distributed/test_train_layouts.py.
6. Channels that the ranks do not divide: 84 on 8.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import test_parity as parity
import torch
import toy_run
from spawn_ranks import spawn
from torch import Tensor
from torch.distributed.tensor import DTensor

from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.model.model import WeatherViT
from weatherfm.training.feeding.samples import validation_inits
from weatherfm.training.parallel.build_model import build_model
from weatherfm.training.parallel.layout import Layout
from weatherfm.training.parallel.mesh import build_mesh
from weatherfm.training.parallel.role import Role, find_role
from weatherfm.training.run_config import RunConfig
from weatherfm.training.stepping.loss import forecast_loss, predict
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import Ground, compute_gradients, exchange, update_weights
from weatherfm.training.stepping.validation import Validator

TP2 = Layout(1, 1, 2)


def build(variant: str, layout: Layout = TP2) -> tuple[RunConfig, Role, WeatherViT]:
    config = parity.make_config(variant)
    domain = parity.make_domain(config)
    role = find_role(config.parallel, config.model, domain, build_mesh(layout, "cpu"))
    model = build_model(config, domain, role, torch.device("cpu"), torch.float32)
    parity.excite(model)
    return config, role, model


# 1 -----------------------------------------------------------------------------------------------------------


def with_changed_channels(rank: int, variants: list[str]) -> dict[str, dict[str, Tensor]]:
    torch.set_default_dtype(torch.float64)
    return {variant: outputs_with_changed_channels(rank, variant) for variant in variants}


def outputs_with_changed_channels(rank: int, variant: str) -> dict[str, Tensor]:
    """Predictions at first, with the inputs of rank 1's channels in another order, and with those of rank 0's."""
    config, role, model = build(variant)
    domain = parity.make_domain(config)
    found = {}
    for changed in (None, 1, 0):
        ready = parity.make_batch(role, domain, model.forcings, 0)
        if changed == rank:
            ready.batch.history.copy_(ready.batch.history.flip(2))
        with torch.no_grad():
            prediction = parity.outputs(role, predict(model, ready, torch.float64))["output"]
        found[str(changed)] = prediction
    return found


def test_channels_of_every_rank_count():
    for variant, found in spawn(2, with_changed_channels, ["flat", "attention", "linear-uneven", "tree"])[0].items():
        C = found["None"].shape[-1]
        for changed, others in (("1", slice(0, C // 2)), ("0", slice(C // 2, C))):
            moved = (found[changed] - found["None"])[..., others].norm()  # at outputs of the rank whose inputs stayed
            assert moved > 1e-6 * found["None"].norm(), f"{variant}: the inputs of rank {changed} have no influence"


def tokenizer_rows(rank: int, layout: Layout) -> tuple[list[str], list[str], int, int]:
    _, role, model = build("flat-uneven-local-adaptive-sampled", layout)
    inputs = role.share.input_names(model.config.input_times)
    return inputs, list(role.share.channels), model.tokenizer.weight.shape[0], model.to_patches.weight.shape[0]


def test_each_rank_holds_its_own_channels_and_no_rank_holds_all():
    ranks = spawn(4, tokenizer_rows, Layout(1, 1, 4))
    inputs, outputs = [n for r in ranks for n in r[0]], [n for r in ranks for n in r[1]]
    assert len(inputs) == len(set(inputs)) == 2 * 10 + 1 + 3  # two input times, a constant field, three forcings
    assert outputs == list(parity.make_config("flat-uneven-local-adaptive-sampled").data.channels)
    assert [r[2] for r in ranks] == [len(r[0]) for r in ranks]
    assert [r[3] for r in ranks] == [3, 3, 2, 2]


# 2 -----------------------------------------------------------------------------------------------------------


def outputs_of_biases_alone(rank: int) -> tuple[Tensor, Tensor]:
    """A block whose matrices are zero adds the biases of its row-parallel layers, once."""
    torch.set_default_dtype(torch.float64)
    _, _, model = build("flat")
    block = model.blocks[0]
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.fill_({"attention.out.bias": 3.0, "mlp.contract.bias": 4.0}.get(name, 0.0))
    x = torch.randn(2, 4, 16)
    return x, block(x).detach()


def test_biases_of_row_parallel_layers_are_added_once():
    for x, y in spawn(2, outputs_of_biases_alone):
        torch.testing.assert_close(y, x + 7.0)


# 3 -----------------------------------------------------------------------------------------------------------


def weights_held_alike(rank: int) -> dict[str, Tensor]:
    """After some steps: this rank's copy of what is replicated over `tp`."""
    config, role, model = build("flat")
    domain = parity.make_domain(config)
    loss = forecast_loss(config.model, domain, {}, None, role.share)
    optimizer = build_optimizer(model, config.training)
    for step in range(10):
        ready = parity.make_batch(role, domain, model.forcings, step)
        given = ready.batch
        single = replace(given, history=given.history.float(), target=given.target.float())
        batch = parity.ReadyBatch(single, ready.forcings.float())
        optimizer.zero_grad()
        losses = compute_gradients(model, [Ground(loss, role)], [batch], 1, torch.float32)
        update_weights(model, optimizer, exchange(model, losses, role, False).gradient_norm, config.training, step)
    return {
        name: p.to_local().detach().clone()
        for name, p in model.named_parameters()
        if isinstance(p, DTensor) and "tp" in p.device_mesh.mesh_dim_names and p.placements[-1].is_replicate()
    }


def test_weights_that_ranks_hold_alike_stay_alike():
    one, other = spawn(2, weights_held_alike)
    assert {"blocks.0.attention_norm.weight", "blocks.1.mlp.contract.bias"} <= one.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# 4: the validation loss is a mean, whatever the batches ----------------------------------------------------------


def test_the_validation_loss_is_a_mean_whatever_the_batches(tmp_path):
    """Of an untrained model, whose head is zero, so that its forecast is the state it starts from."""
    toy_run.make_store(tmp_path)
    store, cpu = open_store(tmp_path / "store.zarr"), torch.device("cpu")
    area = store.grid.area_weights / store.grid.area_weights.sum()
    for batch_size in (1, 2, 3, 4, 5):  # of five samples
        config = toy_run.make_run(tmp_path, batch_size=batch_size, validation_samples=5)
        role = find_role(config.parallel, config.model, store.domain(), None)
        loss = forecast_loss(config.model, store.domain(), {}, None, role.share)
        found = Validator(config, store, Ground(loss, role), torch.float32)(
            build_model(config, store.domain(), role, cpu, torch.float32)
        )
        inits = validation_inits(config, store)
        assert len(inits) == 5
        losses = []  # [lead time, channel]
        for hours in (6, 12):
            later = store.read(store.index_of(inits + np.timedelta64(hours, "h"))).astype(float)
            change = later - store.read(store.index_of(inits))  # [sample, channel, lat, lon]
            losses.append((np.square(change) * area).sum((-2, -1)).mean(0) / np.square(store.tendency_std))
        assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4)  # float32 increments


# 6 -----------------------------------------------------------------------------------------------------------


def wide_config() -> RunConfig:
    plain = parity.make_config("flat").model_dump(mode="json")
    plain["data"]["channels"] = [f"{v}{level}" for v in "zuvtqr" for level in range(50, 750, 50)]  # 84
    plain["model"] |= {"input_times": ["0h"], "heads": 8}
    return parse_settings(RunConfig, plain, "wide")


def wide_output(rank: int, layout: Layout | None) -> Tensor:
    torch.set_default_dtype(torch.float64)
    try:
        config = wide_config()
        domain = parity.make_domain(config)
        mesh = build_mesh(layout, "cpu") if layout else None
        role = find_role(config.parallel, config.model, domain, mesh)
        model = build_model(config, domain, role, torch.device("cpu"), torch.float64)
        parity.excite(model)
        ready = parity.make_batch(role, domain, model.forcings, 0)
        one_time = parity.Batch(
            ready.batch.history[:, :1], ready.batch.target, ready.batch.init_time, ready.batch.lead_time_hours
        )
        with torch.no_grad():
            prediction = predict(model, parity.ReadyBatch(one_time, ready.forcings), torch.float64)
        return parity.outputs(role, prediction)["output"]
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_eighty_four_channels_on_eight_ranks():
    found, expected = spawn(8, wide_output, Layout(1, 1, 8))[0], wide_output(0, None)
    assert (found - expected).norm() <= parity.TOLERANCE * expected.norm()
