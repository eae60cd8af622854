"""What a training step costs, over devices, proposals, steps, windows, batches and options."""
