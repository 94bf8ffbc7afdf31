"""From ERA5, wherever it is, to a training store that can be trusted: prepare, append, verify, repair."""
