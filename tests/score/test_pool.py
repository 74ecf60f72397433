"""Pooling equals a plain loop over neighbours."""

import random
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import MethodError
from foveate.method import Score
from foveate.scope import All, Visual
from foveate.score import Attention, LastRows, Pooled
from foveate.types import Observation, Ranking, TokenKinds
from samples import kinds_of, observations


@dataclass(frozen=True)
class Given:
    """Scores that are given, and who observes."""

    scores: torch.Tensor
    observing: torch.Tensor

    def rows(self, kinds):
        return self.observing

    def __call__(self, observation, tiers):
        return Ranking(self.scores, tiers, observation.layer)


def borders(kinds, row, over):
    """Return for every position the part of the row that it belongs to."""
    grids = kinds.grids[row] if kinds.grids else ()
    part, parts, before, inside = 0, [], None, {}
    for kind, span in zip(kinds.kind[row].tolist(), kinds.span[row].tolist(), strict=True):
        if kind < 0:
            parts.append(None)
            continue
        if over != "sequence" and span != before:
            part += 1
        before = span
        line = 0
        if over == "rows" and 0 <= span < len(grids):
            frames, height, width = grids[span]
            if frames * height * width == int((kinds.span[row] == span).sum()):
                line = inside.get(span, 0) // width
            inside[span] = inside.get(span, 0) + 1
        parts.append((part, line))
    return parts


def plainly(scores, columns, kinds, kernel, how, over):
    """Return the pooled scores [B, H, T], one neighbour at a time."""
    out = scores.clone()
    for row in range(len(scores)):
        parts = borders(kinds, row, over)
        line = [j for j in range(scores.shape[-1]) if columns[row, j]]
        for head in range(scores.shape[1]):
            for place, j in enumerate(line):
                near = [
                    float(scores[row, head, line[other]])
                    for other in range(place - kernel // 2, place + kernel // 2 + 1)
                    if 0 <= other < len(line) and parts[line[other]] == parts[j]
                ]
                divisor = kernel if over == "sequence" else len(near)
                out[row, head, j] = max(near) if how == "max" else sum(near) / divisor
    return out


def random_kinds(draw):
    """Return a batch with pads anywhere, images of one token and more, and some known grids."""
    T, rows, grids = draw.randint(1, 40), [], []
    for _ in range(draw.randint(1, 3)):
        word, known = "", []
        while len(word) < T:
            height, width = draw.randint(1, 4), draw.randint(1, 5)
            if draw.random() < 0.6:
                word += "v" * (height * width) + "t" * draw.randint(1, 2)
                known.append(draw.choice([(1, height, width), (height, 1, width), (1, 7, 9)]))
            else:
                word += draw.choice(["t", "p", "tt", "v" * draw.randint(1, 3) + "t"])
                known += [(1, 1, 2)] if word.endswith("vt") else []
        rows.append(word[:T])
        grids.append(tuple(known))
    kinds = kinds_of(*rows)
    return TokenKinds(kinds.kind, kinds.span, kinds.special, tuple(grids))


@pytest.mark.parametrize("over", ["rows", "spans", "sequence"])
@pytest.mark.parametrize("how", ["avg", "max"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), kernel=st.sampled_from([1, 3, 5, 7, 99]))
def test_pooling_is_a_loop_over_neighbours(how, over, seed, kernel):
    draw = random.Random(seed)
    kinds = random_kinds(draw)
    made = torch.Generator().manual_seed(seed)
    B, T = kinds.kind.shape
    scores = torch.rand(B, 2, T, generator=made)
    scores[(~kinds.valid)[:, None].expand_as(scores)] = torch.nan
    tiers = All(recent=draw.randint(0, 3)).tiers(kinds)
    observing = tiers == 3
    x = Observation(*(scores.new_zeros(B, 2, n, 1) for n in (0, T, T)), kinds, 1.0, 0)
    found = Pooled(Given(scores, observing), kernel, how, over)(x, tiers).scores
    wanted = plainly(scores, kinds.valid & ~observing, kinds, kernel, how, over)
    torch.testing.assert_close(found, wanted, equal_nan=True)


def test_neighbours_end_at_rows_images_and_text():
    kinds = kinds_of("t vvvvvv t vv tt")
    kinds = TokenKinds(kinds.kind, kinds.span, kinds.special, (((1, 2, 3),),))
    scores = torch.tensor([[[9.0, 1, 2, 3, 10, 20, 30, 8, 5, 7, 4, 4]]])
    x = Observation(*(scores.new_zeros(1, 1, n, 1) for n in (0, 12, 12)), kinds, 1.0, 0)
    tiers = All().tiers(kinds)

    def found(over):
        made = Given(scores, torch.zeros(1, 12, dtype=torch.bool))
        return Pooled(made, 3, "avg", over)(x, tiers).scores[0, 0].tolist()

    assert found("rows") == [9, 1.5, 2, 2.5, 15, 20, 25, 8, 6, 6, 4, 4]
    assert found("spans") == [9, 1.5, 2, 5, 11, 20, 25, 8, 6, 6, 4, 4]
    assert found("sequence")[0] == pytest.approx(10 / 3)


def test_candidates_are_pooled_even_where_they_observe():
    kinds = kinds_of("tt vvvv t vvv")
    sample = observations(kinds, layers=1)[0]
    score = Attention(LastRows(5, "any"), "full", "per_kv_head")
    raw = score(sample, Visual().tiers(kinds)).scores
    smooth = Pooled(score, 3, "max")(sample, Visual().tiers(kinds)).scores
    assert torch.equal(smooth[..., 8], raw[..., 7:].amax(-1))


def test_heads_that_rank_alike_stay_one():
    kinds = kinds_of("tt vvvv t vvv tt")
    sample = observations(kinds, layers=1)[0]
    score = Attention(LastRows(2), "full", "shared")
    smooth = Pooled(score)(sample, All().tiers(kinds)).scores
    assert smooth.stride(1) == 0 and smooth.shape == (1, 2, 12)
    assert isinstance(Pooled(score), Score)


@pytest.mark.parametrize("kernel", [0, 2, -1, 1.5, True, "5"], ids=repr)
def test_kernels_are_odd(kernel):
    with pytest.raises(MethodError, match=r"kernel=.* odd number"):
        Pooled(Attention(), kernel)
