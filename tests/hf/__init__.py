"""Tests of the seam between Foveate and Hugging Face, on tiny real models."""
