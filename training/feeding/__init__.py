"""From the store to batches on the device: which samples, checked against the settings, cached, made ready ahead."""
