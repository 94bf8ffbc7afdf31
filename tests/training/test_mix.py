"""One model on several stores: which batch is of which, what it computes on each, leaves alone, and writes."""

from __future__ import annotations

import json

import kill_train
import numpy as np
import pytest
import torch
import two_stores
import yaml
from safetensors.torch import load_file

import weatherfm
from weatherfm.config import parse_settings
from weatherfm.data_pipeline.store.training_store import Store, open_store
from weatherfm.errors import InputError
from weatherfm.evaluation.scoring.learned_days import refuse_days_of_weights
from weatherfm.face.runs import settings_of
from weatherfm.model.data_view import look_at
from weatherfm.model.initial import row_names
from weatherfm.model.loading import load_weights
from weatherfm.model.model import WeatherViT
from weatherfm.model.weights import read_header
from weatherfm.training import trainer
from weatherfm.training.check import check_run
from weatherfm.training.feeding import store_checks
from weatherfm.training.feeding.mixture import Mixture, draw_stores
from weatherfm.training.feeding.ready_batches import make_ready
from weatherfm.training.feeding.samples import training_samples
from weatherfm.training.parallel.role import find_role
from weatherfm.training.parts import open_parts
from weatherfm.training.run_config import RunConfig, load_run
from weatherfm.training.starting.run_start import find_start
from weatherfm.training.stepping.grounds import build_grounds
from weatherfm.training.stepping.optimizer import build_optimizer
from weatherfm.training.stepping.step import compute_gradients, exchange, update_weights
from weatherfm.training.stepping.untouched_rows import UntouchedRows

