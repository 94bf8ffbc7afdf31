"""Weights of several kinds and their store, for tests of ensembles; a module has them once."""

from __future__ import annotations

import member_weights
import pytest

import weatherfm


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    """With all of `member_weights.WEIGHTS`, or those that the module names as `MEMBERS`."""
    folder = tmp_path_factory.mktemp("members")
    member_weights.make_weights(folder, getattr(request.module, "MEMBERS", tuple(member_weights.WEIGHTS)))
    return folder


@pytest.fixture
def store(folder):
    return weatherfm.open_store(folder / "store.zarr")


@pytest.fixture
def load(folder):
    return lambda name: weatherfm.load(folder / f"{name}.safetensors", "cpu")
