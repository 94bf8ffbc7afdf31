"""ERA5 to a training store."""
