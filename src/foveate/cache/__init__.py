"""What is stored, without Hugging Face: dense tensors, and the report of a cache."""
