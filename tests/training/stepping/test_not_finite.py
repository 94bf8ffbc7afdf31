"""What a run that stopped for a number says of its checkpoints."""

from __future__ import annotations

from weatherfm.training.stepping.not_finite import _kept


def test_a_checkpoint_is_named_only_where_there_is_one(tmp_path):
    """In the first steps of a run "the last good checkpoint" was said to be kept where none was."""
    assert _kept(tmp_path / "checkpoints").startswith("no checkpoint was written before that")
    (tmp_path / "checkpoints").mkdir()
    assert _kept(tmp_path / "checkpoints").startswith("no checkpoint")
    (tmp_path / "checkpoints/step-00000005").mkdir()
    for folder in (tmp_path, tmp_path / "checkpoints"):
        assert f"the last good checkpoint in {folder} is kept" in _kept(folder)
