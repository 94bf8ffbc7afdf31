"""Stores of another user: told before the work, and what stands there stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from invented_source import data_config, invented_source, times_every, tree
from places import importable

from weatherfm.data_pipeline.prepare import prepare
from weatherfm.earth.grid import regular_grid

TIMES, GRID = times_every(6, 40), regular_grid((2, 4))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


PREAMBLE = """
import os, sys
sys.path[:0] = {tests!r}
from pathlib import Path
from test_store_permissions import GRID, TIMES
from invented_source import data_config, invented_source
from weatherfm.data_pipeline.revise import append, repair
from weatherfm.data_pipeline.store.training_store import open_store
from weatherfm.data_pipeline.store.records.swap import hold
from weatherfm.errors import InputError
store = Path({store!r})
config = data_config(store)
os.setgid(65534)
os.setuid(65534)
try:
    {work}
except InputError as error:
    print(error)
"""


def as_nobody(store: Path, work: str) -> str:
    """What a process of a user without rights says."""
    code = PREAMBLE.format(tests=importable(__file__), store=str(store), work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where everyone may write: pytest keeps its own folders for their owner."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def store(tmp_path) -> Path:
    """Of this user."""
    path = tmp_path / "store.zarr"
    prepare(data_config(path), invented_source(TIMES[:100], GRID))
    return path


@pytest.mark.parametrize(
    "work",
    [
        "append(config, invented_source(TIMES, GRID))",
        "repair(store, {'mean/c/0'}, config, invented_source(TIMES[:100], GRID))",
    ],
)
def test_a_store_of_another_user(store, work):
    """All was done, the places changed, and then a traceback; what was left stopped everyone from then on."""
    before = tree(store)
    assert f"{store} cannot be changed by this user" in as_nobody(store, work)
    assert tree(store) == before
    assert os.listdir(store.parent) == ["store.zarr"]


def test_what_stood_there_cannot_be_removed(store, tmp_path):
    store.rename(tmp_path / ".store.zarr.last")
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / "manifest.json").write_text("{}")
    assert f"{tmp_path / '.store.zarr.last'} cannot be removed" in as_nobody(store, "hold(store).__enter__()")


@pytest.mark.parametrize("key", ["manifest.json", "mean/c/0"])
def test_files_that_may_not_be_read(store, key):
    (store / key).chmod(0)
    assert "cannot be read (Permission denied)" in as_nobody(store, "open_store(store).mean")


def test_files_larger_than_the_limit(tmp_path):
    """`ulimit -f`, or a disk of FAT32."""
    work = (
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); write_file(Path({str(tmp_path)!r}), 'a', bytes(999))"
    )
    code = (
        "import resource\nfrom pathlib import Path\nfrom weatherfm.data_pipeline.writing.journal import write_file\n"
        f"from weatherfm.errors import InputError\ntry:\n    {work}\nexcept InputError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert "the file system or a limit (ulimit -f) lets no file be that large" in done.stdout, done.stderr
