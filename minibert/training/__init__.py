"""Training: one exact, traced step, the loop around it, and checkpoints to go on from."""
