"""Simulated leaves."""
