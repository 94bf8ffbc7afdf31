"""Matplotlib figures of scores and fields; the report is made of them, and notebooks may use them."""
