"""Forecasts on disk: written in WeatherBench2's layout, and read from anyone who keeps to it."""
