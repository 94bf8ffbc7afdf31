"""Zarr stores in a folder or by address: what is missing, what is repeated, and what it takes."""
