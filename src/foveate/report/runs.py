"""One method at one budget: what it answers, keeps and costs, and who observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.cache.report import CacheReport, LayerReport
from foveate.cli.answers import Answer, told
from foveate.cli.models import Loaded
from foveate.errors import FoveateError
from foveate.eval.fidelity import Reference, fidelity
from foveate.method import Method
from foveate.report.bits import packed, shades
from foveate.report.shown import Shown
from foveate.report.window import noting
from foveate.report.words import difference

__all__ = ["Asked", "failed", "held", "look"]


@dataclass(frozen=True, eq=False)
class Asked:
    """A prompt, what the full cache makes of it, and how methods are to be asked the same."""

    loaded: Loaded
    inputs: Any
    shown: Shown
    full: Answer
    reference: Sequence[Reference] | None
    max_new_tokens: int
    settings: Mapping[str, Any]

    def full_values(self) -> dict[str, Any]:
        """Return what the full cache answers and costs, as plain values."""
        return _costs(self.full)

    def run(self, method: Method) -> dict[str, Any]:
        """Return what one method answers, keeps and costs, as plain values."""
        watched, members = noting(method)
        found = told(self.loaded, self.inputs, watched, self.max_new_tokens, **self.settings)
        report = found.report
        assert report is not None
        values = {
            **_costs(found.answer),
            **held(report, self.shown, members),
            "late": method.when.follow is not None,
            "parts": difference(self.full.text, found.answer.text),
        }
        if self.reference is not None:
            values["fidelity"] = fidelity(
                self.loaded.model,
                self.inputs,
                method,
                said_ids=[found.ids],
                reference=self.reference,
                **self.settings,
            )[0].to_dict()
        return values


def held(report: CacheReport, shown: Shown, members: Mapping[int, Tensor]) -> dict[str, Any]:
    """Return what a cache holds of a prompt, and who observed, as plain values."""
    kept = kept_marks(report, len(shown.ids))  # [N, h, T]
    return {
        "bytes_peak": report.bytes_peak,
        "seconds": report.seconds,
        "notes": list(report.notes),
        "layers": [_layer(one) for one in report.layers],
        "heads": kept.shape[1],
        "kept_visual": packed(kept[..., shown.visual]),
        "kept_text": packed(kept[..., shown.text]),
        "window": _window(shown, members, [one.layer for one in report.layers]),
    }


def _window(shown: Shown, members: Mapping[int, Tensor], layers: Sequence[int]) -> str | None:
    """Return which text tokens observed in each layer; None where no window chose."""
    if not members:
        return None
    T = len(shown.ids)
    nobody = torch.zeros(T, dtype=torch.bool)
    marks = torch.stack([members[i][0, :T] if i in members else nobody for i in layers])
    return packed(marks[:, shown.text])


def kept_marks(report: CacheReport, length: int, row: int = 0) -> Tensor:
    """Return which prompt positions one row keeps [N, H, T]; H is 1 where all heads keep alike."""
    marks = torch.zeros(len(report.layers), report.heads, length, dtype=torch.bool)
    for number, one in enumerate(report.layers):
        for head in range(report.heads):
            marks[number, head, report.kept(one.layer, row, head)] = True
    alike = bool((marks == marks[:, :1]).all())
    return marks[:, :1] if alike else marks


def failed(error: FoveateError) -> dict[str, Any]:
    """Return what is said of a run that came to nothing."""
    return {"error": str(error)}


def look(reference: Sequence[Reference] | None) -> dict[str, Any] | None:
    """Return what the full cache looks at while it answers: shades of visual tokens per layer.

    A layer's shades are of its largest weight, which is a share of all that was given to the
    prompt; `visual` is the share that fell on visual tokens.
    """
    if reference is None:
        return None
    row = reference[0]
    given = torch.stack([layer.sum(0) for _, layer in sorted(row.attention.items())])  # [N, T]
    given = given / given.sum(-1, keepdim=True).clamp(min=1e-12)
    seen = given[:, row.visual]
    if not seen.shape[-1]:
        return None
    most = seen.amax(-1)
    return {
        "shades": shades(seen / most.clamp(min=1e-12)[:, None]),
        "most": [round(value, 6) for value in most.tolist()],
        "visual": [round(value, 6) for value in seen.sum(-1).tolist()],
    }


def _costs(answer: Answer) -> dict[str, Any]:
    """Return answer, tokens, bytes and times."""
    values = answer.to_dict()
    del values["layers"], values["notes"]
    return {"answer": values.pop("text"), **values}


def _layer(one: LayerReport) -> dict[str, Any]:
    """Return the numbers of a layer of a single prompt."""
    numbers = {
        name: value.float().mean().item()
        for name, value in one.explain.items()
        if isinstance(value, Tensor) and value.numel() and name != "fallback"
    }
    return {
        "layer": one.layer,
        "visual": one.kept_visual,
        "text": one.kept_text,
        "bytes": one.bytes_stored,
        "bytes_full": one.bytes_full,
        "storage": one.storage,
        "seconds": one.seconds,
        "numbers": {name: round(value, 4) for name, value in numbers.items()},
    }
