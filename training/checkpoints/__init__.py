"""Checkpoints of a run: written whole or not at all, resumed on any layout, exported as weights."""
