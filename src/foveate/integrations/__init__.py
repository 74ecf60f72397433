"""Foveate inside the harnesses that people evaluate models with."""
