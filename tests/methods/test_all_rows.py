"""What the presets that look at all rows must do besides equalling their loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import Sizes, Union
from foveate.calibration.tables import load_table, save_table
from foveate.errors import MethodError
from foveate.method import Method, apply, plan
from foveate.methods import elastic, h2o, lookm, method, prefixkv, roco, streaming, tgvkv, tova
from foveate.reduce import Buckets, Evict, Fold
from foveate.schedule import Accumulated, AfterPrefill, LatestRow, OldestFirst, WhileDecoding
from foveate.score import Attention, LastRows
from foveate.types import Observation, Rotation
from samples import kinds_of, observations, only_row

NAMES = ("h2o", "roco", "tova", "streaming", "elastic", "prefixkv", "tgvkv", "lookm")
LAYOUT = ("pppp tt vvvvvvvvv tt vvvvvvvvvvv ttt", "tttt vvvvvvvvvvvvv t vvvv tttt ttttt")
PINNED = {"roco": 14, "streaming": 4, "elastic": 2, "prefixkv": 2, "tgvkv": 5}


def same_plan(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.keep, b.keep, strict=True))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.one_of(st.floats(0.005, 1.0), st.integers(1, 60)),
    st.lists(st.sampled_from(["t", "v", "vvvv", "ttt", "s"]), min_size=1, max_size=14),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_totals_are_exact(name, keep, words, layers, pads):
    if isinstance(keep, int):
        keep = max(keep, PINNED.get(name, 1))
    kinds = kinds_of("p" * pads + "".join(words))
    sample = observations(kinds, layers=layers, Hq=4, H=2, D=3, seed=pads)
    options = {"budget": "strict"} if name == "lookm" else {}
    found = plan(method(name, keep=keep, **options), sample)
    T = int(kinds.valid.sum())
    total = round(keep * T * layers) if isinstance(keep, float) else min(keep, T) * layers
    for head in range(2):
        assert sum(int(mask[0, head].sum()) for mask in found.keep) == total
    assert not any(mask[0, :, :pads].any() for mask in found.keep)


@pytest.mark.parametrize("name", NAMES)
def test_pads_may_be_anywhere_and_hold_anything(name):
    whole = observations(
        kinds_of("tt vvpvvvvvv tt vpvvvvvv ttt pp"), layers=3, dtype=torch.bfloat16
    )
    valid = whole[0].kinds.valid[0]
    bad = ~whole[0].kinds.valid[:, None, :, None]
    poisoned = [
        Observation(
            *(y.masked_fill(bad, torch.nan) for y in (x.queries, x.keys, x.values)),
            x.kinds,
            x.scaling,
            x.layer,
        )
        for x in whole
    ]
    alone = [
        Observation(
            *(y[:, :, valid] for y in (x.queries, x.keys, x.values)),
            x.kinds.kind[:, valid],
            x.scaling,
            x.layer,
        )
        for x in whole
    ]
    for options in ({}, {"scope": "visual"}):
        made = method(name, keep=0.4, **options)
        found, expected = plan(made, poisoned), plan(made, alone)
        ours, theirs = apply(made, poisoned, found), apply(made, alone, expected)
        for number, kv in enumerate(ours):
            assert torch.equal(found.keep[number][..., valid], expected.keep[number])
            assert not found.keep[number][..., ~valid].any()
            torch.testing.assert_close(kv.packed_keys, theirs[number].packed_keys)
            torch.testing.assert_close(kv.packed_values, theirs[number].packed_values)


def test_heavy_hitters_without_heavy_ones_are_a_window():
    sample = observations(kinds_of(*LAYOUT))
    for keep in (1, 7, 20, 100):
        window = plan(streaming(keep, sinks=0), sample)
        assert same_plan(plan(h2o(keep, recent=1.0), sample), window)


def test_lookm_without_images_and_merging_is_h2o():
    text = observations(kinds_of("t" * 31, "p" * 9 + "t" * 22))
    mixed = observations(kinds_of(*LAYOUT))
    for keep in (0.1, 0.33, 0.8, 6):
        strict = lookm(keep, merge="none", budget="strict")
        assert same_plan(plan(strict, text), plan(h2o(keep), text))
        flat = lookm(keep, merge="none", text_prior=False)
        assert same_plan(plan(flat, mixed), plan(h2o(keep), mixed))
    assert roco(0.3, variant="lookm", every=2) == h2o(0.3, every=2)


def test_tova_is_the_last_row_of_a_window():
    sample = observations(kinds_of(*LAYOUT))
    made = tova(0.3)
    row = Attention(LastRows(1), "full", "shared")
    other = Method(made.scope, row, made.budget, made.reduce, made.when)
    assert same_plan(plan(made, sample), plan(other, sample))


def test_lookm_with_nothing_evicted_changes_no_bit():
    sample = observations(kinds_of("t" * 23), dtype=torch.bfloat16)
    mixed = observations(kinds_of("ttvvvvvvvvvtttt"), dtype=torch.bfloat16)
    for made, given_ in ((lookm(0.1), sample), (lookm(500), mixed), (elastic(500), mixed)):
        for x, kv in zip(given_, apply(made, given_, plan(made, given_)), strict=True):
            assert torch.equal(kv.packed_keys, x.keys)
            assert torch.equal(kv.packed_values, x.values)


def test_the_ranking_of_images_survives_half_precision():
    sample = observations(kinds_of("ttt" + "v" * 200 + "tttttt"), layers=2, dtype=torch.bfloat16)
    wide = [
        Observation(x.queries.float(), x.keys.float(), x.values, x.kinds, x.scaling, x.layer)
        for x in sample
    ]
    made = lookm(0.3)
    half, full = plan(made, sample), plan(made, wide)
    assert same_plan(half, full)
    for scores in half.scores:
        assert scores.dtype == torch.float32
        assert all(len(head[3:203].unique()) == 200 for head in scores[0])


def test_text_beyond_the_budget():
    sample = observations(kinds_of("t" * 30 + "v" * 10 + "t" * 8), layers=2)
    union = plan(lookm(0.25, budget="union"), sample).keep[0][0]
    text = sample[0].kinds.text[0]
    assert (union == text).all()
    strict = plan(lookm(0.25, budget="strict"), sample).keep[0][0]
    assert (strict.sum(-1) == 12).all() and not strict[:, ~text].any()
    assert strict[:, -6:].all()


@pytest.mark.parametrize("grid", [None, False, True])
def test_rotated_keys_are_folded_where_positions_have_one_axis(grid):
    rotation = None if grid is None else Rotation(None, grid)
    x = observations(kinds_of(LAYOUT[0]), layers=1)[0]
    x = Observation(x.queries, x.keys, x.values, x.kinds, x.scaling, 0, rotation=rotation)
    found = plan(lookm(0.4), [x])
    auto, values, both = (
        apply(lookm(0.4, fold=fold), [x], found)[0] for fold in ("auto", "values", "both")
    )
    assert torch.equal(auto.packed_keys, (values if grid else both).packed_keys)
    assert torch.equal(auto.packed_values, both.packed_values)
    assert torch.equal(values.packed_keys, Evict()(x, found.scores[0], found.keep[0]).packed_keys)
    assert not torch.equal(values.packed_keys, both.packed_keys)


def elastic_vector():
    """Return an observation of ten tokens and scores, of which five stay."""
    x = observations(kinds_of("t" * 10), layers=1)[0]
    scores = torch.tensor([9, 1, 5, 2, 7, 0.5, 3, 0.4, 0.3, 0.2]).expand(1, 2, 10)
    keep = torch.zeros(1, 2, 10, dtype=torch.bool)
    keep[..., [0, 2, 4, 6, 9]] = True
    return x, scores, keep


def test_elastic_merges_into_the_nearest_anchor():
    x, scores, keep = elastic_vector()
    kv = elastic(0.5).reduce(x, scores, keep)
    buckets = [[0], [1, 2, 3], [4, 5], [6, 7, 8], [9]]
    for head in range(2):
        for stored, entries in ((kv.keys, x.keys), (kv.values, x.values)):
            means = torch.stack([entries[0, head, bucket].mean(0) for bucket in buckets])
            torch.testing.assert_close(stored(0, head), means)


def test_a_table_of_sizes(tmp_path):
    path = tmp_path / "sizes.json"
    about = {"format": "foveate-sizes", "version": 1, "model": "m", "query_heads": 6, "kv_heads": 2}
    save_table(path, {**about, "layers": 3, "shares": [0.5, 0.25, 0.25]})
    sample = observations(kinds_of("t" * 22), layers=3)
    made = prefixkv(0.5, sizes=str(path), sinks=1)
    assert made.budget == Sizes(0.5, (0.5, 0.25, 0.25), load_table(path, "sizes")) and hash(made)
    made.budget.check("org/m", 3, 6, 2)
    for other in (("org/another", 3, 6, 2), (None, 3, 6, 3), ("m", 4, 6, 2)):
        with pytest.raises(MethodError, match=r"the sizes table .*foveate calibrate sizes"):
            made.budget.check(*other)
    found = plan(made, sample)
    # 33 in all, 6 of them pinned; 27 in the proportion 2 : 1 : 1 are 13.5, 6.75, 6.75
    assert [int(x["budget"][0, 0]) for x in found.explain] == [15, 9, 9]
    with pytest.raises(MethodError, match=r"sizes of 3 layers, and 4 layers.*calibrate sizes"):
        plan(made, observations(kinds_of("t" * 22), layers=4))
    with pytest.raises(MethodError, match=r"sizes of 3 layers, and 2 layers"):
        plan(made, sample[:2])
    save_table(path, {**about, "layers": 3, "shares": [0.5, 1.0, 0.25]})
    plan(prefixkv(0.5, sizes=str(path)), [sample[0], sample[2]])  # layer 1 is never compressed
    with pytest.raises(MethodError, match=r"cannot be read.*foveate calibrate sizes"):
        prefixkv(sizes=str(tmp_path / "none.json"))


def test_decoding_goes_on_by_the_preset_s_own_rule():
    assert h2o().when == WhileDecoding(Accumulated("sum"))
    assert h2o(statistic="mean", every=8).when == WhileDecoding(Accumulated("rate"), 8)
    assert tova().when == WhileDecoding(LatestRow("shared"))
    assert streaming().when == WhileDecoding(OldestFirst())
    assert elastic().when == WhileDecoding(OldestFirst(-25), grows=True)
    assert prefixkv(distance=-3).when == WhileDecoding(OldestFirst(-3), grows=True)
    assert tgvkv().when == lookm().when == tova(every=0).when == AfterPrefill()
    assert tgvkv(decode="official").when == WhileDecoding(LatestRow("shared"))
    for name in NAMES:
        assert method(name, scope="visual").when == AfterPrefill()


def test_parts_are_what_the_options_say():
    assert isinstance(elastic().reduce, Buckets) and elastic(scope="visual").reduce == Evict()
    assert isinstance(elastic(merge=True, scope="visual").reduce, Buckets)
    assert lookm(merge="none").reduce == Evict() and lookm().reduce == Fold("pivotal", "auto")
    assert isinstance(lookm().budget, Union) and lookm().budget.keep == 0.2
    assert h2o(9, recent=0.5).scope.recent == 4 and lookm(9).scope.recent == 4
    assert lookm(0.3, alpha2=0.1).scope.recent == pytest.approx(0.2)
    sums = plan(h2o(0.5), observations(kinds_of("tttvvt"), layers=1)).scores[0]
    assert float(sums.sum()) == pytest.approx(2 * 6, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(name="h2o", recent=1.5), "recent=1.5"),
        (dict(name="h2o", every=-1), "every=-1"),
        (dict(name="h2o", every=1, scope="visual"), "every=1 and scope='visual'"),
        (dict(name="roco", keep=13), "keep=13 is less than the sinks and newest, 14 tokens"),
        (dict(name="roco", spread=2), "spread=2"),
        (dict(name="roco", sinks=-1, variant="lookm"), "sinks=-1"),
        (dict(name="streaming", keep=3), "keep=3 is less than the sinks, 4 tokens"),
        (dict(name="elastic", keep=1), "keep=1 is less than the sinks and last token, 2"),
        (dict(name="elastic", merge="yes"), "merge='yes'"),
        (dict(name="elastic", distance=1), "distance=1 .*0 or less"),
        (dict(name="prefixkv", distance=0.5), "distance=0.5"),
        (dict(name="prefixkv", sizes=3), "sizes=3"),
        (dict(name="tgvkv", decode="official", scope="visual"), "decode='official' and scope="),
        (dict(name="lookm", alpha1=0.3), "alpha1=0.3 .*from 0 to 0.2"),
        (dict(name="lookm", alpha1=0.1, alpha2=0.2), "do not sum to keep=0.2"),
        (dict(name="lookm", alpha2=math.nan), "alpha2=nan"),
        (dict(name="lookm", keep=64, alpha1=0.5), "alpha1=0.5 does not go with keep=64.*whole"),
        (dict(name="lookm", keep=4, sinks=3), "keep=4 is less than the sinks and recent tokens, 5"),
        (dict(name="lookm", text_prior=1), "text_prior=1"),
        (dict(name="lookm", fold="keys"), "fold='keys'"),
    ],
    ids=str,
)
def test_errors_say_what_to_do(words, message):
    with pytest.raises(MethodError, match=message):
        method(**words)


def test_one_row_of_a_batch_is_folded_alone():
    sample = observations(kinds_of(*LAYOUT))
    made = lookm(0.4, within_modality=True, merge="weighted")
    whole = apply(made, sample, plan(made, sample))
    alone = [only_row(x, 0) for x in sample]
    for kv, single in zip(whole, apply(made, alone, plan(made, alone)), strict=True):
        for head in range(2):
            torch.testing.assert_close(kv.keys(0, head), single.keys(0, head))
            torch.testing.assert_close(kv.values(0, head), single.values(0, head))
