"""One batch of samples at a time: what a loaded model says, turn by turn."""
