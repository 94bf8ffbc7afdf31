"""One step: loss, gradients, the exchange between ranks, the update, the average of the weights, validation."""
