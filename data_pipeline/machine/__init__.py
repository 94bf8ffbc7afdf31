"""What runs the work: threads or a cluster, their memory, and the disk."""
