"""The training store as it lies on disk: opened, read, and believed only with its checksums."""
