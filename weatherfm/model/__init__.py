"""The mathematics of the model, on tensors alone: no ranks, no files of data."""
