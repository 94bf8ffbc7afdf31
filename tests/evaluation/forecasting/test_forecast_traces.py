"""A forecast from Python leaves the process and the model as it found them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from small_store import SmallStore, TestModel, drift
from torch import nn

import weatherfm
from weatherfm.data_pipeline.store.states import StoreStates
from weatherfm.device import choose_device, choose_precision
from weatherfm.errors import InputError


@pytest.fixture
def products():
    """Puts the process's setting back, whatever a test does."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def model() -> TestModel:
    model = TestModel(SmallStore().domain(), drift)
    model.provenance = {}
    model.frozen, model.learning = nn.Dropout(), nn.Dropout()
    model.train()
    model.frozen.eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_the_precision_of_products_is_put_back(model, products, before, precision):
    inside = []
    model.rule = lambda *given: inside.append(torch.get_float32_matmul_precision()) or drift(*given)
    torch.set_float32_matmul_precision(before)
    weatherfm.forecast(model, StoreStates(SmallStore()), precision=precision)
    assert inside == ["high" if precision == "tf32" else "highest"]
    assert torch.get_float32_matmul_precision() == before


def test_to_ask_for_a_dtype_changes_nothing(products):
    torch.set_float32_matmul_precision("medium")
    assert choose_precision("tf32", torch.device("cpu")) == torch.float32
    assert torch.get_float32_matmul_precision() == "medium"


def test_frozen_parts_stay_frozen(model):
    assert modes(model) == [True, False, True]
    weatherfm.forecast(model, StoreStates(SmallStore()))
    assert modes(model) == [True, False, True]


def test_put_back_after_an_error(model, products):
    torch.set_float32_matmul_precision("medium")
    model.rule = lambda history, lead: history[:, 0] * np.nan
    with pytest.raises(InputError, match="not finite"):
        weatherfm.forecast(model, StoreStates(SmallStore()))
    assert modes(model) == [True, False, True]
    assert torch.get_float32_matmul_precision() == "medium"


def test_the_face_shows_what_is_meant_to_be_used():
    shown = "import weatherfm; print(*(n for n in dir(weatherfm) if not n.startswith('_')))"
    said = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.split()
    assert said == sorted(name for name in weatherfm.__all__ if not name.startswith("_"))
    assert {"InputError", "forecast", "load", "open_store"} <= set(said)
    assert weatherfm.InputError is InputError


@pytest.mark.parametrize("name", ["meta", "gpu", "vulkan", "cuda:99"])
def test_what_does_not_compute_is_no_device(name):
    with pytest.raises(InputError, match=f"forecast.device '{name}' cannot be used here"):
        choose_device(name, "forecast.device")
