"""`ragged_attention` in plain torch: runs of segments as sparse matrices, beside a dense tail."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from foveate.kernels.ragged_attention.layout import PIECE_TOKENS, Layout, Piece, Places
from foveate.types import Float, Int

__all__ = ["ragged_attention"]

Mix = Callable[[Tensor], Tensor]
FEW_LOGITS = 3000  # per segment: up to here a sparse product beats one product per segment


@torch.no_grad()
def ragged_attention(
    queries: Float[Tensor, "B Hq q D"],
    keys: Float[Tensor, "S D"],
    values: Float[Tensor, "S Dv"],
    offsets: Int[Tensor, " n"],
    tail_keys: Float[Tensor, "B H t D"],
    tail_values: Float[Tensor, "B H t Dv"],
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " Hq"] | None = None,
    prefix_bias: Float[Tensor, "q S"] | None = None,
    tail_bias: Float[Tensor, "B x q t"] | None = None,
    layout: Layout | None = None,
) -> Float[Tensor, "B q Hq Dv"]:
    """Return attention over a flat prefix and a dense tail, in the dtype of the queries.

    Segment `b * H + h` of the prefix lies between that offset and the next; key head h of row b
    sees it before its tail. `sinks` add a logit without a value to every query head. Biases are
    added to logits after `softcap`; the least number of their dtype hides. A row that sees nothing
    gives zeros. Sums are in float32, or float64 as the inputs. `layout` is `Layout.of(offsets)`,
    which is made here if not given. There are no gradients.
    """
    B, Hq, q, _ = queries.shape
    H = tail_keys.shape[1]
    R = Hq // H * q
    layout = Layout.of(offsets) if layout is None else layout
    kind = torch.float64 if queries.dtype == torch.float64 else torch.float32
    problem = Problem(
        (queries.to(kind) * scaling).reshape(B * H, R, -1),
        keys,
        values,
        tail_keys.flatten(0, 1),
        tail_values.flatten(0, 1),
        softcap,
        None if sinks is None else sinks.to(kind).view(H, -1, 1).expand(B, H, -1, q).reshape(-1, R),
        None if prefix_bias is None else hiding(prefix_bias, kind),
        None if tail_bias is None else by_head(hiding(tail_bias, kind), H, Hq),
    )
    few = R == 1 or R * len(keys) <= FEW_LOGITS * B * H
    parts = [problem.attend(piece) for piece in (layout.runs if few else layout.segments)]
    out = torch.cat(parts) if len(parts) > 1 else parts[0]
    return out.reshape(B, Hq, q, -1).transpose(1, 2).to(queries.dtype).contiguous()


def hiding(bias: Tensor, kind: torch.dtype) -> Tensor:
    """Return a bias in another dtype, the least number of its own as minus infinity."""
    return bias.to(kind).masked_fill(bias <= torch.finfo(bias.dtype).min, -math.inf)


def by_head(bias: Float[Tensor, "B x q t"], H: int, Hq: int) -> Float[Tensor, "BH R t"]:
    """Return the bias of the tail for the query rows of every key head."""
    return bias.expand(-1, Hq, -1, -1).unflatten(1, (H, Hq // H)).flatten(2, 3).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a piece takes its part of; the R query rows of a key head are [G, q]."""

    queries: Float[Tensor, "BH R D"]  # scaled, and in the dtype of the sums
    keys: Float[Tensor, "S D"]
    values: Float[Tensor, "S Dv"]
    tail_keys: Float[Tensor, "BH t D"]
    tail_values: Float[Tensor, "BH t Dv"]
    softcap: float | None
    sinks: Float[Tensor, "BH R"] | None
    prefix_bias: Float[Tensor, "q S"] | None
    tail_bias: Float[Tensor, "BH R t"] | None

    def attend(self, piece: Piece) -> Float[Tensor, "m R Dv"]:
        """Return the attention of the rows of one piece."""
        heads, W, t = slice(piece.first, piece.last), piece.width, self.tail_keys.shape[1]
        queries = self.queries[heads]
        if piece.places is None:
            table, mix = self.one(piece, queries)
        else:
            table, mix = self.many(piece, piece.places, queries)
        parts = [table]
        if t:
            tail = self.capped(queries.bmm(self.tail_keys[heads].to(table.dtype).mT))
            tail = tail if self.tail_bias is None else tail + self.tail_bias[heads]
            parts.append(tail.transpose(0, 1))
        if self.sinks is not None:
            parts.append(self.sinks[heads].T[..., None])
        p = self.softmax(torch.cat(parts, -1) if len(parts) > 1 else table)
        out = mix(p[..., :W])
        if t:
            tail = p[..., W : W + t].transpose(0, 1)
            out = out + tail.bmm(self.tail_values[heads].to(p.dtype))
        return out

    def softmax(self, logits: Float[Tensor, "R m L"]) -> Float[Tensor, "R m L"]:
        """Return the softmax of the logits of each row and segment; zeros, where none is seen."""
        if not logits.shape[-1]:
            return logits
        p = logits.softmax(-1)
        hidden = self.prefix_bias is not None or self.tail_bias is not None
        if hidden or not self.tail_keys.shape[1]:
            p.masked_fill_(logits.amax(-1, keepdim=True) == -math.inf, 0)
        return p

    def capped(self, logits: Tensor) -> Tensor:
        """Return logits after the cap, if there is one."""
        return logits if self.softcap is None else (logits / self.softcap).tanh_() * self.softcap

    def biased(self, piece: Piece, logits: Float[Tensor, "R n"]) -> Float[Tensor, "R n"]:
        """Return the logits of a part of the prefix after cap and bias."""
        logits = self.capped(logits)
        if self.prefix_bias is None:
            return logits
        bias = self.prefix_bias[:, piece.start : piece.stop]
        return (logits.unflatten(0, (len(logits) // len(bias), -1)) + bias).flatten(0, 1)

    def one(self, piece: Piece, queries: Float[Tensor, "1 R D"]) -> tuple[Tensor, Mix]:
        """Return the logits of one segment, [R, 1, W], and what mixes its values."""
        part = slice(piece.start, piece.stop)
        logits = (self.keys[part].to(queries.dtype) @ queries[0].mT).mT

        def mix(p: Float[Tensor, "R 1 W"]) -> Float[Tensor, "1 R Dv"]:
            return (p[:, 0] @ self.values[part].to(p.dtype))[None]

        return self.biased(piece, logits)[:, None], mix

    def many(
        self, piece: Piece, places: Places, queries: Float[Tensor, "m R D"]
    ) -> tuple[Tensor, Mix]:
        """Return the logits of several segments, [R, m, W], and what mixes their values."""
        part, (m, R, D) = slice(piece.start, piece.stop), queries.shape
        keys = self.keys[part].to(queries.dtype)
        n, slots = len(keys), places.slots
        rows = queries.transpose(0, 1).reshape(R * m, D)
        weights = torch.sparse.sampled_addmm(pattern(places, R, rows), rows, keys.mT, beta=0)
        inner = weights.values().view(R, n)
        table = inner.new_full((R, m * piece.width), -math.inf)
        table.scatter_(1, slots.long().expand(R, n), self.biased(piece, inner))

        def mix(p: Float[Tensor, "R m W"]) -> Float[Tensor, "m R Dv"]:
            torch.index_select(p.reshape(R, m * piece.width), 1, slots, out=inner)
            values = self.values[part].to(p.dtype)
            return torch.sparse.mm(weights, values, reduce="sum").view(R, m, -1).transpose(0, 1)

        return table.view(R, m, piece.width), mix


def pattern(places: Places, R: int, like: Tensor) -> Float[Tensor, "Rm n"]:
    """Return a sparse matrix of zeros, a row per query row and segment, over the piece's tokens."""
    n, rows = len(places.slots), places.ends
    columns = numbers()[:n].repeat(R) if R > 1 else numbers()[:n]
    if R > 1:
        rows = (rows[:-1] + n * torch.arange(R, dtype=torch.int32)[:, None]).flatten()
        rows = torch.nn.functional.pad(rows, (0, 1), value=R * n)
    size = (len(rows) - 1, n)
    return torch.sparse_csr_tensor(
        rows, columns, like.new_zeros(R * n), size, check_invariants=False
    )


@cache
def numbers() -> Int[Tensor, " n"]:
    """Return the columns of the largest piece; torch says, unheard, that CSR is in beta state."""
    columns = torch.arange(PIECE_TOKENS, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        none = columns[:1], columns[:0], torch.zeros(0)
        torch.sparse_csr_tensor(*none, (0, 0), check_invariants=False)
    return columns
