"""Run files that ship with weatherfm, smallest first."""
