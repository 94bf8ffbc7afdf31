"""Maps of one forecast beside the truth: the case, its colours, the ground below, and films by lead time."""
