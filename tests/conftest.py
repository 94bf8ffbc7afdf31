"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import weatherfm.data_pipeline.formats.codes  # noqa: F401 - before any test imports ecCodes by itself

os.environ.setdefault("WANDB_MODE", "disabled")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real reanalysis files: beside the checkout, or named by WEATHERFM_TEST_DATA."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("WEATHERFM_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real reanalysis files in {folder}; set WEATHERFM_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each() -> None:
    """Small tensors are slower on many threads, and sums in one order make failures repeatable."""
    import torch

    torch.set_num_threads(1)
