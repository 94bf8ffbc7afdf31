"""Some six hundred wrong inputs, each refused in one short message that names it (`tests/wrong_inputs.py`)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from wrong_inputs import GROUPS, fault_of, make_world

from weatherfm.cli import run_command


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished run, and odd things beside it."""
    folder = tmp_path_factory.mktemp("wrong")
    make_world(folder)
    return folder


@pytest.fixture(autouse=True)
def _there(world, monkeypatch):
    monkeypatch.chdir(world)


@pytest.mark.parametrize("group", GROUPS)
def test_wrong_inputs_are_refused_in_one_short_message(group):
    found = {str(case): fault_of(case) for case in GROUPS[group]}
    assert {text: f"{kind}: {said}" for text, (kind, said) in found.items() if kind} == {}


def test_a_file_without_the_right_to_read_it_is_named(monkeypatch, capsys):
    def refuse(self, encoding):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert run_command(["check", "run.yaml"]) == 2
    assert "run.yaml cannot be read (Permission denied)" in capsys.readouterr().err


def test_a_right_that_is_missing_later_is_one_message_too(monkeypatch, capsys):
    from weatherfm.training import trainer

    def refuse(config, stop=None):
        raise PermissionError(13, "Permission denied", "run/metrics.jsonl")

    monkeypatch.setattr(trainer, "train", refuse)
    assert run_command(["train", "run.yaml"]) == 2
    assert "run/metrics.jsonl: Permission denied: this user may not do that" in capsys.readouterr().err


def test_a_message_of_a_million_characters_is_cut(monkeypatch, capsys):
    from weatherfm.errors import InputError
    from weatherfm.training import trainer

    def refuse(config, stop=None):
        raise InputError("\n".join(["x" * 10_000] * 1000))

    monkeypatch.setattr(trainer, "train", refuse)
    assert run_command(["train", "run.yaml"]) == 2
    said = capsys.readouterr().err
    assert len(said) < 100_000
    assert "960 lines more" in said
