"""What is found from parts of the heads, in processes that gather, is what all heads find."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
import torch

from foveate.budget import LayerShares, PooledHeads
from foveate.group import all_heads, own_heads, total
from foveate.method import Bounded, Method, Plan, plan
from foveate.reduce import Evict
from foveate.schedule import Accumulated, AfterPrefill, LatestRow, OldestFirst, Steady
from foveate.scope import Visual
from foveate.score import Attention, Described
from foveate.types import Observation, Ranking, Stored
from samples import PROMPTS, kinds_of, observations
from shared_heads import VARIANTS, by_hand, named, write_tables

SPLITS = [(2, 12, 4), (2, 2, 2), (2, 6, 2), (3, 6, 6)]  # processes, query heads, key-value heads
SHAPES = pytest.mark.parametrize(("size", "Hq", "H"), SPLITS)


@dataclass
class Table:
    """Where threads that play processes lay down their parts; `calls` counts the messages."""

    size: int
    parts: dict[int, torch.Tensor] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=20)


@dataclass
class Place:
    """One thread's place at the table."""

    table: Table
    rank: int

    @property
    def size(self) -> int:
        """How many threads there are."""
        return self.table.size

    def gather(self, part: torch.Tensor, dim: int) -> torch.Tensor:
        """The parts of all threads."""
        self.table.parts[self.rank] = part
        self.table.calls += self.rank == 0
        self.table.barrier.wait()
        parts = [self.table.parts[rank] for rank in range(self.size)]
        assert len({(x.shape, x.dtype) for x in parts}) == 1, "processes speak of different things"
        self.table.barrier.wait()
        return torch.cat(parts, dim)


def in_parallel(size: int, work) -> tuple[list, Table]:
    """What `work(place)` returns in every thread, and the table."""
    table = Table(size)
    with ThreadPoolExecutor(size) as pool:
        running = [pool.submit(work, Place(table, rank)) for rank in range(size)]
        return [task.result(timeout=60) for task in running], table


def part(sample: Observation, place: Place) -> Observation:
    """One process's heads of an observation."""
    queries, keys, values = (
        own_heads(x, place, 1) for x in (sample.queries, sample.keys, sample.values)
    )
    return replace(sample, queries=queries, keys=keys, values=values, group=place)


def plans(method: Method, sample: list[Observation], size: int) -> tuple[list[Plan], Table]:
    """The plans of all threads."""
    return in_parallel(size, lambda place: plan(method, [part(x, place) for x in sample]))


