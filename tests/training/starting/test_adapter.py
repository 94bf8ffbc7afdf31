"""What a run has learned beside its base, in a file of its own: what it holds; both make the merged weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from climax_state import write_climax
from safetensors import safe_open
from safetensors.torch import save_file
from started_run import OLD, config

import weatherfm
from weatherfm.errors import InputError
from weatherfm.model.adapter import base_of
from weatherfm.model.lora import is_factor
from weatherfm.model.weights import open_tensors, parameter_names, weights_hash
from weatherfm.training import trainer
from weatherfm.training.parts import open_parts
from weatherfm.training.start_config import Lora
from weatherfm.training.starting.run_start import find_start

LORA = {"lora": {"rank": 2, "alpha": 3}}
APART = {"lora": {"rank": 2, "alpha": 3, "export": "apart"}}


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    with open_tensors(path) as file:
        return {name: file.get_tensor(name).clone() for name in parameter_names(file)}


@pytest.fixture(scope="module")
def apart(folder) -> Path:
    """The adapter of a run, beside which lies the weights file that the same run exports merged."""
    (folder / "merged").mkdir()
    trainer.train(config(folder, "same", start=LORA)).weights.rename(folder / "merged" / "weights.safetensors")
    return trainer.train(config(folder, "apart", start=APART)).weights


def test_an_adapter_holds_what_its_base_does_not(folder, apart):
    assert apart.name == "adapter.safetensors"
    assert not (apart.parent / "weights.safetensors").exists()
    own, base = tensors_of(apart), tensors_of(folder / "old" / "weights.safetensors")
    frozen = {f"blocks.{i}.{name}.weight" for i in range(2) for name in Lora().matrices}
    assert base.keys() - own.keys() == frozen
    assert own["tokenizer.weight"].shape[0] > base["tokenizer.weight"].shape[0]  # rows of u10
    assert base_of(apart).sha256 == weights_hash(folder / "old" / "weights.safetensors")
    start = APART | {"freeze": ["tokenizer", "position", "lead_time", "blocks", "norm", "head", "to_patches"]}
    model = {"input_gates": False}
    small = trainer.train(config(folder, "small", channels=OLD, start=start, model=model)).weights
    factors = {name for name in tensors_of(small) if is_factor(name)}
    assert len(factors) == 24
    assert {name.split(".")[0] for name in tensors_of(small).keys() - factors} == {"aggregation"}


def test_an_adapter_and_its_base_are_the_merged_weights(folder, apart):
    base = folder / "old" / "weights.safetensors"
    together, merged = (
        weatherfm.load(apart, "cpu", base=base),
        weatherfm.load(folder / "merged" / "weights.safetensors"),
    )
    assert together.config == merged.config
    assert together.provenance == merged.provenance
    for name, value in together.named_parameters():
        assert torch.equal(value, merged.get_parameter(name)), name
    np.testing.assert_array_equal(together.domain.mean, merged.domain.mean)
    path = weatherfm.merge_adapter(apart, folder / "old", folder / "one.safetensors")
    assert path.read_bytes() == (folder / "merged" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        ({"model": {"patch_size": [4, 2]}}, {"tokenizer.weight", "to_patches.weight", "to_patches.bias"}),
        ({"channels": ["t850"], "model": {"input_gates": False}}, {"tokenizer.weight", "to_patches.weight"}),
        ({"model": {"depth": 3}}, {"blocks.2.attention.query.weight", "blocks.2.mlp.contract.bias"}),
        ({"start": {"new_channels": {"u10": OLD}}}, {"tokenizer.gate"}),
    ],
    ids=["patches", "fewer channels", "blocks", "made of others"],
)
def test_what_was_resized_is_in_the_adapter(folder, settings, differs):
    """Also where it does not learn."""
    frozen = ["tokenizer", "aggregation", "position", "lead_time", "blocks", "norm", "head", "to_patches"]
    name = "-".join(sorted(differs)[:1])
    start = {"freeze": frozen, **settings.pop("start", {})}
    made = [
        trainer.train(config(folder, f"{name}-{kind}", start=start | lora, **settings, steps=2)).weights
        for kind, lora in (("apart", APART), ("merged", LORA))
    ]
    assert differs <= tensors_of(made[0]).keys()
    together, whole = weatherfm.load(made[0], "cpu", base=folder / "old"), weatherfm.load(made[1], "cpu")
    for key, value in together.named_parameters():
        assert torch.equal(value, whole.get_parameter(key)), key


def test_an_adapter_alone_or_with_other_weights_is_refused(folder, apart, tmp_path):
    digest = weights_hash(folder / "old" / "weights.safetensors")[:12]
    with pytest.raises(InputError, match=rf"is an adapter: .* beside weights.safetensors \(sha256 {digest}.*as base"):
        weatherfm.load(apart)
    other = folder / "merged" / "weights.safetensors"
    with pytest.raises(InputError, match=rf"{digest}.*, and .*merged.* has sha256 {weights_hash(other)[:12]}"):
        weatherfm.load(apart, base=other)
    with pytest.raises(InputError, match=r"no weights file .*nowhere"):
        weatherfm.load(apart, base=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds whole weights, and base .* is for an adapter"):
        weatherfm.load(other, base=folder / "old")
    with pytest.raises(InputError, match="holds whole weights, nothing is to be merged"):
        weatherfm.merge_adapter(other, folder / "old", tmp_path / "one")
    with pytest.raises(InputError, match="is one of the two files that are merged"):
        weatherfm.merge_adapter(apart, folder / "old", apart)
    with pytest.raises(InputError, match=r"output .* is a folder; name a file in it, as .*merged.safetensors"):
        weatherfm.merge_adapter(apart, folder / "old", tmp_path)
    again = config(folder, "again", start={"weights": str(apart.parent)})
    with pytest.raises(InputError, match=rf"is an adapter of .*{digest}.*merge_adapter"):
        find_start(again, open_parts(again))


def test_a_damaged_adapter_is_refused(folder, apart, tmp_path):
    with safe_open(apart, framework="pt") as file:
        header = json.loads(file.metadata()["weatherfm"])
        del header["checksum"]  # as a version before wrote it
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    for wrong, words in (({"base": {}, "scale": 1}, "its base cannot be read"), (None, "does not tell adapter")):
        text = json.dumps(header | {"adapter": wrong})
        save_file(tensors, tmp_path / "w", metadata={"weatherfm": text})
        with pytest.raises(InputError, match=words):
            weatherfm.load(tmp_path / "w", base=folder / "old")


def test_a_run_forecasts_with_its_adapter(folder, apart):
    """The base is found by the settings; a weights file needs it named."""
    given = config(folder, "apart", start=APART)
    settings = ["forecast.device=cpu", "forecast.lead_times=[6h]"]
    init = "2000-01-22T00"
    own = weatherfm.write_forecast(given, *settings, init=init, output=folder / "own.zarr")
    store, base = folder / "store.zarr", folder / "old"
    named = weatherfm.write_forecast(
        apart, *settings, store=store, init=init, output=folder / "named.zarr", base=base / "weights.safetensors"
    )
    whole = folder / "merged" / "weights.safetensors"
    expected = weatherfm.write_forecast(whole, *settings, store=store, init=init, output=folder / "whole.zarr")
    fields = [weatherfm.open_forecast(path).load() for path in (own, named, expected)]
    assert np.isfinite(fields[2]["geopotential"].sel(level=500)).all()
    for name in ("geopotential", "temperature"):
        for one in fields[:2]:
            np.testing.assert_array_equal(one[name], fields[2][name])
    with pytest.raises(InputError, match="is an adapter"):
        weatherfm.write_forecast(apart, *settings, store=store, init=init, output=folder / "alone.zarr")


def test_the_best_weights_may_be_an_adapter(folder):
    summary = trainer.train(config(folder, "best", start=APART, export="best"))
    assert weatherfm.load(summary.weights, "cpu", base=folder / "old").provenance["step"] == summary.best_step


def test_a_finished_run_can_be_exported_the_other_way(folder, apart):
    again = trainer.train(config(folder, "apart", start=LORA))
    assert again.resumed_from == again.steps
    assert again.weights.read_bytes() == (folder / "merged" / "weights.safetensors").read_bytes()
    again.weights.unlink()


def test_climax_has_no_adapters(folder, tmp_path):
    write_climax(tmp_path / "climax.ckpt")
    model = {"predict": "state", "patch_size": 4, "forcings": ["latitude"], "input_gates": False}
    given = config(folder, "climax", start=APART | {"weights": str(tmp_path / "climax.ckpt")}, model=model)
    with pytest.raises(InputError, match=r"export is apart, and .*climax\.ckpt is no weights file of ours"):
        find_start(given, open_parts(given))
