"""`select`, `plan` and `apply`: where the parts of a method meet."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import Uniform
from foveate.errors import InputError, MethodError
from foveate.line import select
from foveate.method import Method, apply, check_part, decide, plan
from foveate.methods import aircache, random
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.scope import VisualFirst
from foveate.score import Recency
from foveate.types import Observation, Quota, Ranking, TokenKinds
from samples import kinds_of, observations


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_select_is_sorting_by_tier_score_and_place(data):
    T = data.draw(st.integers(1, 9))

    def row(elements):
        return data.draw(st.lists(elements, min_size=T, max_size=T))

    tiers, scores, ties = row(st.integers(-1, 3)), row(st.integers(-2, 2)), row(st.integers(0, 4))
    if data.draw(st.booleans()):
        ties = None
    count = data.draw(st.integers(0, T + 1))
    share, other = data.draw(st.sampled_from([None, 0.0, 0.3, 0.5, 1.0])), row(st.integers(-2, 2))
    ranking = Ranking(
        torch.tensor([[scores]]).float(),
        torch.tensor([tiers]),
        0,
        ties=None if ties is None else torch.tensor([ties]),
        quota=None if share is None else Quota(torch.tensor([[other]]).float(), share),
    )
    found = select(ranking, torch.tensor([[count]]))[0, 0].nonzero().flatten().tolist()
    going = [i for i in range(T) if tiers[i] in (0, 1)]
    by_quota = sorted(going, key=lambda i: (-tiers[i], -other[i], ties[i] if ties else i, i))
    lifted = by_quota[: max(0, min(int((share or 0) * count + 1e-6), count - tiers.count(3)))]
    rest = sorted(going, key=lambda i: (-tiers[i], -scores[i], ties[i] if ties else i, i))
    rest = sorted(rest, key=lambda i: i not in lifted)
    line = [i for i in reversed(range(T)) if tiers[i] == 3] + rest
    assert found == sorted(line[:count] + [i for i in range(T) if tiers[i] == 2])


def test_visual_first_spares_text_until_no_image_is_left():
    method = Method(VisualFirst(1, 1), Recency(), Uniform(0.5), Evict(), AfterPrefill())
    sample = observations(kinds_of("tt vvvv tttt"), layers=1)
    assert plan(method, sample).positions(0, 0, 0).tolist() == [0, 6, 7, 8, 9]
    more = Method(VisualFirst(1, 1), Recency(), Uniform(0.75), Evict(), AfterPrefill())
    assert plan(more, sample).positions(0, 0, 0).tolist() == [0, 1, 4, 5, 6, 7, 8, 9]


def test_the_plan_explains_itself():
    sample = observations(kinds_of("tt vvvvvvvv tttt", "ppt vvvvvvv tttt"))
    found = plan(aircache(0.25), sample)
    assert len(found.keep) == len(found.explain) == len(found.scores) == len(sample)
    for keep, explain in zip(found.keep, found.explain, strict=True):
        assert set(explain) == {"window", "fallback", "strength", "skewness", "pinned", "budget"}
        visual = sample[0].kinds.visual[:, None]
        assert torch.equal((keep & visual).sum(-1), explain["budget"])
        assert all(explain[name].shape == (2,) for name in set(explain) - {"budget"})


def test_deciding_later_is_the_same():
    sample = observations(kinds_of("tt vvvvvvvvvvvv tttt"))
    for method in (aircache(0.3), random(0.3)):
        rankings = [method.rank(x) for x in reversed(sample)][::-1]
        later = decide(method, rankings)
        assert all(
            torch.equal(a, b) for a, b in zip(later.keep, plan(method, sample).keep, strict=True)
        )


def test_kinds_may_be_a_plain_tensor():
    kinds = kinds_of("tt vvvvvvvvvvvv tttt")
    sample = observations(kinds)
    plain = [
        Observation(x.queries, x.keys, x.values, kinds.visual, x.scaling, x.layer) for x in sample
    ]
    for a, b in zip(plan(aircache(0.3), sample).keep, plan(aircache(0.3), plain).keep, strict=True):
        assert torch.equal(a, b)
    assert TokenKinds.of(kinds) is kinds


def test_no_layers_is_an_error():
    with pytest.raises(InputError, match="give one per layer"):
        plan(aircache(), [])


def test_a_budget_that_misses_a_statistic_says_which():
    method = aircache()
    bare = Method(method.scope, Recency(), method.budget, method.reduce, method.when)
    with pytest.raises(MethodError, match=r"needs the statistic 'strength'.*gives none"):
        plan(bare, observations(kinds_of("tvvvvt")))


def test_a_score_of_ones_own_fits_in():
    @dataclass(frozen=True)
    class KeyNorm:
        def rows(self, kinds):
            return None

        def __call__(self, observation, tiers):
            return Ranking(-observation.keys.norm(dim=-1), tiers, observation.layer)

    method = Method(aircache().scope, KeyNorm(), Uniform(2), Evict(), AfterPrefill())
    sample = observations(kinds_of("tvvvvvvt"))
    for x, kv in zip(sample, apply(method, sample, plan(method, sample)), strict=True):
        smallest = x.keys[0, 0, 1:7].norm(dim=-1).topk(2, largest=False).indices.sort().values + 1
        assert kv.positions(0, 0).tolist() == [0, *smallest.tolist(), 7]


def one_layer(**changes):
    given = {
        "queries": torch.randn(1, 4, 6, 8),
        "keys": torch.randn(1, 2, 6, 8),
        "values": torch.randn(1, 2, 6, 8),
        "kinds": torch.tensor([[0, 1, 1, 1, 0, 0]]),
        "scaling": 0.3,
        "layer": 0,
    }
    return Observation(**{**given, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"values": torch.randn(1, 2, 5, 8)},
        {"kinds": torch.zeros(6)},
        {"rows": torch.zeros(1, 2, dtype=torch.long)},
    ],
    ids=["values", "kinds", "rows"],
)
def test_shapes_that_do_not_fit_are_refused(changes):
    # the shape hook of the tests may be quicker than our own message
    with pytest.raises((InputError, TypeError), match=r"(give .*\[B|values|rows)"):
        one_layer(**changes)


def test_layers_of_different_prompts_and_foreign_plans_are_refused():
    one = one_layer()
    two = one_layer(
        queries=torch.randn(2, 4, 6, 8),
        keys=torch.randn(2, 2, 6, 8),
        values=torch.randn(2, 2, 6, 8),
        kinds=torch.zeros(2, 6, dtype=torch.long),
    )
    method = aircache(keep=0.5)
    with pytest.raises(InputError, match="same prompts"):
        plan(method, [one, two])
    with pytest.raises(InputError, match="2 observations"):
        apply(method, [one, one], plan(method, [one]))


def test_images_beside_each_other_are_told_apart_by_number():
    kinds = TokenKinds.of(torch.tensor([[0, 1, 1, 2, 2, 0, 1]]))
    assert kinds.span.tolist() == [[-1, 0, 0, 1, 1, -1, 2]]


def test_a_number_of_tokens_may_be_absurd():
    kept = plan(aircache(keep=10**30), [one_layer()])
    assert kept.keep[0].all()


@dataclass(frozen=True)
class Odd:
    made: object

    def rows(self, kinds):
        return None

    def __call__(self, observation, tiers):
        return self.made(observation, tiers)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda seen, tiers: Ranking(seen.keys.sum(-1)[:, :1], tiers, 0), r"returned \[1, 1, 7\];"),
        (lambda seen, tiers: seen.keys.sum(-1), "returned <class 'torch.Tensor'>; .*Ranking"),
    ],
)
def test_a_score_of_one_s_own_that_ranks_nothing_is_told_what_to_return(made, says):
    seen = observations(kinds_of("vvvv ttt"), layers=1)
    method = Method(VisualFirst(), Odd(made), Uniform(0.5), Evict(), AfterPrefill())
    with pytest.raises(MethodError, match=says + r".*here \[1, 2, 7\]"):
        plan(method, seen)


@pytest.mark.parametrize(
    ("part", "says"),
    [(Odd, r"score=Odd is a class; give Odd\(...\)"), (Uniform(0.5), "lacks rows; write it as")],
)
def test_parts_that_are_none_are_told_apart(part, says):
    with pytest.raises(MethodError, match=says):
        check_part("score", part)


def test_a_method_checks_its_parts():
    with pytest.raises(MethodError, match="score=Odd is a class"):
        Method(VisualFirst(), Odd, Uniform(0.5), Evict(), AfterPrefill())
