"""The walk over all blocks of query rows: which keys a block reads, and its probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from foveate.types import Bool, Float, Int

BLOCK_ELEMENTS = 1 << 20  # probabilities held at once: 4 MiB, about what processors cache
DEVICE_BLOCK_ELEMENTS = 1 << 25  # the same on an accelerator, which wants few, large steps
TILE_ELEMENTS = 1 << 22  # keys cast to float32 at once, where they are read only once
NEVER = 1 << 62


class Step(NamedTuple):
    """One block: its rows see all keys from `lead` to `free`, and no key from `end` on."""

    part: slice
    lead: int
    free: int
    end: int
    whole: int  # whether all of its rows are used


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be walked; where there are several blocks, without keys that no row sees.

    `first` and `last` are the logical positions from which on some row and every row see a key.
    """

    queries: Float[Tensor, "B H G R D"]
    keys: Float[Tensor, "BH L D"]
    scaling: float
    rows: Int[Tensor, "B R"]
    used: Bool[Tensor, "B h g R"]
    columns: Bool[Tensor, "B h g L"] | None
    positions: Int[Tensor, "B h L"]
    lse: Float[Tensor, "B H G R"] | None
    size: int  # rows of a block
    index: Int[Tensor, " L"] | None = None  # where the keys were, if some have been left out

    @staticmethod
    def of(
        queries: Float[Tensor, "B Hq R D"],
        keys: Float[Tensor, "B H L D"],
        scaling: float,
        rows: Int[Tensor, "B R"],
        used: Bool[Tensor, "B h g R"],
        columns: Bool[Tensor, "B L"] | Bool[Tensor, "B Hq L"] | None,
        positions: Int[Tensor, "B L"] | Int[Tensor, "B H L"] | None,
        lse: Float[Tensor, "B Hq R"] | None,
    ) -> Problem:
        """Return the problem of the arguments of `column_stats`; `used` are rows that count."""
        B, H, L, D = keys.shape
        heads = (H, queries.shape[1] // H)
        held = BLOCK_ELEMENTS if keys.device.type == "cpu" else DEVICE_BLOCK_ELEMENTS
        size = max(1, held // max(1, B * queries.shape[1] * L))
        queries, keys = queries.detach().unflatten(1, heads), keys.detach()
        lse = None if lse is None else lse.detach().unflatten(1, heads)
        gaps = columns is not None or positions is not None
        if columns is not None:
            columns = columns[:, None, None] if columns.ndim == 2 else columns.unflatten(1, heads)
        if positions is None:
            positions = torch.arange(L, device=keys.device).expand(B, L)
        positions = positions[:, None] if positions.ndim == 2 else positions
        index = None
        if gaps and size < rows.shape[1]:
            index = (seen_from(columns, positions)[0] < NEVER).nonzero()[:, 0]
            keys, positions = keys[:, :, index], positions[..., index]
            columns = None if columns is None else columns[..., index]
        flat = keys.reshape(B * H, -1, D)
        return Problem(queries, flat, scaling, rows, used, columns, positions, lse, size, index)

    @property
    def L(self) -> int:
        """Return the number of keys that are read."""
        return self.keys.shape[1]

    def spread(self, table: Float[Tensor, "*axes n"], L: int) -> Float[Tensor, "*axes L"]:
        """Return a table of the first n keys as one of all keys, zero elsewhere, in new memory."""
        wide = torch.zeros(*table.shape[:-1], L, device=table.device)
        if self.index is None:
            wide[..., : table.shape[-1]] = table
        else:
            wide[..., self.index[: table.shape[-1]]] = table
        return wide


def seen_from(
    columns: Bool[Tensor, "B h g L"] | None, positions: Int[Tensor, "B h L"]
) -> tuple[Int[Tensor, " L"], Int[Tensor, " L"]]:
    """Return from which logical position on some row sees each key, and from which on all do."""
    places = positions.long().masked_fill(positions < 0, NEVER)[:, :, None]
    if columns is not None:
        places = torch.where(columns, places, NEVER)
    if places.numel() == 0:
        none = torch.full(places.shape[-1:], NEVER, device=places.device)
        return none, none
    return places.amin((0, 1, 2)), places.amax((0, 1, 2))


def steps(problem: Problem) -> list[Step]:
    """Return the blocks; the device is waited for where there are several."""
    R, L, size = problem.rows.shape[1], problem.L, problem.size
    parts = [slice(start, min(start + size, R)) for start in range(0, R, size)]
    if len(parts) < 2 or problem.queries.numel() == 0 or L == 0:
        return [Step(part, 0, 0, L, 0) for part in parts]
    fill = (0, len(parts) * size - R)
    used = problem.used.any(1).any(1)
    newest = pad(torch.where(used, problem.rows, -1).amax(0), fill, value=-1)
    oldest = pad(torch.where(used, problem.rows, NEVER).amin(0), fill, value=NEVER)
    whole = pad(problem.used.all(0).all(0).all(0), fill, value=True).view(-1, size).all(1)
    # From where on each key is seen, made to rise: a key before one that is read is read as well.
    first, last = seen_from(problem.columns, problem.positions)
    first = first.flip(0).cummin(0)[0].flip(0)
    padded = (last == NEVER).cumprod(0).bool()  # keys in front that some batch row lacks
    last = last.masked_fill(padded, -1).cummax(0)[0]
    ends = torch.searchsorted(first, newest.view(-1, size).amax(1), right=True)
    frees = torch.searchsorted(last, oldest.view(-1, size).amin(1), right=True).minimum(ends)
    leads = padded.sum().expand_as(frees)
    leads, frees = leads * (leads < frees), frees * (leads < frees)
    table = torch.stack([leads, frees, ends, whole.long()], 1).tolist()
    return [Step(part, *line) for part, line in zip(parts, table, strict=True)]


def blocks(problem: Problem) -> Iterator[tuple[slice, Float[Tensor, "BH Gr n"]]]:
    """Yield every block of rows with its probabilities over the first n keys, zero elsewhere.

    The memory is that of the next block, too: what is needed for longer has to be copied.
    """
    plan = steps(problem)
    keys = problem.keys.float() if len(plan) > 1 else problem.keys
    size = max((_elements(problem, step) for step in plan), default=0)
    memory = torch.empty(2, size, device=keys.device)
    for step in plan:
        queries = problem.queries[..., step.part, :].float() * problem.scaling
        queries = queries.flatten(2, 3).flatten(0, 1)
        shape = (*queries.shape[:2], step.end)
        logits, p = memory[:, : _elements(problem, step)].view(2, *shape)
        products(queries, keys[:, : step.end], logits)
        yield step.part, probabilities(problem, step, logits, p)


def _elements(problem: Problem, step: Step) -> int:
    return problem.queries.shape[:3].numel() * (step.part.stop - step.part.start) * step.end


def probabilities(
    problem: Problem,
    step: Step,
    logits: Float[Tensor, "BH Gr n"],
    p: Float[Tensor, "BH Gr n"],
) -> Float[Tensor, "BH Gr n"]:
    """Return the softmax of the seen keys, or `exp(logit - lse)`; `logits` may be overwritten."""
    wide = (*problem.queries.shape[:3], step.part.stop - step.part.start, step.end)
    for keys in (slice(0, step.lead), slice(step.free, step.end)):
        if keys.start < keys.stop:
            seen = visible(problem, step.part, keys)
            logits.view(wide)[..., keys].masked_fill_(~seen, -torch.inf)
    if problem.lse is None:
        torch.softmax(logits, -1, out=p)
        if step.free == 0 < step.end:  # a row that sees nothing has -inf everywhere
            p.view(wide).masked_fill_(~seen.any(-1, keepdim=True), 0)
    else:
        norm = problem.lse[..., step.part].float()
        norm = norm.masked_fill(norm == -torch.inf, 0)[..., None]
        torch.exp(logits.view(wide).sub_(norm), out=p.view(wide))
    if not step.whole:  # rows that are not used may hold anything, as may what they see
        p.view(wide).masked_fill_(~problem.used[..., step.part, None], 0)
    return p


def visible(problem: Problem, part: slice, keys: slice) -> Bool[Tensor, "B h g r n"]:
    """Return which of some keys each of some rows sees, with axes of one where all agree."""
    positions = problem.positions[:, :, None, None, keys]
    seen = positions <= problem.rows[:, None, None, part, None]
    seen &= positions >= 0
    return seen if problem.columns is None else seen & problem.columns[..., None, keys]


def products(
    queries: Float[Tensor, "BH Gr D"], keys: Float[Tensor, "BH n D"], out: Float[Tensor, "BH Gr n"]
) -> None:
    """Write all inner products, casting a tile of keys at a time to float32."""
    if keys.dtype == torch.float32:
        torch.bmm(queries, keys.transpose(1, 2), out=out)
        return
    size = max(1, TILE_ELEMENTS // max(1, keys.shape[0] * keys.shape[2]))
    for start in range(0, keys.shape[1], size):
        tile = keys[:, start : start + size].float()
        out[..., start : start + size] = queries @ tile.transpose(1, 2)
