"""The checks of `weatherfm verify`: files, metadata, times, values, changes, statistics; verify.py calls them."""
