"""The books of a prompt: what its layers may keep at most, while they are ranked one by one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foveate.errors import UnsupportedModel
from foveate.line import Line
from foveate.method import Bounded, Budget, everything
from foveate.types import STAYS, Bool, Int, Ranking

__all__ = ["LAZY", "Ledger"]

LAZY = 0.1  # of what a layer holds: a trim that frees less than that waits


class Ledger:
    """What layers may keep at most, and which of them are to be trimmed to what.

    `layers` are the numbers of all layers that are going to be ranked, in that order, and `budget`
    tells bounds of what they keep. Bounds never rise: of all that were told the lowest holds. What
    remains of a layer after any trim contains what the budget keeps in the end.

    A trim waits until it frees more than the share `lazy` of what the layer holds, so a layer that
    held n tokens after its first trim moves `n / lazy` at most in all others; `moved` counts them.
    None is made for padding alone.
    """

    def __init__(self, budget: Budget, layers: Sequence[int], lazy: float = LAZY) -> None:
        self.budget, self.layers, self.lazy = budget, tuple(layers), lazy
        self.lines: list[Line] = []
        self.bounds: list[Tensor] = []  # [B, H] each, in host memory
        self.held: list[int] = []  # tokens of all rows and heads
        self.moved = 0
        self.blind = len(self.layers) > 1  # no bound was known before the last layer
        self._staying: list[Tensor] = []  # [B, h] each, beside the budget
        self._most: list[Tensor] = []  # [B, H] each, what a budget could hold
        self._trimmed = False

    @property
    def rankings(self) -> list[Ranking]:
        """Return the rankings so far."""
        return [line.ranking for line in self.lines]

    def add(self, ranking: Ranking) -> list[int]:
        """Take the ranking of the next layer, and return the numbers of those to be trimmed now.

        Raises `UnsupportedModel` if it is not the layer that was to come.
        """
        self._check(ranking.layer)
        staying, most = (ranking.tiers == STAYS).sum(-1), everything(ranking)
        self.lines.append(Line(ranking))
        self._most.append(most.cpu())
        self.bounds.append(self._most[-1])
        self._staying.append((staying if staying.ndim == 2 else staying[:, None]).cpu())
        self.held.append(ranking.scores.numel())
        told = None
        if isinstance(self.budget, Bounded):
            told = self.budget.bounds(self.rankings, len(self.layers))
        if told is None:
            return []
        self.blind = self.blind and len(self.lines) == len(self.layers)
        new = told.cpu().unbind(0)
        self.bounds = [a.minimum(b) for a, b in zip(self.bounds, new, strict=True)]
        return [self.layers[i] for i in range(len(new)) if self._is_due(i)]

    def keeps(self, layer: int) -> Bool[Tensor, "B H T"]:
        """Return what one of the layers holds on to."""
        place = self.layers.index(layer)
        line = self.lines[place]
        return line.best(self.bounds[place].to(line.ranking.scores.device))

    def _check(self, layer: int) -> None:
        """Raise `UnsupportedModel` if `layer` is not the one to come."""
        known = len(self.lines)
        if known == len(self.layers) or self.layers[known] != layer:
            raise UnsupportedModel(
                f"layer {layer} attended when the layers {list(self.layers[known:])} were to come, "
                "so what may be let go early is not known; use stream=False"
            )

    def _is_due(self, place: int) -> bool:
        """Return whether enough can go from a layer, and count it as gone then."""
        size = int((self.bounds[place] + self._staying[place]).sum())
        goes = bool((self.bounds[place] < self._most[place]).any())
        if not goes or size > (1 - self.lazy) * self.held[place]:
            return False
        self.held[place] = size
        self.moved += size
        self._trimmed = True
        return True

    def check(self, counts: Sequence[Int[Tensor, "B H"]]) -> None:
        """Raise `UnsupportedModel` if a layer is to keep more than it was trimmed for."""
        for line, count, bound, most in zip(
            self.lines, counts, self.bounds, self._most, strict=True
        ):
            if self._trimmed and bool(((count.cpu() > bound) & (bound < most)).any()):
                raise UnsupportedModel(
                    f"layer {line.ranking.layer} is to keep more than was known when it was "
                    "trimmed: other layers have other tokens to choose from, or scores that are "
                    "not finite; use stream=False"
                )

    def close(self) -> list[Line]:
        """Return the rankings in line; raise `UnsupportedModel` if fewer came than were to come."""
        missing = self.layers[len(self.lines) :]
        if missing and self._trimmed:
            raise UnsupportedModel(
                f"the layers {list(missing)} did not attend in this prompt, so the budget is not "
                "what the others were trimmed for; use stream=False"
            )
        return self.lines
