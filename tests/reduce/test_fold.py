"""Folding into the most similar key, and averaging into the nearest position."""

import pytest
import torch

from foveate.errors import MethodError
from foveate.method import plan
from foveate.methods import lookm
from foveate.reduce import Buckets, Evict, Fold
from foveate.reduce.match import nearest_key, nearest_position
from foveate.scope import All, Visual
from foveate.types import Observation
from samples import kinds_of, observations

LAYOUT = ("pppp tt vvvvvvvvv tt vvvvvvvvvvv ttt", "tttt vvvvvvvvvvvvv t vvvv tttt ttttt")
RULES = ("pivotal", "averaged", "weighted")


def decided(sample, keep=0.4):
    found = plan(lookm(keep, budget="strict"), sample)
    return found.scores[0], found.keep[0]


def replaced(x, keys, values=None):
    return Observation(x.queries, keys, x.values if values is None else values, x.kinds, 1.0, 0)


@pytest.mark.parametrize("rule", RULES)
def test_folding_equals_a_loop(rule):
    x = observations(kinds_of(*LAYOUT), layers=1)[0]
    scores, keep = decided([x])
    kv = Fold(rule, "both")(x, scores, keep)
    for row in range(2):
        for head in range(2):
            stay = keep[row, head].nonzero().flatten().tolist()
            gone = (x.kinds.valid[row] & ~keep[row, head]).nonzero().flatten().tolist()
            keys, values = x.keys[row, head], x.values[row, head]
            gifts = {c: [] for c in stay}
            for e in gone:
                cosines = [float(torch.cosine_similarity(keys[e], keys[c], dim=0)) for c in stay]
                gifts[stay[cosines.index(max(cosines))]].append((e, max(cosines)))
            for stored, y in ((kv.keys, keys), (kv.values, values)):
                expected = []
                for c in stay:
                    given = {
                        "pivotal": [(y[e] + y[c]) / 2 for e, _ in gifts[c]],
                        "averaged": [y[e] for e, _ in gifts[c]],
                        "weighted": [s * y[e] for e, s in gifts[c]],
                    }[rule]
                    expected.append(sum(given, y[c]) / (1 + len(given)))
                torch.testing.assert_close(stored(row, head), torch.stack(expected))


@pytest.mark.parametrize("rule", RULES)
def test_keys_of_length_zero_and_pads_give_numbers(rule):
    x = observations(kinds_of(*LAYOUT), layers=1)[0]
    scores, keep = decided([x])
    keys = x.keys.clone()
    keys[:, :, 10:20] = 0
    pads = ~x.kinds.valid[:, None, :, None]
    good = Fold(rule, "both")(replaced(x, keys), scores, keep)
    bad = replaced(x, keys.masked_fill(pads, torch.nan), x.values.masked_fill(pads, torch.nan))
    kv = Fold(rule, "both")(bad, scores, keep)
    assert kv.packed_keys.isfinite().all() and kv.packed_values.isfinite().all()
    assert torch.equal(kv.packed_keys, good.packed_keys)
    nothing = Fold(rule, "both")(replaced(x, torch.zeros_like(keys)), scores, keep)
    assert not nothing.packed_keys.any() and nothing.packed_values.isfinite().all()


def test_untouched_entries_keep_every_bit_and_sums_are_wide():
    x = observations(kinds_of("t" * 300), layers=1, dtype=torch.bfloat16)[0]
    keep = torch.zeros(1, 2, 300, dtype=torch.bool)
    keep[..., :3] = True
    keys = x.keys.clone()
    keys[..., 3:, :] = keys[..., :1, :]  # all go to the first
    values = torch.ones_like(x.values)
    kv = Fold("averaged", "both")(replaced(x, keys, values), x.keys[..., 0].float(), keep)
    plain = Evict()(replaced(x, keys, values), x.keys[..., 0].float(), keep)
    assert torch.equal(kv.packed_keys[:, :, 1:], plain.packed_keys[:, :, 1:])
    torch.testing.assert_close(kv.packed_keys, plain.packed_keys)
    assert (kv.packed_values == 1).all()  # a sum of 298 ones would stop at 256 in bfloat16


def test_modalities_may_stay_apart():
    x = observations(kinds_of("tttt vvvvvvvv tttt"), layers=1)[0]
    visual = x.kinds.visual[0]
    keep = torch.zeros(1, 2, 16, dtype=torch.bool)
    keep[..., [0, 13, 14, 15]] = True  # no visual token stays: none can give
    scores = torch.rand(1, 2, 16)
    apart = Fold("averaged", "both", within_modality=True)(x, scores, keep)
    changed = x.values.masked_fill(visual[:, None], 7.0)
    other = Fold("averaged", "both", within_modality=True)(
        replaced(x, x.keys, changed), scores, keep
    )
    assert torch.equal(apart.packed_values, other.packed_values)
    together = Fold("averaged", "both")(x, scores, keep)
    assert not torch.equal(together.packed_values, apart.packed_values)


def test_small_blocks_find_the_same(monkeypatch):
    x = observations(kinds_of(*LAYOUT), layers=1)[0]
    keep = decided([x])[1]
    giving = ~keep & x.kinds.valid[:, None]
    target, cosine = nearest_key(x.keys, keep, giving)
    assert keep.gather(-1, target)[giving].all() and not cosine[~giving].any()
    monkeypatch.setattr("foveate.reduce.match.BLOCK_ELEMENTS", 2 * 2 * 20 * 3)
    again, other = nearest_key(x.keys, keep, giving)
    assert torch.equal(again, target)
    torch.testing.assert_close(other, cosine)


def test_of_equal_keys_the_earlier_receives():
    x = observations(kinds_of("t" * 40), layers=1)[0]
    keys = x.keys[:, :, :1].expand(-1, -1, 40, -1)
    keep = torch.arange(40).expand(1, 2, 40) % 3 == 1
    target, cosine = nearest_key(keys, keep, ~keep)
    assert (target[~keep] == 1).all()
    torch.testing.assert_close(cosine[~keep], torch.ones_like(cosine[~keep]))


def test_pads_between_tokens_have_no_length():
    valid = kinds_of("tpppptttpt").valid
    kept = torch.zeros(1, 1, 10, dtype=torch.bool)
    kept[..., [0, 6, 9]] = True
    nearest = nearest_position(kept, valid)[0, 0]
    assert nearest[valid[0]].tolist() == [0, 0, 6, 6, 9]  # 5 is beside both: the earlier


def test_what_a_scope_protects_neither_gives_nor_receives():
    x = observations(kinds_of("ttt vvvvvvvv ttt"), layers=1)[0]
    keep = torch.zeros(1, 2, 14, dtype=torch.bool)
    keep[..., [0, 5, 13]] = True
    scores = torch.rand(1, 2, 14)
    kv = Buckets(All(sinks=1, recent=1))(x, scores, keep)
    assert torch.equal(kv.packed_keys[:, :, [0, 2]], x.keys[:, :, [0, 13]])
    torch.testing.assert_close(kv.packed_keys[:, :, 1], x.keys[:, :, 1:13].mean(2))
    kv = Buckets(Visual())(x, scores, keep)
    torch.testing.assert_close(kv.packed_values[:, :, 1], x.values[:, :, 3:11].mean(2))
    assert torch.equal(kv.packed_values[:, :, [0, 2]], x.values[:, :, [0, 13]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fold("mean"), "rule='mean'"),
        (lambda: Fold(entries="keys"), "entries='keys'"),
        (lambda: Fold(within_modality=1), "within_modality=1"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(MethodError, match=message):
        make()
