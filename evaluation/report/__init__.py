"""The report: one self-contained page about scores and forecasts."""
