"""Every preset, by name: values, options, errors, and the properties all methods share."""

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import MethodError
from foveate.method import Method, apply, plan
from foveate.methods import aircache, full, method, methods, random, recency
from foveate.schedule import AfterPrefill
from samples import kinds_of, observations, only_row

NAMES = [info.name for info in methods()]
COMPRESSING = [name for name in NAMES if name != "full"]

BY_HEAD = ("adakv", "foveate", "sparsemm")  # heads have budgets of their own


@pytest.mark.parametrize("name", NAMES)
def test_methods_are_values(name):
    made = method(name)
    assert isinstance(made, Method)
    assert made == method(name) and hash(made) == hash(method(name))
    assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)
    assert len({made, method(name)}) == 1
    with pytest.raises(AttributeError):
        made.budget = None
    parts = {type(x).__name__: type(x) for x in nested(made)}
    assert eval(repr(made), parts) == made


def nested(part):
    if hasattr(part, "__dataclass_fields__"):
        yield part
        for name in part.__dataclass_fields__:
            yield from nested(getattr(part, name))


@pytest.mark.parametrize("info", methods(), ids=lambda info: info.name)
def test_what_is_told_about_a_method(info):
    assert info.paper and info.notes
    assert all(option.allowed for option in info.options)
    for option in info.options:
        assert method(info.name, **{option.name: option.default}) == method(info.name)
        assert option.name in str(option)


@pytest.mark.parametrize("info", methods(), ids=lambda info: info.name)
def test_every_word_of_every_option_works(info):
    for option in info.options:
        words = [eval(word) for word in option.allowed if word.startswith("'")]
        made = {
            method(info.name, **{option.name: word})
            for word in words
            if (info.name, word) != ("mixkv", "offline")  # needs a table
        }
        alone = option.name == "merge_nearest" or info.name == "full"  # needs another option
        alone |= (info.name, option.name) == ("infinipotv", "scope")  # its own is the visual one
        alone |= option.name in ("keep", "over")  # "auto", and what goes with it alone
        assert len(made) > 1 or len(words) < 2 or alone
        if words:
            with pytest.raises(MethodError) as caught:
                method(info.name, **{option.name: "nonsense"})
            assert all(repr(word) in str(caught.value) for word in words)


def test_numbers_and_flags_change_the_method():
    changed = {
        "alpha": 0.5,
        "window_rows": 7,
        "exclude_special": True,
        "beta": 3.0,
        "k_min": 0,
        "per_image_floor": 2,
        "merge": 0.5,
        "recompress": False,
    }
    for name, value in changed.items():
        others = {"window_rows": {"window": "contiguous"}, "beta": {"budget": "pyramid"}}.get(
            name, {}
        )
        assert aircache(**{name: value}, **others) != aircache(**others)
    assert random(seed=1) != random()
    assert recency(3) != recency(3.0 / 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(name="aircach"), r"no method 'aircach'; did you mean 'aircache' or 'vlcache'\?"),
        (dict(name="xyz"), "known: .*aircache, .*full, .*random, recency, "),
        (dict(name="aircache", alfa=0.9), r"no option 'alfa'; did you mean 'alpha'\?"),
        (dict(name="random", alpha=0.9), "random has no option 'alpha'; known: keep, scope, seed"),
        (dict(name="aircache", alpha=2), "alpha=2 .*from 0 to 1"),
        (dict(name="aircache", alpha="high"), "alpha='high'"),
        (dict(name="aircache", window_rows=0), "window_rows=0 .*1 or more"),
        (dict(name="aircache", window="elites"), r"window='elites'.*did you mean 'elite'\?"),
        (dict(name="aircache", budget="fair"), "budget='fair'.*'skewness'"),
        (dict(name="aircache", merge_nearest="far"), "nearest='far'.*'position'"),
        (dict(name="aircache", exclude_special=1), "exclude_special=1 .*True or False"),
        (dict(name="aircache", recompress="no"), "recompress='no' .*True or False"),
        (dict(name="aircache", scope="text"), "scope='text'.*'unified'"),
        (dict(name="aircache", per_image_floor=-1), "per_image_floor=-1"),
        (dict(name="random", seed=-1), "seed=-1"),
        (dict(name="full", keep=0.5), "keep=0.5 does not go with full"),
        (dict(name="aircache", keep=0.0), "keep=0.0 .*give a float above 0"),
        (dict(name="recency", keep=1.2), "more than everything"),
    ],
    ids=str,
)
def test_errors_say_what_to_do(words, message):
    with pytest.raises(MethodError, match=message):
        method(**words)