def check(method: Method, sample: list[Observation], size: int) -> None:
    """What the threads keep together is what one process keeps, for the same reasons."""
    whole = plan(method, sample)
    found, _ = plans(method, sample, size)
    for layer, keep in enumerate(whole.keep):
        assert torch.equal(torch.cat([x.keep[layer] for x in found], 1), keep), f"layer {layer}"
        scores = torch.cat([x.scores[layer] for x in found], 1)
        torch.testing.assert_close(scores, whole.scores[layer], rtol=1e-5, atol=1e-7)
        for name, value in whole.explain[layer].items():
            here = [x.explain[layer][name] for x in found]
            if value.ndim == 2:
                assert torch.equal(torch.cat(here, 1), value), name
                continue
            for other in here:
                assert torch.equal(other, here[0]), f"processes differ in {name}"
            torch.testing.assert_close(here[0], value, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
@pytest.mark.parametrize(("size", "Hq", "H"), SPLITS[:2])
def test_parts_plan_as_the_whole(name, options, size, Hq, H, tmp_path):
    sample = observations(kinds_of(*PROMPTS["padded batch"]), layers=3, Hq=Hq, H=H)
    check(named(name, 0.4, options, write_tables(tmp_path, 3, Hq, H)), sample, size)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_parts_have_the_bounds_of_the_whole(name, options, tmp_path):
    N, kinds = 3, kinds_of(*PROMPTS["padded batch"])
    method = named(name, 0.4, options, write_tables(tmp_path, N, 12, 4))
    sample = observations(kinds, layers=N, Hq=12, H=4)
    rankings = [method.rank(x) for x in sample]

    def bounds(known: list[Ranking]) -> list[torch.Tensor | None]:
        assert isinstance(method.budget, Bounded)
        return [method.budget.bounds(known[: m + 1], N) for m in range(N)]

    found, _ = in_parallel(2, lambda place: bounds([method.rank(part(x, place)) for x in sample]))
    for whole, *parts in zip(bounds(rankings), *found, strict=True):
        assert all((x is None) == (whole is None) for x in parts)
        assert whole is None or torch.equal(torch.cat(parts, -1), whole)


@pytest.mark.parametrize("prompt", ["two images", "no text behind", "short"])
@pytest.mark.parametrize(
    "variant", [("aircache", {}), ("adakv", {"window": 4}), ("cake", {}), ("vlcache", {})], ids=str
)
def test_other_prompts(variant, prompt):
    sample = observations(kinds_of(*PROMPTS[prompt]), layers=3, Hq=12, H=4)
    check(named(variant[0], 0.4, variant[1], {}), sample, 2)


@pytest.mark.parametrize("name", by_hand(0.4))
@SHAPES
def test_methods_made_by_hand(name, size, Hq, H):
    sample = observations(kinds_of(*PROMPTS["padded batch"]), layers=3, Hq=Hq, H=H)
    check(by_hand(0.4)[name], sample, size)


def test_scores_of_single_heads_cost_no_message():
    sample = observations(kinds_of(*PROMPTS["two images"]), layers=3, Hq=12, H=4)
    quiet = (
        "snapkv",
        "h2o",
        "lookm",
        "knorm",
        "vnorm",
        "keydiff",
        "expected",
        "infinipotv",
        "random",
    )
    for name, options in VARIANTS:
        if name in quiet:
            _, table = plans(named(name, 0.4, options, {}), sample, 2)
            assert table.calls == 0, name
    _, table = plans(named("aircache", 0.4, {}, {}), sample, 2)
    assert table.calls == 2 * len(sample), "the window, and the scores: heads are alike after that"


def test_what_heads_are_compared_by_is_sent_once_for_all_bounds():
    N, sample = 3, observations(kinds_of(*PROMPTS["two images"]), layers=3, Hq=12, H=4)
    score = Described(Attention(heads="per_kv_head"))
    budget = PooledHeads(LayerShares(0.4, ("strength",)))
    method = Method(Visual(), score, budget, Evict(), AfterPrefill())

    def bounds(place: Place) -> None:
        rankings = [method.rank(part(x, place)) for x in sample]
        for m in range(N):
            budget.bounds(rankings[: m + 1], N)
        budget(rankings)

    _, table = in_parallel(2, bounds)
    assert table.calls == 3 * N, "in every layer the window, the strength, and what is compared"


RULES = [
    LatestRow(), LatestRow(kernel=3), LatestRow("per_kv_head"), Accumulated(), Accumulated("rate"),
    Steady(), OldestFirst(), OldestFirst(-3),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=repr)
@SHAPES
def test_slots_rank_as_the_whole(rule, size, Hq, H):
    kinds = kinds_of("pp t" + "v" * 13 + "tttt", "sttt" + "v" * 9 + "t" * 7)
    B, L, D = 2, 11, 8
    made = torch.Generator().manual_seed(3)
    order = torch.rand(B, H, kinds.kind.shape[1], generator=made).argsort(-1)[..., :L]
    stored = Stored(
        torch.randn(B, Hq, 2, D, generator=made),
        torch.tensor([[17, 18], [18, 19]]),
        torch.randn(B, H, L, D, generator=made),
        torch.randn(B, H, L, D, generator=made),
        order.sort(-1).values,
        kinds,
        D**-0.5,
        0,
        {},
        torch.full((B, H), 7),
        torch.full((B, H), 8),
    )
    tiers = torch.zeros(B, H, L, dtype=torch.long)
    whole = rule(stored, tiers)

    def look(place: Place):
        names = ("queries", "keys", "values", "positions", "planned", "room")
        mine = {name: own_heads(getattr(stored, name), place, 1) for name in names}
        return rule(replace(stored, **mine, group=place), own_heads(tiers, place, 1))

    found, _ = in_parallel(size, look)
    assert torch.equal(torch.cat([x.scores for x in found], 1), whole.scores)
    assert torch.equal(torch.cat([x.tiers for x in found], 1), whole.tiers)


def test_heads_that_are_alike_are_not_sent():
    alike = torch.rand(2, 1, 5).expand(-1, 3, -1)
    found, table = in_parallel(2, lambda place: all_heads(alike, place))
    assert table.calls == 0
    for heads in found:
        assert torch.equal(heads, alike[:, :1].expand(-1, 6, -1))


def test_sums_over_processes():
    found, _ = in_parallel(3, lambda place: total(torch.tensor([1.0, place.rank]), place))
    assert all(x.tolist() == [3.0, 3.0] for x in found)


def test_one_process_gets_its_own_tensors_back():
    values = torch.rand(2, 3)
    assert all_heads(values, None) is values
    assert own_heads(values, None) is values
    assert total(values, None) is values
