"""Fields of NetCDF files and Zarr stores, told by their headers: dimensions, times, kinds, and reading them."""
