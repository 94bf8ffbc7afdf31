"""Training on one or many devices."""
