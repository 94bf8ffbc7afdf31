"""What `weatherfm validate` shows on one's own machine: one rank's function, memory, speed, and that runs go on."""
