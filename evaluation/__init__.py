"""Forecasts, scores, maps and the report."""
