"""`column_stats` and `row_blocks` over all rows of a prompt, which are many blocks."""

import math

import pytest
import torch

from foveate.kernels.column_stats import blocked, column_stats, naive, row_blocks, walk

LENGTH = 37


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Make blocks of a few rows, pieces of a few heads, and tiles of a few keys."""
    monkeypatch.setattr(walk, "BLOCK_ELEMENTS", LENGTH * 22)
    monkeypatch.setattr(walk, "TILE_ELEMENTS", 100)
    monkeypatch.setattr(blocked, "LEAST_ROWS", 8)


def prompt(B=2, Hq=6, H=2, D=5, dtype=torch.float32, pads=(0, 9)):
    """Return queries and keys of a prompt, its rows, and which keys are no pads."""
    queries = (torch.randn(B, Hq, LENGTH, D) * 2).to(dtype)
    keys = torch.randn(B, H, LENGTH, D).to(dtype)
    places = torch.arange(LENGTH).expand(B, LENGTH)
    valid = places >= torch.tensor(pads[:B])[:, None]
    return queries, keys, places.where(valid, -1), valid


def compare(queries, keys, **options):
    options = {"scaling": 0.4, **options}
    found = column_stats(queries, keys, **options)
    torch.testing.assert_close(
        found, naive.column_stats(queries, keys, **options), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("power", [1, 2, math.inf])
@pytest.mark.parametrize("heads", [(6, 2), (3, 3), (4, 1)], ids=str)
def test_all_rows_of_padded_prompts(heads, power, group):
    queries, keys, rows, valid = prompt(Hq=heads[0], H=heads[1])
    compare(queries, keys, rows=rows, columns=valid, power=power, group=group)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_short_types_are_summed_in_float32(dtype):
    queries, keys, rows, _ = prompt(dtype=dtype, pads=(0, 0))
    compare(queries, keys, rows=rows)
    compare(queries, keys, rows=rows, group=True, power=2)


@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("order", ["sorted", "shuffled", "by head"])
def test_keys_at_given_positions(order, lse):
    queries, keys, rows, _ = prompt()
    positions = torch.arange(LENGTH).expand(2, LENGTH).clone()
    if order == "shuffled":
        positions = torch.rand(2, LENGTH).argsort(-1)
    if order == "by head":
        positions = positions[:, None].repeat(1, 2, 1)
        positions[:, :, ::5] += 2  # not quite sorted
    positions = positions.masked_fill(torch.rand(positions.shape) < 0.2, -1)
    norm = torch.randn(2, 6, LENGTH) + 3 if lse else None
    columns = torch.rand(2, 6, LENGTH) < 0.7
    compare(queries, keys, rows=rows, positions=positions, lse=norm)
    compare(queries, keys, rows=rows, positions=positions, columns=columns, lse=norm, group=True)
    compare(queries, keys, rows=rows.flip(-1), positions=positions, power=2, lse=norm)


def test_rows_in_any_order_with_weights():
    queries, keys, rows, valid = prompt()
    rows = rows.gather(1, torch.rand(2, LENGTH).argsort(-1))
    weights = torch.rand(2, 6, LENGTH) * (torch.rand(2, 6, LENGTH) < 0.5)
    compare(queries, keys, rows=rows, weights=weights)
    compare(queries, keys, rows=rows, weights=weights[:, :2], columns=valid, group=True)
    compare(queries, keys, rows=rows, weights=weights, columns=valid, power=math.inf)


@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("power", [1, 2, math.inf])
def test_nothing_leaks_from_what_is_not_seen(power, group, poison, lse):
    queries, keys, rows, valid = prompt()
    valid = valid & (torch.arange(LENGTH) % 7 != 4)
    weights = torch.rand(2, LENGTH) + 0.1
    weights[:, 30:] = 0
    weights[1, 11:15] = 0
    norm = torch.randn(2, 6, LENGTH) + 3 if lse else None
    options = {"rows": rows, "weights": weights, "columns": valid, "lse": norm}
    options = {"power": power, "group": group, "scaling": 0.4, **options}
    clean = column_stats(queries, keys, **options)
    keys.masked_fill_(~valid[:, None, :, None], poison)
    keys[:, :, 30:] = poison  # seen by rows without weight only
    unused = (weights == 0) | (rows < 0)
    queries.masked_fill_(unused[:, None, :, None], poison)
    if norm is not None:
        norm.masked_fill_(unused[:, None], poison)
    assert torch.equal(column_stats(queries, keys, **options), clean)
    rows = rows.masked_fill(weights == 0, -1)
    found = torch.cat(
        [p for _, p in row_blocks(queries, keys, scaling=0.4, rows=rows, columns=valid)], 2
    )
    sums = found.sum(-1)
    torch.testing.assert_close(sums, ((rows >= 0) & (sums > 0).any(1)).float()[:, None] + 0 * sums)


def test_blocks_read_no_key_behind_their_last_row():
    queries, keys, rows, _ = prompt(B=1, pads=(0,))
    used = (rows >= 0)[:, None, None]
    problem = walk.Problem.of(queries, keys, 0.4, rows, used, None, None, None)
    steps = walk.steps(problem)
    assert len(steps) > 5
    assert [step.end for step in steps] == [step.part.stop for step in steps]
    assert [step.free for step in steps] == [step.part.start + 1 for step in steps]
    positions = torch.arange(LENGTH)[None] + 4  # the first rows see nothing
    problem = walk.Problem.of(queries, keys, 0.4, rows, used, None, positions, None)
    expected = [max(step.part.stop - 4, 0) for step in steps]
    assert [step.end for step in walk.steps(problem)] == expected


def test_pads_in_front_are_the_only_other_keys_that_are_masked():
    queries, keys, rows, valid = prompt()
    used = (rows >= 0)[:, None, None]
    problem = walk.Problem.of(queries, keys, 0.4, rows, used, valid, None, None)
    last = walk.steps(problem)[-1]
    assert (last.lead, last.free, last.end) == (9, last.part.start + 1, LENGTH)


@pytest.mark.parametrize("positions", [False, True])
def test_row_blocks_equal_the_softmax_of_all(positions):
    queries, keys, rows, valid = prompt()
    places = torch.rand(2, LENGTH).argsort(-1) if positions else None
    found = list(row_blocks(queries, keys, scaling=0.4, rows=rows, columns=valid, positions=places))
    assert [i for part, _ in found for i in range(part.start, part.stop)] == list(range(LENGTH))
    at = torch.arange(LENGTH).expand(2, LENGTH) if places is None else places
    seen = (at[:, None, None] <= rows[:, None, :, None]) & valid[:, None, None]
    logits = queries.double() @ keys.repeat_interleave(3, 1).double().mT * 0.4
    expected = logits.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0)
    together = torch.cat([p for _, p in found], 2)  # blocks own their memory
    torch.testing.assert_close(together.double(), expected, rtol=1e-4, atol=1e-6)
    sums = column_stats(
        queries, keys, scaling=0.4, rows=rows, columns=valid, positions=places, group=True
    )
    torch.testing.assert_close(together.unflatten(1, (2, 3)).mean(2).sum(2), sums)


def test_gradients_are_neither_needed_nor_made():
    queries, keys, rows, _ = prompt()
    found = column_stats(queries.requires_grad_(), keys.requires_grad_(), scaling=0.4, rows=rows)
    assert not found.requires_grad
