"""How answers are judged: by the formulas of the harnesses, one score between 0 and 1 for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from foveate.errors import InputError
from foveate.eval.metrics import milebench, overlap, screen, strings, vqa
from foveate.eval.task import Metric

__all__ = ["METRICS", "metric"]

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        known.name: known
        for known in (
            Metric("exact", strings.exact),
            Metric("anls", strings.anls),
            Metric("relaxed", strings.relaxed),
            Metric("substring", strings.substring),
            Metric("vqa", vqa.vqa, vqa.fault),
            Metric("rouge_l", overlap.rouge_l),
            Metric("box_hit", screen.box_hit, screen.fault),
            Metric("box_hit_1000", screen.box_hit_1000, screen.fault),
            Metric("milebench_rouge_l", milebench.rouge_l, milebench.wordless),
            Metric("milebench_options", milebench.options, milebench.fault),
            Metric("milebench_word", milebench.word, milebench.wordless),
            Metric("milebench_part", milebench.part, milebench.wordless),
        )
    }
)


def metric(name: str) -> Metric:
    """Return the metric of that name."""
    if name not in METRICS:
        raise InputError(f"unknown metric {name!r}; choose from {', '.join(METRICS)}")
    return METRICS[name]
