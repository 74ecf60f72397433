"""Bytes that layers hold as time passes: the sum over layers, and the most that it ever was."""

from __future__ import annotations

__all__ = ["Account"]


class Account:
    """What all layers of a cache hold now, after each layer of the last prompt, and at most."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.layers: dict[int, int] = {}
        self.held: list[int] = []  # by all layers, after each one of the last prompt pass
        self.total = self.peak = 0

    def note(self, layer: int, nbytes: int, passing: int = 0) -> None:
        """Note what one layer holds now, beside `passing` bytes that it is about to let go."""
        self.total += nbytes - self.layers.get(layer, 0)
        self.layers[layer] = nbytes
        self.peak = max(self.peak, self.total + passing)

    def open_pass(self) -> None:
        """Begin a prompt pass."""
        self.held = []

    def close_layer(self) -> None:
        """Note that a layer of the prompt is through."""
        self.held.append(self.total)
