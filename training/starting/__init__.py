"""Starting from trained weights: whose they are, what of them fits by name, and how the rest begins."""
