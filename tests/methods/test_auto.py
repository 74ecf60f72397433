"""keep="auto" on every preset whose scores are attention, and refused on all others."""

from dataclasses import replace

import pytest
import torch

from foveate.budget import Reach
from foveate.cli.options import build_method
from foveate.errors import MethodError
from foveate.method import plan
from foveate.methods import foveate, method, methods, snapkv
from samples import PROMPTS, kinds_of, observations

ATTENTION = (
    "foveate", "aircache", "snapkv", "pyramidkv", "adakv", "sparsemm", "vlcache", "h2o", "tova",
    "elastic", "prefixkv", "tgvkv", "lookm", "mixkv", "mixkv+aircache",
)  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("over", ["layer", "head"])
def test_every_layer_holds_the_share(name, over):
    sample = observations(kinds_of(*PROMPTS["padded batch"]), layers=3, Hq=4, H=2)
    made = method(name, keep="auto", mass=0.7, over=over, scope="visual")
    assert made.budget == Reach(0.7, over)
    found = plan(made, sample)
    for layer, keep in zip(sample, found.keep, strict=True):
        ranking = made.rank(layer)
        mass = ranking.scores if ranking.mass is None else ranking.mass
        mass = mass.double() * ranking.candidates[:, None]
        dims = (1, 2) if over == "layer" else 2
        assert ((mass * keep).sum(dims) >= 0.7 * (1 - 1e-6) * mass.sum(dims)).all()
    less = plan(method(name, keep="auto", mass=0.3, over=over, scope="visual"), sample)
    assert all(not (a & ~b).any() for a, b in zip(less.keep, found.keep, strict=True))
    assert sum(int(x.sum()) for x in less.keep) < sum(int(x.sum()) for x in found.keep)


@pytest.mark.parametrize("name", [x.name for x in methods() if x.name not in ATTENTION])
def test_scores_that_are_no_attention_are_refused(name):
    with pytest.raises(MethodError, match=rf"and {name} ranks by other numbers .*snapkv"):
        method(name, keep="auto")


def test_the_share_defaults_to_95_percent_in_every_layer():
    assert method("snapkv", keep="auto").budget == Reach(0.95, "layer")
    assert method("snapkv", "auto", window=4).score == snapkv(window=4).score
    assert foveate("auto") == method("foveate", "auto") == foveate("auto", mass=0.95)
    assert foveate("auto", mass=1.0).keeps_everything
    assert build_method("aircache", "auto", ["mass=0.8", "over=head"]).budget == Reach(0.8, "head")


def test_over_the_model_heads_that_look_nowhere_keep_nothing():
    first, second = observations(kinds_of("t" + "v" * 36 + "tt"), layers=2, Hq=2, H=2)
    first = replace(first, queries=torch.zeros_like(first.queries))
    second = replace(second, queries=30 * second.queries)
    for over, least in (("layer", 1), ("head", 1), ("model", 0)):
        found = plan(foveate("auto", mass=0.2, over=over), [first, second])
        counts = (found.keep[0] & first.kinds.visual).sum(-1)
        assert counts.max() >= least and (least or not counts.any())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: snapkv("auto"), r"a str, not .*foveate.method\(name, keep='auto', mass=0.95\)"),
        (lambda: foveate("automatic"), "keep='automatic' is a str, not a number"),
        (lambda: foveate("auto", alpha=3), "alpha=3"),
        (lambda: method("snapkv", "auto", mass=2), "mass=2 .*from 0 to 1"),
        (lambda: method("snapkv", "auto", over="all"), "over='all' .*'layer'"),
        (lambda: method("snapkv", 0.1, mass=0.5), "snapkv has no option 'mass'"),
        (lambda: method("nosuch", "auto"), "no method 'nosuch'"),
        (lambda: method("snapkv", "auto", pooling="max"), "ranks by other numbers"),
        (lambda: method("mixkv+foveate", "auto"), "ranks by other numbers"),
    ],
    ids=range(9),
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(MethodError, match=message):
        call()
