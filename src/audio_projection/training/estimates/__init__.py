"""What a training run would take, estimated from configuration numbers alone: FLOPs, hours, GPU memory."""
