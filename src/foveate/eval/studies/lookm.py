"""The tables of LOOK-M (arXiv 2406.18139), on the embedded model."""

from __future__ import annotations

from foveate.eval.entry import Entry
from foveate.eval.studies import printed
from foveate.eval.studies.parts import tasks
from foveate.eval.study import Layout, Study

__all__ = ["ALPHAS", "EXTREME"]

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the newest tokens in what is kept
KEPT = 0.2
FAMILIES = ("long", "several", "second", "pages2")
ROCO = {"variant": "lookm", "every": 0}  # as LOOK-M's program has it


def variants() -> tuple[Entry, ...]:
    """Return LOOK-M's rows: three ways of folding, without and with the text prior."""
    named = {"averaged": "A-Merge", "weighted": "W-Merge", "pivotal": "P-Merge"}
    return tuple(
        Entry(
            "lookm",
            {"merge": merge, "text_prior": prior},
            f"lookm ({'TP + ' if prior else ''}{name})",
        )
        for prior in (False, True)
        for merge, name in named.items()
    )


EXTREME = Study(
    name="lookm-extreme",
    answers="What is left at 20 % and at 1 % of all tokens, text included?",
    tasks=tasks(256, FAMILIES),
    entries=(
        Entry("h2o", {"every": 0}, "h2o"),
        Entry("snapkv"),
        Entry("roco", ROCO, "roco (as LOOK-M has it)"),
        *variants(),
    ),
    keeps=(KEPT, 0.01),
    layouts=(
        Layout(
            "table-1", "20 % of all tokens kept", columns=("task",), keeps=(KEPT,), together=True
        ),
        Layout(
            "table-6", "1 % of all tokens kept", columns=("task",), keeps=(0.01,), together=True
        ),
        Layout("stored", "Bytes stored / full cache", columns=("keep",), shows="bytes"),
    ),
    printed=(printed.LOOKM_1, printed.LOOKM_6),
)


def mixtures(share: float) -> tuple[Entry, ...]:
    """Return the methods whose budget has a part for the newest tokens, at that part."""
    newest = round(share * KEPT, 4)
    ratio = f"{round(10 * share)}:{round(10 - 10 * share)}"
    return (
        Entry("h2o", {"recent": share, "every": 0}, f"{ratio} on h2o"),
        Entry("lookm", {"alpha1": newest}, f"{ratio} on lookm (TP + P-Merge)"),
        Entry("lookm", {"alpha1": newest, "text_prior": False}, f"{ratio} on lookm (P-Merge)"),
        Entry("lookm", {"alpha1": newest, "merge": "none"}, f"{ratio} on lookm (no merging)"),
    )


ALPHAS = Study(
    name="lookm-alphas",
    answers="How much of LOOK-M's budget should the newest tokens have?",
    tasks=tasks(256, FAMILIES),
    entries=tuple(entry for share in SHARES for entry in mixtures(share)),
    keeps=(KEPT,),
    layouts=(
        Layout("figure-6", "Newest : important, 20 % kept", ("host",), ("setting",)),
        Layout("figure-6-tasks", "By task", ("task", "host"), ("setting",)),
    ),
    reference="5:5",
)