CPU = torch.device("cpu")
PARTS = {
    "mlp_convolution": True, "rotary": True, "decoder_fields": 2, "conditioning": "adaln", "input_gates": True,
    "inputs": ["-tcwv"], "outputs": ["-v10"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    two_stores.make_stores(folder)
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> RunConfig:
    config = two_stores.make_run(folder, "trained", PARTS)
    trainer.train(config)
    return config


class Workbench:
    """A model with random weights, and what batches of both stores are worked on with."""

    def __init__(self, folder, model=None, **training) -> None:
        self.config = two_stores.make_run(folder, "unused", {"drop_path": 0.0} | (model or {}), **training)
        self.parts = open_parts(self.config)
        self.start = find_start(self.config, self.parts)
        self.role = find_role(self.config.parallel, self.config.model, self.start.domain, None)
        self.model = WeatherViT(self.config.model, self.start.domain)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self.grounds = build_grounds(self.model, self.parts, self.start.domains, self.role, CPU)
        loaders = [
            training_samples(part.config, part.store, share=ground.role.share)
            for part, ground in zip(self.parts, self.grounds, strict=True)
        ]
        self.mixture = Mixture(loaders, [part.weight for part in self.parts], 0, 40)

    def ready(self, number: int):
        batch = self.mixture.batch(number)
        return make_ready(batch, self.model, CPU, grid=self.parts[batch.store].store.grid)


def test_stores_are_drawn_by_weight_and_a_longer_run_begins_the_same():
    drawn = draw_stores([3, 1, 4], 7, 20_000)
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, [3 / 8, 1 / 8, 4 / 8], atol=0.01)
    np.testing.assert_array_equal(draw_stores([3, 1, 4], 7, 100), drawn[:100])
    assert (draw_stores([3, 1, 4], 8, 100) != drawn[:100]).any()


def test_batches_of_a_store_are_those_it_would_have_alone(folder, monkeypatch):
    bench = Workbench(folder)
    asked, read = [], Store.read
    monkeypatch.setattr(
        Store, "read", lambda self, i, names, out=None: asked.append(names) or read(self, i, names, out)
    )
    seen = [0, 0]
    for number, batch in enumerate(bench.mixture.iterate(0, 20)):
        assert batch.store == bench.mixture.stores[number]
        alone = bench.mixture.loaders[batch.store].batch(seen[batch.store])
        seen[batch.store] += 1
        assert torch.equal(batch.history, alone.history)
        assert torch.equal(batch.target, alone.target)
        assert batch.history.shape[2:] == (
            len(bench.parts[batch.store].domain.channels),
            *bench.parts[batch.store].store.grid.shape,
        )
    assert min(seen) > 2
    assert {frozenset(names) for names in asked} == {frozenset(names) for names in two_stores.CHANNELS.values()}


@pytest.mark.parametrize("settings", [{}, PARTS])
def test_on_each_store_it_computes_what_the_model_of_that_store_computes(folder, settings):
    """Losses and gradients of a model that has the store's rows alone; of other rows the gradient is zero."""
    bench = Workbench(folder, settings)
    first = [int(np.flatnonzero(bench.mixture.stores == store)[0]) for store in (0, 1)]
    for store, part in enumerate(bench.parts):
        domain = bench.start.domains[store]
        alone = WeatherViT(part.config.model, domain)
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                rows, theirs = row_names(alone, name), bench.model.get_parameter(name)
                index = None if rows is None else [row_names(bench.model, name).index(row) for row in rows]
                parameter.copy_(theirs if index is None else theirs[index])
        ready = bench.ready(first[store])
        bench.model.zero_grad()
        (mixed,) = compute_gradients(bench.model, bench.grounds, [ready], 1, torch.float32)
        ground = build_grounds(
            alone, [part], [domain], find_role(part.config.parallel, part.config.model, domain, None), CPU
        )
        ready = make_ready(training_samples(part.config, part.store).batch(0), alone, CPU)
        (expected,) = compute_gradients(alone, ground, [ready], 1, torch.float32)
        places = [expected.role.share.outputs.index(name) for name in mixed.role.share.outputs]
        torch.testing.assert_close(mixed.losses, expected.losses[:, places], rtol=1e-6, atol=0)
        for name, parameter in bench.model.named_parameters():
            own, rows = alone.get_parameter(name).grad, row_names(alone, name)
            if rows is None:
                torch.testing.assert_close(parameter.grad, own, rtol=1e-5, atol=1e-8)
                continue
            index = [row_names(bench.model, name).index(row) for row in rows]
            torch.testing.assert_close(parameter.grad[index], own, rtol=1e-5, atol=1e-8)
            others = [i for i in range(len(parameter)) if i not in index]
            assert others or len(rows) == len(parameter)
            assert not parameter.grad[others].any()


def test_rows_that_a_step_does_not_have_stay_to_the_bit(folder):
    """Also after steps that have left the optimizer something to go on with."""
    bench = Workbench(folder, PARTS)
    optimizer = build_optimizer(bench.model, bench.config.training)
    shares = [ground.role.share for ground in bench.grounds]
    untouched, moved = UntouchedRows(bench.model, optimizer, shares), {}
    for number in range(8):
        optimizer.zero_grad()
        before = {name: p.detach().clone() for name, p in bench.model.named_parameters()}
        memory = {n: optimizer.state[p]["exp_avg"].clone() for n, p in bench.model.named_parameters()}
        ready = bench.ready(number)
        scored = compute_gradients(bench.model, bench.grounds, [ready], 1, torch.float32)
        found = exchange(bench.model, scored, bench.role, False)
        kept = untouched.kept([ready.batch.store])
        update_weights(bench.model, optimizer, found.gradient_norm, bench.config.training, number, kept)
        share, times = shares[ready.batch.store], bench.config.model.input_times
        told = dict(zip(bench.role.channels, found.channel_loss.isnan().tolist(), strict=True))
        assert {name for name, unknown in told.items() if not unknown} == set(share.outputs)
        for name, parameter in bench.model.named_parameters():
            rows = row_names(bench.model, name)
            if rows is None:
                continue
            there = share.input_names(times) if name.startswith("tokenizer.") else share.outputs
            for i, row in enumerate(rows):
                same = torch.equal(parameter[i], before[name][i])
                same &= torch.equal(optimizer.state[parameter]["exp_avg"][i], memory[name][i])
                assert same or row in there, (name, row)
                moved[name, row] = moved.get((name, row), False) or not same
    assert all(moved.values())
    assert set(bench.mixture.stores[:8]) == {0, 1}


def test_training_tells_of_each_store_and_writes_weights_of_each(folder, trained):
    lines = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss_by_channel"] for line in lines if "loss_by_channel" in line]
    assert {name for one in losses for name in one} == {"z500", "t850", "u10", "tcwv"}
    validation = next(line["validation"] for line in reversed(lines) if "validation" in line)
    by_store = validation["by_store"]
    assert {name: set(one["rmse"]) for name, one in by_store.items()} == {
        "first": {"z500", "t850", "u10"}, "second": {"u10", "t850", "tcwv"},
    }  # fmt: skip
    assert validation["loss"] == pytest.approx(0.75 * by_store["first"]["loss"] + 0.25 * by_store["second"]["loss"])
    foundation = load_weights(trained.folder / "foundation.safetensors")
    assert foundation.domain.channels == tuple(two_stores.ALL)
    for name, file in (("first", "weights.safetensors"), ("second", "weights.second.safetensors")):
        model = load_weights(trained.folder / file)
        store = open_store(folder / f"{name}.zarr")
        assert model.domain.channels == tuple(two_stores.CHANNELS[name])
        np.testing.assert_array_equal(model.domain.mean, store.mean)
        assert model.domain.grid == store.grid
        for key, parameter in model.named_parameters():
            rows, theirs = row_names(model, key), foundation.get_parameter(key)
            index = None if rows is None else [row_names(foundation, key).index(row) for row in rows]
            assert torch.equal(parameter, theirs if index is None else theirs[index])
        forecast = weatherfm.forecast(model, store, "6h")
        assert all(np.isfinite(values).any() for values in forecast.data_vars.values())


@pytest.mark.parametrize("step", [4, 12])
def test_killed_it_ends_with_the_same_weights(folder, step):
    """In the middle of a mix and of a curriculum: before any checkpoint, and while the one of step 10 is written."""
    settings = {"rollout": {"steps": {0: 1, 6: 2}}, "channel_sampling": 0.5, "ema_decay": 0.9}
    if not (folder / "whole").exists():
        trainer.train(two_stores.make_run(folder, "whole", **settings))
    path = folder / f"killed {step}.yaml"
    path.write_text(yaml.safe_dump(two_stores.run_settings(folder, f"killed {step}", **settings)))
    kill_train.killed_in_step(step, path)
    assert trainer.train(load_run(path)).resumed_from in ((0,) if step < 5 else (5, 10))
    for name in ("weights", "weights.second", "foundation"):
        whole, killed = (load_file(folder / run / f"{name}.safetensors") for run in ("whole", f"killed {step}"))
        assert all(torch.equal(value, killed[key]) for key, value in whole.items())
    assert kill_train.result(folder / f"killed {step}") == kill_train.result(folder / "whole")


def test_another_weight_is_another_run(folder, trained):
    changed = two_stores.run_settings(folder, "trained", PARTS)
    changed["data"]["mix"][0]["weight"] = 2
    with pytest.raises(InputError, match=r"data.mix.first.weight: 0.75 in the checkpoint, 0.666"):
        trainer.train(parse_settings(RunConfig, changed, "test"))


def test_another_order_is_another_run(folder, trained):
    """Which store a batch is of follows from it, and which is the first."""
    changed = two_stores.run_settings(folder, "trained", PARTS)
    changed["data"]["mix"].reverse()
    message = r"data.stores: \['first', 'second'\] in the checkpoint, \['second', 'first'\] now"
    with pytest.raises(InputError, match=message):
        trainer.train(parse_settings(RunConfig, changed, "test"))


def test_all_channels_are_there_to_start_from(folder, trained):
    """On a third kind of data: channels of both stores, with the statistics of the store or of the weights."""
    settings = two_stores.run_settings(folder, "tuned", PARTS | {"outputs": None}, steps=2, validate_every=2)
    own = two_stores.part(folder, "second")
    settings["data"] = two_stores.data_settings(folder) | {"store": own["store"], "source": own["source"], "mix": []}
    settings["data"] |= {"channels": ["u10", "t850", "tcwv"], "static": ["lsm"]}
    del settings["model"]["outputs"]
    settings["training"]["start_from"] = {"weights": str(trained.folder), "statistics": "store"}
    config = parse_settings(RunConfig, settings, "test")
    start, store = find_start(config, open_parts(config)), open_store(own["store"])
    assert start.donor.path.name == "foundation.safetensors"
    assert start.match.outputs == {name: (name,) for name in ("u10", "t850", "tcwv")}
    assert any("with the statistics of the store" in line for line in start.lines())
    np.testing.assert_array_equal(start.domain.mean, store.domain(["u10", "t850", "tcwv"]).mean)
    settings["training"]["start_from"]["statistics"] = "weights"
    other = parse_settings(RunConfig, settings, "test")
    trained_with = find_start(other, open_parts(other)).domain
    assert trained_with.std[1] == open_store(folder / "first.zarr").std[1] != store.std[2]
    assert trainer.train(config).weights.exists()
    with pytest.raises(InputError, match=r"start_from.statistics: store in the checkpoint, absent now"):
        trainer.train(other)


def test_days_of_every_store_are_known_to_weights(folder, trained):
    provenance = load_weights(trained.folder / "weights.second.safetensors").provenance
    assert [one["world"] for one in provenance["mix"]] == [
        open_store(folder / f"{n}.zarr").world for n in ("first", "second")
    ]
    provenance["mix"][0]["world"] = "another"  # of the same world as the truth, the second alone
    store = open_store(folder / "second.zarr")
    with pytest.raises(InputError, match="its weights were trained on"):
        refuse_days_of_weights(store.times[:4], store, {"model": {"training": provenance}})
    provenance["mix"][1]["world"] = "a third"
    refuse_days_of_weights(store.times[:4], store, {"model": {"training": provenance}})


def test_check_tells_of_each_store(folder):
    findings = {one.link: one for one in check_run(two_stores.make_run(folder))}
    assert all(findings[link].ok for link in ("store", "training", "model", "layout")), findings
    assert findings["store"].text.startswith("first (75%): 3 channels, 100 times")
    assert "; second (25%): 4 channels" in findings["store"].text
    assert "2 x 4, 3 x 6 patches" in findings["model"].text


@pytest.mark.parametrize(
    ("changes", "model", "message"),
    [
        (({}, {}), {"position": "learned"}, r"other numbers of patches \(2 x 4 in first, 3 x 6 in second\)"),
        (({}, {}), {"aggregation": {"kind": "hierarchical", "groups": 2}}, "first, second lack some of data.channels"),
        (({}, {}), {"outputs": ["z500"]}, r"of u10 v10 t850 tcwv none is among model\.outputs"),
        (({}, {"channels": ["v10", "tcwv", "msl"]}), {}, "mix: second has msl, not among data.channels"),
        (({}, {"channels": ["v10"]}), {}, "channels tcwv are in none of the stores"),
        (({}, {"name": "first"}), {}, "mix repeats the names first"),
        (({}, {"train": "2000-01-01/2000-01-10"}), {}, "data.mix, second: data.train is 2000-01-01/2000-01-10"),
        (({}, {"source": None}), {}, "mix: second has no source; give it one"),
        (({}, {"weight": 0}), {}, "mix.1.weight: input should be greater than 0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(folder, changes, model, message):
    settings = two_stores.run_settings(folder, "refused", model)
    settings["data"]["mix"] = [
        two_stores.part(folder, name) | change for name, change in zip(("first", "second"), changes, strict=True)
    ]
    with pytest.raises(InputError, match=message):
        trainer.train(parse_settings(RunConfig, settings, "test"))


def test_a_grid_that_the_model_is_not_for_is_told_by_check(folder):
    """Also where it is not the first."""
    settings = two_stores.run_settings(folder, "refused", {"truncation": 3})
    settings["data"]["mix"].reverse()
    found = {one.link: one for one in check_run(parse_settings(RunConfig, settings, "test"))}["training"]
    assert not found.ok
    assert found.text.startswith("data.mix, first: model.truncation 3 needs 5 latitudes")


def test_losses_of_one_store_alone_are_told_by_check(folder):
    settings = two_stores.run_settings(folder, "refused", channel_weights={"z": 0, "t": 0, "u10": 0})
    config = parse_settings(RunConfig, settings, "test")
    found = {one.link: one for one in check_run(config)}["training"]
    assert (found.ok, found.text.startswith("data.mix, first: training.channel_weights gives every")) == (False, True)
    with pytest.raises(InputError, match=r"data\.mix, first: training\.channel_weights gives every"):
        trainer.train(config)


def test_one_store_with_validation_is_enough(folder):
    settings = two_stores.run_settings(folder, "validated", export="best", steps=2, validate_every=2)
    validation = settings["data"].pop("validation")
    with pytest.raises(InputError, match="export=best needs a validation period"):
        trainer.train(parse_settings(RunConfig, settings, "test"))
    settings["data"]["mix"][1]["validation"] = validation
    ended = trainer.train(parse_settings(RunConfig, settings, "test"))
    assert ended.best_step == 2
    assert ended.weights.exists()


def test_sums_over_other_spans_are_refused(folder, monkeypatch):
    parts = open_parts(two_stores.make_run(folder))
    for part, hours in zip(parts, (6, 24), strict=True):
        told = [
            one | {"accumulation_hours": hours * (one["name"] == "u10") or None}
            for one in part.store.manifest["channels"]
        ]
        monkeypatch.setitem(part.store.manifest, "channels", told)
    with pytest.raises(InputError, match="u10 is a sum over 24h in second and over 6h in first; set"):
        find_start(parts[0].config, parts)


def test_keys_of_private_stores_stay_in_settings_alone(folder):
    settings = two_stores.run_settings(folder)
    source = {"kind": "files", "paths": ["x.nc"], "storage_options": {"token": "s3cr3t"}}
    for part in settings["data"]["mix"]:
        part["source"] = source
    config = parse_settings(RunConfig, settings, "test")
    assert "s3cr3t" not in config.model_dump_json()
    again = parse_settings(RunConfig, settings_of(config), "again")
    assert [data.source.storage_options for _, _, data in again.data.parts()] == 2 * [{"token": "s3cr3t"}]


@pytest.mark.parametrize("spelled", ["first.zarr", "first.zarr/", "../{}/first.zarr", "link.zarr"])
def test_one_folder_is_not_mixed_with_itself(folder, spelled):
    settings = two_stores.run_settings(folder)
    if spelled == "link.zarr":
        (folder / spelled).symlink_to(folder / "first.zarr")
    settings["data"]["mix"][1] |= {"store": f"{folder}/{spelled.format(folder.name)}", "name": "again"}
    with pytest.raises(InputError, match="mix repeats the stores"):
        parse_settings(RunConfig, settings, "test")


def test_a_source_beside_a_mix_holds_for_stores_without_one(folder):
    settings = two_stores.run_settings(folder)
    settings["data"]["source"] = {"kind": "planet", "seed": 3}
    del settings["data"]["mix"][1]["source"]
    found = parse_settings(RunConfig, settings, "test").data.parts()
    assert [data.source.seed for _, _, data in found] == [0, 3]


def test_a_store_beside_a_mix_is_refused(folder):
    """Forecasts would be from it."""
    settings = two_stores.run_settings(folder)
    settings["data"]["store"] = settings["data"]["mix"][1]["store"]
    with pytest.raises(InputError, match=r"second.zarr stands beside mix, .*/first.zarr; leave data.store out"):
        parse_settings(RunConfig, settings, "test")
    settings["data"]["store"] = settings["data"]["mix"][0]["store"]
    parse_settings(RunConfig, settings, "test")


def test_days_that_another_store_of_the_same_world_learns_from_are_refused(folder, monkeypatch):
    settings = two_stores.run_settings(folder)
    del settings["data"]["train"]
    for part, train in zip(settings["data"]["mix"], ("2000-01-01/2000-01-18", "2000-01-01/2000-01-20"), strict=True):
        part["train"] = train
    settings["data"]["mix"][0]["test"] = "2000-01-19/2000-01-20"
    config = parse_settings(RunConfig, settings, "test")
    monkeypatch.setattr(store_checks, "_check_store", lambda config, store: None)  # the stores learn from other days
    monkeypatch.setattr(Store, "world", property(lambda self: str(self.path)))
    store_checks.check_parts(config, open_parts(config))
    monkeypatch.setattr(Store, "world", "one planet")
    with pytest.raises(InputError, match=r"second learns from .* and first holds out 2000-01-19/2000-01-20 for test"):
        store_checks.check_parts(config, open_parts(config))


def test_a_view_is_left_as_it_was(folder):
    bench = Workbench(folder)
    history = torch.randn(2, 1, 3, 4, 8)
    forcings, leads = torch.randn(2, 3, 4, 8), torch.tensor([6, 12])
    look_at(bench.model, bench.grounds[0].view)
    before = bench.model(history, forcings, leads)
    look_at(bench.model, bench.grounds[1].view)
    assert bench.model.domain.grid.shape == (6, 12)
    look_at(bench.model, bench.grounds[0].view)
    assert torch.equal(bench.model(history, forcings, leads), before)


def test_best_weights_of_every_store_go_back_before_the_cooldown(folder, monkeypatch):
    """A longer run has none of those that the cooldown of the shorter one has exported."""
    short = {"schedule": "constant_cooldown", "steps": 10, "cooldown_steps": 4, "export": "best", "validate_every": 2}
    coming = iter([3.0, 1.0, 2.0, 0.5, 0.2] + [2.0] * 5)
    monkeypatch.setattr(trainer, "together", lambda parts, found: {"loss": next(coming), "by_store": {}})
    assert trainer.train(two_stores.make_run(folder, "longer", **short)).best_step == 10
    long = two_stores.make_run(folder, "longer", **(short | {"steps": 16}))
    assert trainer.train(long).best_step == 4
    for name in ("weights", "weights.second", "foundation"):
        told = read_header(long.folder / f"{name}.safetensors")[2]
        assert (told["step"], told["settings"]["training"]["steps"]) == (4, 16)
