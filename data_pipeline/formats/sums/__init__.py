"""Accumulated fields: what each is summed over, and the sums that a store wants made of them."""
