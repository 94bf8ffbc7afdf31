"""What goes on around the steps of a run: its lock, its log, its speed, and the signals that end it."""
