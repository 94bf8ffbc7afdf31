"""What a run needs before it is queued: memory, traffic and arithmetic of every layout, counted on simulated ranks."""
