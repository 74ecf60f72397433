"""Rules for eviction while decoding equal their plain loops, each row of a batch by itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import foveate
from foveate.budget import Uniform
from foveate.cache.dense import Dense
from foveate.errors import MethodError
from foveate.hf.following import Following
from foveate.method import Method, decide
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill, LatestRow, OldestFirst, WhileDecoding
from foveate.scope import All
from foveate.score import AllText, Attention
from foveate.types import Observation, TokenKinds
from reference.decoding import SIMULATORS

D, STEPS = 8, 40
HEADS = pytest.mark.parametrize("heads", [(6, 2), (4, 4), (7, 1)], ids=str)
EVERY = pytest.mark.parametrize("every", [1, 3])
SHARP = {"random": 2.0, "sink": 1.0, "ties": 1.0, "flat": 0.0, "sharp": 30.0}


def cake(keep, every):
    """CAKE's decode cut behind a prompt cut by the sums."""
    follow = LatestRow("per_kv_head", kernel=5, rows="all")
    return Method(
        All(recent=8),
        Attention(AllText("any"), "full", "per_kv_head", "sum"),
        Uniform(keep),
        Evict(),
        WhileDecoding(follow, every),
    )


RULES = {
    "h2o": (lambda keep, every: foveate.h2o(keep, every=every), {}),
    "h2o-rate": (
        lambda keep, every: foveate.h2o(keep, every=every, statistic="mean", recent=0.2),
        {"statistic": "rate", "recent": 0.2},
    ),
    "tova": (lambda keep, every: foveate.tova(keep, every=every), {}),
    "streaming": (lambda keep, every: foveate.streaming(keep, every=every), {}),
    "roco": (
        lambda keep, every: foveate.roco(keep, every=every, newest=4, sinks=2),
        {"newest": 4, "sinks": 2},
    ),
    "roco-wide": (
        lambda keep, every: foveate.roco(keep, every=every, newest=2, sinks=1, spread=0.6),
        {"newest": 2, "sinks": 1, "spread": 0.6},
    ),
    "cake": (cake, {"window": 8}),
    "elastic": (lambda keep, every: foveate.elastic(keep, every=every, merge=False), {}),
    "prefixkv": (
        lambda keep, every: foveate.prefixkv(keep, every=every, distance=-3),
        {"distance": -3},
    ),
}
NAMES = pytest.mark.parametrize("name", RULES)


