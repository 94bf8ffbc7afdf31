"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from places import REAL_DATA

import weatherfm.data_pipeline.formats.grib.codes  # noqa: F401 - before any test imports ecCodes by itself

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # others are processes that import PyTorch, in every rank
gc.disable()  # until all is imported: of the million objects that come by it none is garbage

LONG = (
    "distributed/test_launch.py",
    "distributed/test_train_command.py",
    "data_pipeline/test_prepare.py",
    "training/plan/test_plan.py",
    "training/test_trainer.py",
    "distributed/test_parity.py",
    "command/test_public_face.py",
    "distributed/test_plan_against_ranks.py",
    "command/test_cli.py",
    "distributed/test_forecast_ranks.py",
    "data_pipeline/test_crash_points.py",
    "distributed/test_shared_fields.py",
    "distributed/test_seeds_on_ranks.py",
    "evaluation/scoring/test_scoring_parts.py",
    "distributed/test_train_layouts.py",
    "command/test_chain_notebook.py",
    "distributed/test_resume.py",
    "evaluation/report/test_report.py",
    "distributed/test_gradient_accumulation.py",
    "data_pipeline/writing/test_trust_records.py",
    "distributed/test_activation_checkpointing.py",
    "data_pipeline/verification/test_verify_values.py",
    "distributed/test_compile.py",
)
"""Files of 15 seconds and more, longer ones first: dealt out to several processes, one of them at the end would leave
the others without work. Those that start ranks take turns with those that do not: side by side, a dozen ranks on two
cores wait for each other."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m slow` imports the files that have slow tests alone."""
    if config.option.markexpr == "slow" and collection_path.suffix == ".py":
        return "pytest.mark.slow" not in collection_path.read_text() or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; all others as they were."""
    here = Path(__file__).parent
    rank = {here / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    """From here on only what tests make is looked through for garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real reanalysis files."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real reanalysis files in {REAL_DATA}; set WEATHERFM_TEST_DATA to their folder")
    return REAL_DATA


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each() -> None:
    """Small tensors are slower on many threads, and sums in one order make failures repeatable."""
    import torch

    torch.set_num_threads(1)
