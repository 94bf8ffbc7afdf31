"""The simulated planet: a spectral dynamical core, its history on disk, and its pressure levels."""