def sample(heads, T, n, seed, kind):
    """Queries [Hq, T+n, D], keys and values of one row; sinks, copies, or peaks among them."""
    rng = torch.Generator().manual_seed(seed)
    Hq, H = heads
    queries = torch.randn(Hq, T + n, D, generator=rng) * SHARP[kind]
    keys = torch.randn(H, T + n, D, generator=rng)
    if kind == "sink":
        queries[..., 0] = 4.0
        keys[:, 0, 0], keys[:, T // 2, 0] = 6.0, 3.0
    elif kind == "ties":
        keys = keys[:, torch.randint(0, 5, (T + n,), generator=rng)]
    return queries, keys, torch.randn(H, T + n, D + 3, generator=rng)


def batched(parts):
    """Rows [h, n, D] of different lengths, left-padded with what must never be looked at."""
    width = max(part.shape[1] for part in parts)
    out = torch.full((len(parts), parts[0].shape[0], width, parts[0].shape[2]), torch.nan)
    for row, part in enumerate(parts):
        out[row, :, width - part.shape[1] :] = part
    return out


class Layer:
    """One layer whose tokens are fed by hand: the store, and what follows it."""

    def __init__(self, method, rows, lengths):
        self.method, self.rows, self.lengths = method, rows, lengths
        store = Dense()
        self.layer = SimpleNamespace(index=3, store=store, retain=store.retain)
        self.following = Following(method)
        self.kinds = TokenKinds.of(
            torch.tensor([[-1] * (max(lengths) - T) + [0] * T for T in lengths])
        )
        self.seen = max(lengths)

    def prompt(self):
        """Store and compress the prompt as the cache does."""
        parts = zip(self.rows, self.lengths, strict=True)
        q, k, v = (batched(x) for x in zip(*[[y[:, :T] for y in row] for row, T in parts]))  # noqa: B905
        store = self.layer.store
        store.append(k, v)
        observation = Observation(q, k, v, self.kinds, D**-0.5, 3)
        ranking = self.method.rank(observation)
        plan = decide(self.method, [ranking])
        counts, state = plan.explain[0]["budget"], ranking.state
        if bool((plan.keep[0] | ~self.kinds.valid[:, None]).all()):
            store.seal(self.seen)
            store.note(counts, state, None)
        else:
            kept = self.method.reduce(observation, plan.scores[0], plan.keep[0])
            store.pack(kept, self.seen)
            store.note(counts, state, kept.packed_positions)
        self.following.start(self.kinds)

    def feed(self, tokens, is_prompt):
        """One pass over so many new tokens."""
        start = self.seen - max(self.lengths)
        new = [
            [x[:, T + start : T + start + tokens] for x in row]
            for row, T in zip(self.rows, self.lengths, strict=True)
        ]
        q, k, v = (torch.stack(x) for x in zip(*new, strict=True))
        text = TokenKinds.of(torch.zeros(len(new), tokens, dtype=torch.long))
        if is_prompt:
            gap = torch.zeros(len(new), self.seen - self.kinds.kind.shape[1], dtype=torch.long)
            self.kinds = self.kinds.followed_by(TokenKinds.of(gap)).followed_by(text)
        self.following.open(self.seen, tokens, text if is_prompt else None)
        self.layer.store.append(k, v)
        self.following.capture(3, q)
        self.seen += tokens
        if self.following.is_due(is_prompt, self.seen):
            self.following.look([self.layer], self.kinds, {3: D**-0.5})
        self.layer.store.check()

    def stored(self, row):
        """The stored positions of one row per head, counted without padding."""
        logical = self.layer.store.logical()
        logical = logical.expand(-1, self.rows[0][1].shape[0], -1)[row] - (
            max(self.lengths) - self.lengths[row]
        )
        return [head[head >= 0].tolist() for head in logical]


def check(name, keep, every, rows, lengths, passes):
    """The real parts against the loops, row by row and pass by pass."""
    make, options = RULES[name]
    made = make(keep, every)
    layer = Layer(made, rows, lengths)
    layer.prompt()
    kept = [layer.stored(row) for row in range(len(rows))]
    found = []
    for tokens, is_prompt in passes:
        layer.feed(tokens, is_prompt)
        found.append([layer.stored(row) for row in range(len(rows))])
    simulate = SIMULATORS[name.partition("-")[0]]
    for row, ((q, k, _), T) in enumerate(zip(rows, lengths, strict=True)):
        given = {"keep": keep, "every": every, "found": [step[row] for step in found]} | options
        expected = simulate(q.numpy(), k.numpy(), D**-0.5, T, kept[row], passes, **given)
        for step, stored in enumerate(expected):
            assert found[step][row] == stored, f"row {row}, pass {step}"
    return layer


@NAMES
@HEADS
@EVERY
@pytest.mark.parametrize("kind", SHARP)
def test_every_step_equals_the_loops(name, heads, every, kind):
    lengths = [23, 40, 31]
    rows = [sample(heads, T, STEPS, 7 * i, kind) for i, T in enumerate(lengths)]
    layer = check(name, 0.3, every, rows, lengths, [(1, False)] * STEPS)
    held, room = layer.layer.store.stored, layer.layer.store.planned.max()
    if layer.method.when.grows:
        room = -(-int(room) * (40 + STEPS) // 40)
    assert held <= room + every - 1


@NAMES
@pytest.mark.parametrize("keep", [0.4, 17, 33, 60], ids=str)
@pytest.mark.parametrize("every", [1, 4, 9])
def test_passes_of_several_tokens_and_later_prompts(name, keep, every):
    """Room grows with later prompts for a share, and is filled first where it is a large number."""
    lengths = [29, 18, 44]
    rows = [sample((6, 2), T, 60, 100 + i, "random") for i, T in enumerate(lengths)]
    passes = [(1, False)] * 4 + [(5, False), (2, False), (13, True)] + [(1, False)] * 10
    passes += [(3, True), (9, False)] + [(1, False)] * 9
    layer = check(name, keep, every, rows, lengths, passes)
    if keep == 60 and not layer.method.when.grows:
        held = [len(head) for row in range(3) for head in layer.stored(row)]
        assert all(60 <= count < 60 + every for count in held)


@NAMES
@pytest.mark.parametrize("seed", range(6))
def test_random_histories_equal_the_loops(name, seed):
    rng = np.random.default_rng(seed)
    heads = [(6, 2), (4, 4), (7, 1), (8, 2)][rng.integers(4)]
    lengths = rng.integers(16, 50, rng.integers(1, 4)).tolist()
    kind = ["random", "sink"][rng.integers(2)]
    rows = [sample(heads, T, 80, int(rng.integers(9999)), kind) for T in lengths]
    passes, left = [], 60
    while left > 0:
        tokens = int(rng.choice([1, 1, 1, 2, 6]))
        passes.append((tokens, bool(rng.random() < 0.1)))
        left -= tokens
    keep = [float(rng.uniform(0.15, 0.9)), int(rng.integers(14, 60))][rng.integers(2)]
    check(name, keep, int(rng.integers(1, 7)), rows, lengths, passes)


def test_worked_numbers_of_elastic_cache():
    """625 tokens, a fifth kept: 125, and 176 of 880 after 255 more; the first 100 never go."""
    rows = [sample((1, 1), 625, 255, 0, "random")]
    made = Method(
        All(1, 1),
        Attention(AllText("any"), "full", "shared", "sum"),
        Uniform(0.2),
        Evict(),
        WhileDecoding(OldestFirst(-25), grows=True),
    )
    layer = Layer(made, rows, [625])
    layer.prompt()
    before = layer.stored(0)[0]
    for _ in range(255):
        layer.feed(1, False)
    after = layer.stored(0)[0]
    assert (len(before), len(after)) == (125, 176)
    assert after[:100] == before[:100] and after[100:] == list(range(804, 880))


def test_rooms_are_whole_numbers_however_long_the_conversation():
    """Products beyond what 32-bit floats hold exactly."""
    keep, T = 0.5, 120_001
    following = Following(foveate.elastic(keep, merge=False))
    following.start(TokenKinds.of(torch.zeros(1, T, dtype=torch.long)))
    planned = torch.tensor([[60_001, 7]])
    for seen in (T, T + 1, 3 * T, 10 * T + 1):
        room = following.room(planned, following.prompts, torch.tensor([seen]))
        assert room.tolist() == [[-(-60_001 * seen // T), -(-7 * seen // T)]]


def test_options_that_cannot_be_used_are_refused():
    with pytest.raises(MethodError, match="odd"):
        LatestRow(kernel=4)
    with pytest.raises(MethodError, match="newest"):
        LatestRow(rows="latest")
    with pytest.raises(MethodError, match="rank slots"):
        WhileDecoding(lambda stored, tiers: None)
    assert AfterPrefill().follow is None


def test_prompts_that_are_cropped_do_not_count():
    """A question asked, taken back and asked otherwise makes no more room than one question."""
    following = Following(foveate.tova(0.5))
    following.start(TokenKinds.of(torch.tensor([[-1, 0, 0, 0], [0, 0, 0, 0]])))
    text = TokenKinds.of(torch.tensor([[0] * 6, [-1] + [0] * 5]))
    following.open(6, 6, text)
    assert following.prompts.tolist() == [9, 9]
    following.crop(9)
    assert following.prompts.tolist() == [6, 6]
    following.crop(5)
    assert following.prompts.tolist() == [3, 4]
    following.open(5, 6, text)
    assert following.prompts.tolist() == [9, 9]
