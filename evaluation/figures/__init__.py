"""Matplotlib figures of scores and of training; the report is made of them, and notebooks may use them."""
