"""Lazy fields of what was chosen: in which blocks they are read, and what that costs."""