@pytest.mark.parametrize("name", COMPRESSING)
@pytest.mark.parametrize("keep", [0, -0.5, float("nan"), float("inf"), 1.5, True, "0.1"], ids=str)
def test_keep_is_checked_in_every_preset(name, keep):
    with pytest.raises(MethodError, match="keep="):
        method(name, keep=keep)


LAYOUTS = (
    "pppppp tt vvvvvvv tt vvvv tttt",
    "tt vvvvvvvvvvvvvvvvv tttttt".replace(" ", ""),
    "p" * 13 + "tttttttttttt",
    "p" * 20 + "vvttt",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(6, 2), (3, 3)], ids=str)
def test_a_batch_is_its_rows(name, shape):
    sample = observations(kinds_of(*LAYOUTS), Hq=shape[0], H=shape[1], seed=7)
    made = method(name) if name == "full" else method(name, keep=0.3)
    whole = plan(made, sample)
    stored = apply(made, sample, whole)
    for row in range(len(LAYOUTS)):
        alone = [only_row(x, row) for x in sample]
        single = plan(made, alone)
        start = sample[0].keys.shape[2] - alone[0].keys.shape[2]
        for layer, kv in enumerate(apply(made, alone, single)):
            assert torch.equal(whole.keep[layer][row, :, start:], single.keep[layer][0])
            assert not whole.keep[layer][row, :, :start].any()
            for head in range(shape[1]):
                assert torch.equal(stored[layer].keys(row, head), kv.keys(0, head))
    order = torch.tensor([2, 0, 3, 1])
    turned = plan(made, [reordered(x, order) for x in sample])
    for a, b in zip(whole.keep, turned.keep, strict=True):
        assert torch.equal(a[order], b)


def reordered(x, order):
    return type(x)(
        x.queries[order],
        x.keys[order],
        x.values[order],
        x.kinds.rows(order),
        x.scaling,
        x.layer,
        rotation=x.rotation,
        layers=x.layers,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(COMPRESSING),
    st.one_of(st.floats(0.01, 1.0), st.integers(1, 40)),
    st.lists(st.sampled_from(["t", "v", "vvvv", "ttt", "s"]), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_plans_keep_their_promises(name, keep, words, layers, pads):
    kinds = kinds_of("p" * pads + "".join(words))
    sample = observations(kinds, layers=layers, Hq=4, H=2, D=3, seed=pads)
    exact = {"redistribute": True} if name == "sparsemm" else {}  # its program loses tokens
    made = method(name, keep=keep, scope="visual", **exact)
    found = plan(made, sample)
    V = int(kinds.visual.sum())
    least = min(1, V) * layers if name == "aircache" else 0
    total = round(keep * V * layers) if isinstance(keep, float) else min(keep, V) * layers
    sums = [
        sum(int((mask[0, head] & kinds.visual[0]).sum()) for mask in found.keep)
        for head in range(2)
    ]
    wanted = [max(total, least)] * 2
    assert sums == wanted or (name in BY_HEAD and sum(sums) == sum(wanted))
    for head in range(2):
        kept = [mask[0, head] for mask in found.keep]
        assert all(
            (mask >= kinds.text[0]).all() and not (mask & ~kinds.valid[0]).any() for mask in kept
        )
    for layer, kv in enumerate(apply(made, sample, found)):
        positions = kv.positions(0, 0)
        assert torch.equal(positions, found.positions(layer, 0, 0))
        assert (positions.diff() > 0).all()


def test_keeping_more_keeps_what_fewer_kept():
    sample = observations(kinds_of(*LAYOUTS))
    for name in COMPRESSING:
        options = {"budget": "uniform"} if name == "aircache" else {}
        made = [method(name, keep=n, scope="visual", **options) for n in (1, 3, 8, 17)]
        plans = [plan(each, sample) for each in made]
        for fewer, more in itertools.pairwise(plans):
            assert all((a <= b).all() for a, b in zip(fewer.keep, more.keep, strict=True))


def test_full_needs_no_scores():
    assert full().keeps_everything and aircache(1.0).keeps_everything
    assert not aircache(0.99).keeps_everything and not aircache(1).keeps_everything
    assert full().score.rows(kinds_of("tvt")) is None


@pytest.mark.parametrize("positions", ["original", "compacted"])
def test_when(positions):
    assert aircache(positions=positions).when == AfterPrefill(positions=positions)
    with pytest.raises(MethodError, match=r"positions='new'.*'compacted'"):
        AfterPrefill(positions="new")
