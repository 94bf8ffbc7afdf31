"""From a store to weights, on one process or many: the same function on any layout, resumed on any other."""
