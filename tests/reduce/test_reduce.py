"""Evicting and merging: what is stored of the kept and of the dropped."""

import numpy as np
import pytest
import torch

from foveate.errors import MethodError
from foveate.method import apply, plan
from foveate.methods import aircache
from foveate.reduce import Evict, Merge
from foveate.types import Observation
from reference.merge import merge
from samples import kinds_of, observations, only_row

LAYOUT = ("pppp tt vvvvvvvvv tt vvvvvvvvvvv ttt", "tttt vvvvvvvvvvvvv t vvvv tttt ttttt")


def decided(sample, keep=0.3, **options):
    method = aircache(keep, **options)
    return plan(method, sample)


def same(a, b):
    return all(
        torch.equal(x, y)
        for x, y in zip(
            (a.packed_keys, a.packed_values, a.packed_positions),
            (b.packed_keys, b.packed_values, b.packed_positions),
            strict=True,
        )
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_evict_keeps_every_bit_and_the_order(dtype):
    sample = observations(kinds_of(*LAYOUT), dtype=dtype)
    found = decided(sample, heads="per_kv_head")
    for layer, (x, keep) in enumerate(zip(sample, found.keep, strict=True)):
        kv = Evict()(x, found.scores[layer], keep)
        for row in range(2):
            for head in range(2):
                positions = found.positions(layer, row, head)
                assert torch.equal(kv.positions(row, head), positions)
                assert torch.equal(kv.keys(row, head), x.keys[row, head, positions])
                assert torch.equal(kv.values(row, head), x.values[row, head, positions])
        empty = kv.packed_positions < 0
        assert empty.any() and not kv.packed_keys[empty].any()
        assert (empty.int().diff(dim=-1) <= 0).all(), "entries are right-aligned"


@pytest.mark.parametrize("nearest", ["position", "key"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("scope", ["visual", "unified"])
def test_merge_equals_plain_loops(share, nearest, scope):
    sample = observations(kinds_of(*LAYOUT), seed=5)
    method = aircache(0.3, heads="per_kv_head", merge=share, merge_nearest=nearest, scope=scope)
    found = plan(method, sample)
    for layer, kv in enumerate(apply(method, sample, found)):
        for row in range(2):
            alone = only_row(sample[layer], row)
            start = sample[layer].keys.shape[2] - alone.keys.shape[2]
            for head in range(2):
                kept = [p - start for p in found.positions(layer, row, head).tolist()]
                keys, values = merge(
                    alone.keys[0, head].numpy(),
                    alone.values[0, head].numpy(),
                    alone.kinds.kind[0].tolist(),
                    found.scores[layer][row, head, start:].tolist(),
                    kept,
                    share,
                    nearest,
                )
                np.testing.assert_allclose(kv.keys(row, head), keys, atol=1e-5)
                np.testing.assert_allclose(kv.values(row, head), values, atol=1e-5)


@pytest.mark.parametrize("nearest", ["position", "key"])
def test_no_share_is_evict_and_whole_share_loses_no_visual_mass(nearest):
    sample = observations(kinds_of(*LAYOUT), dtype=torch.bfloat16)
    found = decided(sample)
    for x, scores, keep in zip(sample, found.scores, found.keep, strict=True):
        assert same(Merge(0.0, nearest)(x, scores, keep), Evict()(x, scores, keep))
    x = sample[0]
    ones = Observation(x.queries, x.keys, torch.ones_like(x.values), x.kinds, x.scaling, 0)
    merged = Merge(1.0, nearest)(ones, found.scores[0], found.keep[0])
    assert (merged.values(0, 0) == 1).all()


def test_text_and_untouched_tokens_keep_every_bit():
    sample = observations(kinds_of(*LAYOUT), dtype=torch.bfloat16)
    found = decided(sample)
    x, keep = sample[0], found.keep[0]
    merged = Merge(0.15)(x, found.scores[0], keep)
    plain = Evict()(x, found.scores[0], keep)
    assert torch.equal(merged.packed_positions, plain.packed_positions)
    kind = x.kinds.kind[:, None].expand(keep.shape).gather(-1, plain.packed_positions.clamp(min=0))
    text = (kind == 0) & (plain.packed_positions >= 0)
    assert torch.equal(merged.packed_keys[text], plain.packed_keys[text])
    changed = (merged.packed_keys != plain.packed_keys).any(-1)
    assert changed.any() and not (changed & text).any()
    # 0.15 of 14 and of 12 dropped tokens: two, so no more than two kept ones change
    assert (changed.sum(-1) <= 2).all()


def test_nan_in_pads_stays_there():
    sample = observations(kinds_of(*LAYOUT))
    found = decided(sample)
    x = sample[0]
    pads = ~x.kinds.valid[:, None, :, None]
    poisoned = Observation(
        x.queries,
        x.keys.masked_fill(pads, torch.nan),
        x.values.masked_fill(pads, torch.nan),
        x.kinds,
        x.scaling,
        0,
    )
    for reduce in (Evict(), Merge(0.5), Merge(0.5, "key")):
        kv = reduce(poisoned, found.scores[0], found.keep[0])
        assert kv.packed_keys.isfinite().all() and kv.packed_values.isfinite().all()
        assert same(kv, reduce(x, found.scores[0], found.keep[0]))


@pytest.mark.parametrize("nearest", ["position", "key"])
def test_where_no_visual_token_stays_nothing_is_merged(nearest):
    sample = observations(kinds_of(*LAYOUT))
    found = decided(sample, keep=0.001, k_min=0)
    for x, scores, keep in zip(sample, found.scores, found.keep, strict=True):
        assert same(Merge(1.0, nearest)(x, scores, keep), Evict()(x, scores, keep))


def test_key_tiles_give_the_same(monkeypatch):
    sample = observations(kinds_of(*LAYOUT))
    found = decided(sample)
    whole = Merge(1.0, "key")(sample[0], found.scores[0], found.keep[0])
    monkeypatch.setattr("foveate.reduce.match.BLOCK_ELEMENTS", 2 * 2 * 20 * 3)
    assert same(Merge(1.0, "key")(sample[0], found.scores[0], found.keep[0]), whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Merge(-0.1), "share=-0.1 .*from 0 to 1"),
        (lambda: Merge(1.5), "share=1.5"),
        (lambda: Merge("all"), "share='all'"),
        (lambda: Merge(0.5, "keys"), "did you mean 'key'"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(MethodError, match=message):
        make()
