"""Training the projector through the frozen talker: losses, optimizer steps, checkpoints, logs."""
