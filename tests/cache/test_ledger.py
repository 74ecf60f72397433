"""Layers are trimmed while they are ranked, and what is chosen in the end is always still there."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import LayerShares, Uniform
from foveate.cache.ledger import LAZY, Ledger
from foveate.errors import UnsupportedModel
from foveate.line import select
from foveate.types import GOES_FIRST, GOES_LAST, PAD, PINNED, STAYS, Quota, Ranking

B, H = 2, 2


class Known:
    """A budget whose counts are given, with bounds that fall to them layer by layer."""

    keep = 0.5

    def __init__(self, counts, seed):
        self.counts, self.seed = counts, seed

    def __call__(self, rankings):
        return self.counts

    def bounds(self, rankings, layers):
        m = len(rankings)
        rng = torch.Generator().manual_seed(self.seed + m)
        most = rankings[0].scores.shape[-1]
        above = (most * (layers - m) // max(layers - 1, 1)) + 1
        extra = torch.randint(0, above, self.counts[:m].shape, generator=rng)
        return self.counts[:m] + (extra if m < layers else 0)


class Blind(Known):
    """The same, but no bound is known before the last layer."""

    def bounds(self, rankings, layers):
        return None if len(rankings) < layers else self.counts


def ranked(layer, T, rng, kind="plain"):
    """A ranking with every tier, and ties."""
    heads = 1 if kind == "alike" else H
    scores = torch.randint(0, 9, (B, heads, T), generator=rng).float().expand(B, H, T)
    tiers = torch.tensor([GOES_FIRST, GOES_FIRST, GOES_LAST, STAYS, PINNED, PAD])
    tiers = tiers[torch.randint(0, 6, (B, T), generator=rng)]
    quota = Quota(torch.rand(B, H, T, generator=rng), 0.3) if kind == "quota" else None
    ties = torch.randperm(T, generator=rng).expand(B, T) if kind == "ties" else None
    return Ranking(scores, tiers, layer, quota=quota, ties=ties)


def whole(ranking):
    """How many tokens of all rows and heads are no padding."""
    return int((ranking.tiers != PAD).sum()) * H


def play(budget, rankings, lazy):
    """Run a ledger; what every layer holds after every step, and all that was copied."""
    ledger = Ledger(budget, [x.layer for x in rankings], lazy)
    held, copied = {}, 0
    for ranking in rankings:
        for layer in [*ledger.add(ranking)]:
            keep = ledger.keeps(layer)
            before = held.get(layer, torch.ones_like(keep))
            assert not (keep & ~before).any(), "what is gone stays gone"
            held[layer] = keep
            copied += int(keep.sum())
        for i, line in enumerate(ledger.lines):
            allowed = int(select(line.ranking, ledger.bounds[i]).sum())
            if allowed < whole(line.ranking):
                assert ledger.held[i] * (1 - lazy) <= allowed + 1e-9 or ledger.held[i] == allowed
    assert copied == ledger.moved
    return ledger, held


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.sampled_from(["plain", "alike", "quota", "ties"]),
    st.sampled_from([0.0, LAZY, 0.5]),
)
def test_what_is_held_contains_the_choice(seed, layers, kind, lazy):
    rng = torch.Generator().manual_seed(seed)
    T = int(torch.randint(1, 40, (), generator=rng))
    rankings = [ranked(3 + 2 * i, T, rng, kind) for i in range(layers)]
    counts = torch.randint(0, T + 1, (layers, B, H), generator=rng)
    ledger, held = play(Known(counts, seed), rankings, lazy)
    for ranking, count, line in zip(rankings, counts, ledger.close(), strict=True):
        final = select(ranking, count)
        assert torch.equal(line.best(count), final)
        mine = held.get(ranking.layer, torch.ones_like(final))
        assert not (final & ~mine).any()
        size, kept = B * H * T if ranking.layer not in held else int(mine.sum()), int(final.sum())
        if kept == whole(ranking):
            assert ranking.layer not in held, "nothing is moved where padding alone goes"
        else:
            assert size * (1 - lazy) <= kept + 1e-9 or size == kept


def shares(layers, T, seed):
    """Rankings of one image with skewed layer statistics, as AirCache has them."""
    rng = torch.Generator().manual_seed(seed)
    made = []
    for i in range(layers):
        scores = torch.rand(B, 1, T, generator=rng).expand(B, H, T)
        tiers = torch.zeros(B, T, dtype=torch.long)
        tiers[:, -5:] = STAYS
        stats = {name: torch.randn(B, generator=rng).exp() for name in ("strength", "skewness")}
        made.append(Ranking(scores, tiers, i, stats))
    return made


@pytest.mark.parametrize("by", [("strength",), ("strength", "skewness")])
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.9])
def test_rows_have_their_own_bounds_and_counts_are_those_of_the_budget(by, keep):
    budget, rankings = LayerShares(keep, by), shares(12, 200, 5)
    ledger, held = play(budget, rankings, LAZY)
    for line, ranking, count in zip(ledger.close(), rankings, budget(rankings), strict=True):
        final = select(ranking, count)
        assert torch.equal(line.best(count), final)
        assert not (final & ~held.get(ranking.layer, torch.ones_like(final))).any()
    if keep == 0.05:
        assert len(held) == 12
        rows = torch.stack([mask.sum((1, 2)) for mask in held.values()])
        assert (rows[:, 0] != rows[:, 1]).any()


@pytest.mark.parametrize("layers", [8, 28, 80])
@pytest.mark.parametrize("keep", [0.02, 0.1, 0.5])
def test_every_byte_moves_a_few_times(layers, keep):
    """A layer whose first trim left n tokens moves n / lazy at most; in all it is far less."""
    rankings = shares(layers, 500, 3)
    lazy, _ = play(LayerShares(keep, ("strength",)), rankings, LAZY)
    eager, _ = play(LayerShares(keep, ("strength",)), rankings, 0.0)
    prompt = layers * B * H * 505
    assert 0 < lazy.moved <= 4 * prompt
    assert lazy.moved <= eager.moved
    if layers == 80:
        assert 3 * lazy.moved < eager.moved, "waiting is what bounds it"


def test_a_trim_waits_until_it_is_worth_it():
    rankings = shares(9, 1000, 4)
    counts = torch.full((9, B, H), 100)

    class Falling(Known):
        def bounds(self, rankings, layers):
            return self.counts[: len(rankings)] + 5 * (layers - len(rankings))

    ledger = Ledger(Falling(counts, 0), range(9))
    due = [ledger.add(ranking) for ranking in rankings]
    assert all(i in layers for i, layers in enumerate(due)), "the newest layer at once"
    assert due[1] == [1], "from 145 tokens to 140 is no tenth"
    assert due[2] == [2], "nor is 135"
    assert due[3] == [0, 3], "130 is"


def test_bounds_never_rise():
    rankings, counts = shares(3, 100, 6), torch.full((3, B, H), 10)

    class Rising(Known):
        def bounds(self, rankings, layers):
            return self.counts[: len(rankings)] + 10 * len(rankings)

    ledger = Ledger(Rising(counts, 0), range(3))
    for ranking in rankings:
        ledger.add(ranking)
    assert [int(x.max()) for x in ledger.bounds] == [20, 30, 40]
    assert not ledger.blind


def test_without_bounds_nothing_goes():
    class Plain:
        keep = 0.1

        def __call__(self, rankings):
            return Uniform(0.1)(rankings)

    rankings = shares(4, 50, 7)
    for budget in (Plain(), Blind(Uniform(0.1)(rankings), 0)):
        ledger = Ledger(budget, range(5))
        assert [ledger.add(ranking) for ranking in rankings] == [[]] * 4
        assert ledger.moved == 0 and ledger.blind
        assert len(ledger.close()) == 4, "fewer layers than foreseen do no harm then"


def test_layers_in_another_order_or_number_are_refused():
    rankings = shares(4, 100, 8)
    ledger = Ledger(Uniform(0.1), [0, 1, 2, 3, 9])
    ledger.add(rankings[0])
    with pytest.raises(UnsupportedModel, match=r"layer 2 .*\[1, 2, 3, 9\].*stream=False"):
        ledger.add(rankings[2])
    for ranking in rankings[1:]:
        ledger.add(ranking)
    with pytest.raises(UnsupportedModel, match=r"\[9\] did not attend"):
        ledger.close()
    with pytest.raises(UnsupportedModel, match="layer 0"):
        ledger.add(rankings[0])


def test_more_than_a_layer_was_trimmed_for_is_refused():
    """Later layers with more to choose from may leave more to the earlier ones than was known."""
    rankings = shares(3, 50, 1)
    stays = torch.full((B, 50), STAYS)
    counts = torch.full((3, B, H), 20)
    ledger, held = play(Known(counts, 0), rankings, LAZY)
    assert len(held) == 3
    ledger.check(list(counts))
    with pytest.raises(UnsupportedModel, match=r"layer 1 .* stream=False"):
        ledger.check(list(counts + torch.tensor([0, 1, 0])[:, None, None]))
    whole = [replace(ranking, tiers=stays) for ranking in rankings]
    ledger, held = play(Known(counts, 0), whole, LAZY)
    assert not held, "a count beyond all there is asks for no more"
    ledger.check(list(counts + 9))
