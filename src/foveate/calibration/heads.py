"""SparseMM's visual heads: which heads look at the word that the model is reading out.

arXiv 2506.05344. score(h) is the mean over pages of the sum, over the tokens whose text is part of
exactly one chunk of the page, of [argmax of head h is in the chunk's region] / |region|; the table
is normalised to sum 1.

Differs from the paper: a token of white space alone is never used; the argmax is that of float32
logits, where the paper's code compares probabilities in the model's precision; grid cells share the
picture evenly, where its code divides whole pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.calibration.boxes import Cells, region
from foveate.calibration.pages import Chunk, only_chunk
from foveate.errors import InputError

__all__ = ["Tally", "concentration"]


@dataclass
class Tally:
    """Scores and hits [N, Hq] summed over pages, in float64."""

    scores: Tensor
    hits: Tensor
    pages: int = 0
    tokens: int = 0
    used: int = 0

    @staticmethod
    def empty(layers: int, query_heads: int) -> Tally:
        """Return a tally of nothing."""
        return Tally(*torch.zeros(2, layers, query_heads, dtype=torch.float64))

    def add(
        self,
        texts: Sequence[str],
        positions: Tensor,
        chunks: Sequence[Chunk],
        cells: Cells,
        size: tuple[int, int],
    ) -> None:
        """Count the tokens of one answer; `positions` [S, N, Hq] are where the heads looked."""
        for text, looked in zip(texts, positions, strict=True):
            self.tokens += 1
            chunk = only_chunk(text, chunks)
            if chunk is None:
                continue
            inside = torch.tensor(region(cells, size, chunk.box))
            hit = torch.isin(looked, inside).double()
            self.used += 1
            self.hits += hit
            self.scores += hit / len(inside)

    def table(self) -> dict[str, Any]:
        """Return the normalised scores and what they are made of, as plain values."""
        total = self.scores.sum()
        if not self.used or not total:
            raise InputError(
                f"of {self.tokens} generated tokens {self.used} belong to one place on their page, "
                "and no head looked at the place of any; use more pages, or a prompt that makes "
                "this model read them out"
            )
        return {
            "scores": (self.scores / total).tolist(),
            "hit_rate": [[round(x, 4) for x in row] for row in (self.hits / self.used).tolist()],
            "pages": self.pages,
            "tokens": self.tokens,
            "tokens_used": self.used,
        }


def concentration(scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return how much of all scores the best 5 % and 10 % of heads hold, and how many hold none."""
    flat = sorted((value for row in scores for value in row), reverse=True)
    total = sum(flat)
    shares = {
        f"top_{share}_percent": sum(flat[: max(1, round(len(flat) * share / 100))]) / total
        for share in (5, 10)
    }
    return {**shares, "heads": len(flat), "zero_heads": flat.count(0.0)}
