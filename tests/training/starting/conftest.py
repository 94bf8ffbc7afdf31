"""What the tests of starting share."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_run
from started_run import OLD, config

from weatherfm.training import trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A store, and weights trained on two of its channels."""
    folder = tmp_path_factory.mktemp("starting")
    toy_run.make_store(folder)
    trainer.train(config(folder, "old", channels=OLD, start=None))
    return folder
