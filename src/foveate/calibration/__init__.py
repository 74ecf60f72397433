"""What is measured once per model and reused: head scores, redundancies, layer sizes."""
