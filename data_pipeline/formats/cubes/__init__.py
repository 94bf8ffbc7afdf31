"""Pictures of many bands on disk: ENVI and NumPy."""
