"""`ragged_attention` in plain torch: runs of segments as sparse matrices, beside a dense tail."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from foveate.kernels.ragged_attention.layout import Layout, Piece
from foveate.types import Float, Int

__all__ = ["ragged_attention"]

FEW_ROWS = 8  # query rows per key head up to which a sparse product beats one product per segment


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
    out = problem.queries.new_empty(B * H, R, values.shape[-1])
    for piece in layout.runs if R <= FEW_ROWS else layout.segments:
        out[piece.first : piece.last] = problem.attend(piece)
    return out.view(B, Hq, q, -1).transpose(1, 2).to(queries.dtype).contiguous()


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
        if W + t == 0:
            return queries.new_zeros(1)
        parts = [self.prefix_logits(piece, queries).transpose(0, 1)]
        if t:
            tail = self.capped(queries @ self.tail_keys[heads].to(queries.dtype).mT)
            parts.append(tail if self.tail_bias is None else tail + self.tail_bias[heads])
        if self.sinks is not None:
            parts.append(self.sinks[heads, :, None])
        logits = torch.cat(parts, -1)
        p = logits.softmax(-1)
        if self.sinks is None:
            p.masked_fill_(logits.amax(-1, keepdim=True) == -math.inf, 0)
        out = self.mixed(piece, p[..., :W].transpose(0, 1))
        if t:
            out = out + p[..., W : W + t] @ self.tail_values[heads].to(p.dtype)
        return out

    def capped(self, logits: Tensor) -> Tensor:
        """Return logits after the cap, if there is one."""
        return logits if self.softcap is None else (logits / self.softcap).tanh_() * self.softcap

    def prefix_logits(
        self, piece: Piece, queries: Float[Tensor, "m R D"]
    ) -> Float[Tensor, "R m W"]:
        """Return the logits of the prefix, minus infinity after the end of a segment."""
        m, R, D = queries.shape
        keys = self.keys[piece.start : piece.stop].to(queries.dtype)
        n = len(keys)
        if piece.slots is None:
            logits = (keys @ queries[0].mT).mT
        else:
            pattern = sparse(piece, queries.new_zeros(R, n))
            rows = queries.transpose(0, 1).reshape(R * m, D)
            logits = torch.sparse.sampled_addmm(pattern, rows, keys.mT, beta=0).values().view(R, n)
        logits = self.capped(logits)
        if self.prefix_bias is not None:
            bias = self.prefix_bias[:, piece.start : piece.stop]
            logits = (logits.unflatten(0, (R // len(bias), -1)) + bias).flatten(0, 1)
        if piece.slots is None:
            return logits[:, None]
        padded = logits.new_full((R, m * piece.width), -math.inf)
        padded.scatter_(1, piece.slots.long().expand(R, n), logits)
        return padded.view(R, m, piece.width)

    def mixed(self, piece: Piece, p: Float[Tensor, "R m W"]) -> Float[Tensor, "m R Dv"]:
        """Return the values of the prefix, weighted and summed."""
        R, m = p.shape[:2]
        values = self.values[piece.start : piece.stop].to(p.dtype)
        if piece.slots is None:
            return (p[:, 0] @ values)[None]
        weights = sparse(piece, p.reshape(R, m * piece.width).index_select(1, piece.slots))
        return torch.sparse.mm(weights, values, reduce="sum").view(R, m, -1).transpose(0, 1)


def sparse(piece: Piece, weights: Float[Tensor, "R n"]) -> Float[Tensor, "Rm n"]:
    """Return a sparse matrix with a row per query row and segment, over the tokens of the piece."""
    R, n = weights.shape
    assert piece.ends is not None
    rows = piece.ends
    if R > 1:
        rows = (rows[:-1] + n * torch.arange(R, dtype=torch.int32)[:, None]).flatten()
        rows = torch.nn.functional.pad(rows, (0, 1), value=R * n)
    columns = torch.arange(n, dtype=torch.int32).repeat(R)
    return csr(rows, columns, weights.flatten(), (len(rows) - 1, n))


def csr(
    rows: Int[Tensor, " m"], columns: Int[Tensor, " n"], weights: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return `torch.sparse_csr_tensor` of these, without the notice that it is new."""
    quiet()
    return torch.sparse_csr_tensor(rows, columns, weights, size, check_invariants=False)


@cache
def quiet() -> None:
    """Let torch give, where nobody hears it, the notice that it gives once per process."""
    none = torch.zeros(1, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        torch.sparse_csr_tensor(none, none[:0], torch.zeros(0), (0, 0), check_invariants=False)
