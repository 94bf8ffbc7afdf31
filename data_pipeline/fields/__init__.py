"""Fields and their axes, between the files they come from and the store: derived, regridded, looked at."""
