"""What the embedded model's keys and attention look like, and what methods take of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

import foveate
from foveate.calibration.keys import redundancy
from foveate.cli.answers import prepare_chats
from foveate.cli.models import Loaded
from foveate.eval.asking.answering import conversation
from foveate.eval.entry import Entry
from foveate.eval.task import Sample
from foveate.eval.tasks import task
from foveate.hf.kinds import visual_ids
from foveate.types import Float

__all__ = ["Looks", "averaged", "divergence", "plane"]

Numbers = list[float]
KEEP = 0.1
SHARING = (
    Entry("aircache", {}, "aircache"),
    Entry("aircache", {"budget": "strength"}, "aircache, strength"),
    Entry("aircache", {"budget": "skewness"}, "aircache, skewness"),
    Entry("pyramidkv", {"scope": "visual"}, "pyramidkv"),
    Entry("vlcache", {"scope": "visual"}, "vlcache"),
    Entry("cake", {"scope": "visual"}, "cake"),
    Entry("prefixkv", {"scope": "visual"}, "prefixkv"),
    Entry("tgvkv", {"scope": "visual"}, "tgvkv"),
)
COVERING = (
    Entry("snapkv", {"scope": "visual"}, "snapkv"),
    Entry("mixkv+snapkv", {"scope": "visual"}, "mixkv+snapkv"),
    Entry("aircache", {}, "aircache"),
    Entry("keydiff", {"scope": "visual"}, "keydiff"),
    Entry("random", {}, "random"),
)


@dataclass(frozen=True, eq=False)
class Seen:
    """One prompt, read and answered with the full cache."""

    inputs: Mapping[str, Any]
    visual: Tensor  # [T]
    keys: tuple[Float[Tensor, "H T D"], ...]
    attention: tuple[tuple[Float[Tensor, "Hq R S"], ...], ...]  # per step and layer


@dataclass(frozen=True)
class Looks:
    """Looks at `number` prompts of a task; the model attends eagerly."""

    loaded: Loaded
    number: int = 24
    seed: int = 0
    task: str = "lookup-256"

    @torch.no_grad()
    def measured(self) -> dict[str, Any]:
        """Return the numbers behind all pictures."""
        pages = [self.seen(sample) for sample in self.samples(self.task)]
        alike = [self.redundancies(page) for page in pages]
        return {
            "redundancy": averaged(alike),
            "coverage": self.coverage(pages[0], alike[0]["visual"]),
            "distance": {e.label: fmean(self.distances(pages, e)) for e in COVERING},
            "budgets": {
                e.label: _mean([self.budgets(p.inputs, e) for p in pages]) for e in SHARING
            },
            "attention": averaged([dict(attended(page)) for page in pages]),
        }

    @torch.no_grad()
    def divergences(self, tasks: Sequence[str], keeps: Sequence[float]) -> dict[str, Any]:
        """Return how far layer budgets of AirCache are apart, by budget, pair and task."""
        names = ("uniform", "strength", "skewness")
        found: dict[str, Any] = {}
        for keep in keeps:
            for name in tasks:
                sums: dict[str, Numbers] = {}
                for sample in self.samples(name):
                    inputs = self.inputs(sample)
                    shares = {
                        name: self.budgets(inputs, Entry("aircache", {"budget": name}), keep)
                        for name in names
                    }
                    for one, other in ((0, 1), (0, 2), (1, 2)):
                        pair = f"{names[one]} and {names[other]}"
                        gap = divergence(shares[names[one]], shares[names[other]])
                        sums.setdefault(pair, []).append(gap)
                for pair, gaps in sums.items():
                    found.setdefault(f"{keep:.0%}", {}).setdefault(pair, {})[name] = fmean(gaps)
        return found

    def samples(self, name: str) -> Sequence[Sample]:
        """Return the samples of a task."""
        return task(name).source.samples(self.number, self.seed)

    def inputs(self, sample: Sample) -> Any:
        """Return the model's inputs for the first turn of a sample."""
        return prepare_chats(self.loaded, [conversation(sample.turns[0])])

    def seen(self, sample: Sample) -> Seen:
        """Return a prompt, its keys, and how its rows and those of the answer attend."""
        model, inputs = self.loaded.model, self.inputs(sample)
        out = model.generate(
            **inputs,
            max_new_tokens=8,
            do_sample=False,
            return_dict_in_generate=True,
            output_attentions=True,
        )
        ids = inputs["input_ids"][0]
        keys = tuple(layer.keys[0, :, : len(ids)] for layer in out.past_key_values.layers)
        looked = tuple(tuple(layer[0] for layer in step) for step in out.attentions)
        return Seen(inputs, self.visual(ids), keys, looked)

    def visual(self, ids: Tensor) -> Tensor:
        """Return which positions are visual."""
        return torch.isin(ids, torch.tensor(visual_ids(self.loaded.model.config)))

    def report(self, inputs: Mapping[str, Any], entry: Entry, keep: float = KEEP) -> Any:
        """Return what a method's cache says after the prompt."""
        method = entry.method(keep)
        assert method is not None
        cache = foveate.CompressedCache(self.loaded.model, method)
        self.loaded.model.generate(
            **inputs, past_key_values=cache, max_new_tokens=1, do_sample=False
        )
        return cache.report()

    def redundancies(self, page: Seen) -> dict[str, list[Numbers]]:
        """Return how alike the keys of each layer's heads are: of images, of text, of all."""
        kinds = {"visual": page.visual, "text": ~page.visual, "all": torch.ones_like(page.visual)}
        return {
            kind: [redundancy(keys[:, chosen]).tolist() for keys in page.keys]
            for kind, chosen in kinds.items()
        }

    def budgets(self, inputs: Mapping[str, Any], entry: Entry, keep: float = KEEP) -> Numbers:
        """Return the visual tokens that every layer keeps, mean over heads."""
        return [layer.kept_visual for layer in self.report(inputs, entry, keep).layers]

    def coverage(self, page: Seen, alike: list[Numbers]) -> dict[str, Any]:
        """Return the visual keys of one head in a plane, and which of them methods keep.

        The head is the one whose keys are as alike as those of the median head.
        """
        order = sorted((r, layer, h) for layer, row in enumerate(alike) for h, r in enumerate(row))
        r, layer, head = order[len(order) // 2]
        points, share = plane(page.keys[layer][head][page.visual])
        return {
            "layer": layer,
            "head": head,
            "redundancy": r,
            "variance": share,
            "points": points,
            "kept": {entry.label: self.kept(page, entry)[layer][head] for entry in COVERING},
        }

    def kept(self, page: Seen, entry: Entry) -> list[list[list[int]]]:
        """Return which visual tokens each layer and head keeps, counted among them."""
        report, number = self.report(page.inputs, entry), page.visual.cumsum(0) - 1
        return [
            [
                number[kept[page.visual[kept]]].tolist()
                for kept in (report.kept(layer, 0, head) for head in range(len(keys)))
            ]
            for layer, keys in enumerate(page.keys)
        ]

    def distances(self, pages: Sequence[Seen], entry: Entry) -> Iterator[float]:
        """Yield, for every page, layer and head, how far a key is from the nearest kept one.

        It is 1 minus the cosine, mean over all visual keys.
        """
        for page in pages:
            for keys, heads in zip(page.keys, self.kept(page, entry), strict=True):
                for mine, chosen in zip(keys[:, page.visual], heads, strict=True):
                    unit = torch.nn.functional.normalize(mine, dim=-1)
                    if chosen:
                        yield float(1 - (unit @ unit[chosen].T).amax(-1).mean())


def plane(keys: Float[Tensor, "T D"]) -> tuple[list[Numbers], float]:
    """Return the keys on their two main axes, and the share of the variance on these."""
    centred = (keys - keys.mean(0)).double()
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    largest = axes.gather(-1, axes.abs().argmax(-1, keepdim=True))
    points = centred @ (axes * largest.sign())[:2].T  # the signs of axes are anybody's choice
    share = sizes[:2].square().sum() / sizes.square().sum()
    return [[round(float(x), 3) for x in point] for point in points], round(float(share), 4)


def attended(page: Seen) -> Iterator[tuple[str, Numbers]]:
    """Yield shares of attention per layer: of the question and the answer, to image and text."""
    prompt = len(page.visual)
    behind = int(page.visual.nonzero().max()) + 1
    rows = {
        "question": [layer[:, behind:] for layer in page.attention[0]],
        "answer": [
            torch.cat([step[n][..., :prompt] for step in page.attention[1:]], 1)
            for n in range(len(page.keys))
        ],
    }
    for name, layers in rows.items():
        image = [float(a[..., page.visual].sum(-1).mean()) for a in layers]
        before = [float(a[..., :behind][..., ~page.visual[:behind]].sum(-1).mean()) for a in layers]
        yield f"{name} to image", image
        yield f"{name} to text before it", before
        yield f"{name} to text behind it", [1 - a - b for a, b in zip(image, before, strict=True)]


def divergence(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the Jensen-Shannon divergence of two rows of shares, from 0 to 1.

    >>> divergence([1, 1], [1, 1]), divergence([2, 0], [0, 3])
    (0.0, 1.0)
    """
    p, q = (torch.tensor(x, dtype=torch.float64) / sum(x) for x in (one, other))
    m = (p + q) / 2
    halves = [torch.special.xlogy(x, x / m).nan_to_num().sum() for x in (p, q)]
    return float((halves[0] + halves[1]) / 2 / torch.log(torch.tensor(2.0, dtype=torch.float64)))


def _mean(pages: Sequence[Any]) -> Any:
    """Return lists of numbers averaged over pages."""
    mean = torch.tensor(pages, dtype=torch.float64).mean(0)
    return torch.round(mean, decimals=5).tolist()


def averaged(pages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return lists of numbers by name, averaged over pages."""
    return {name: _mean([page[name] for page in pages]) for name in pages[0]}
