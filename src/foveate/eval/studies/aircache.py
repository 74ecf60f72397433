"""The tables of AirCache (arXiv 2503.23956), on the embedded model."""

from __future__ import annotations

from foveate.eval.entry import Entry
from foveate.eval.studies import printed
from foveate.eval.studies.parts import tasks, visual
from foveate.eval.studies.single import Single
from foveate.eval.study import Layout, Study

__all__ = ["ALPHA", "BUDGET", "MERGE", "SINGLE", "SIZES", "WINDOW"]

COMPARED = ("h2o", "elastic", "prefixkv", "snapkv", "aircache")
SWEPT = (0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
MERGED = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
# Of 256 tokens 1 % are 3, with which hardly an answer survives: 20 % tell more.
LOW = (0.2, 0.1, 0.01)

SIZES = Study(
    name="aircache-sizes",
    answers="How do five methods compare at four budgets, and does it depend on the page's size?",
    tasks=(*tasks(144), *tasks(256), *tasks(576)),
    entries=tuple(visual(preset) for preset in COMPARED),
    keeps=(0.5, 0.1, 0.05, 0.01),
    layouts=(
        Layout(
            "table-9",
            "Visual tokens of a page in place of sizes of models",
            rows=("tokens", "entry"),
            columns=("family", "keep"),
            together=True,
        ),
    ),
    printed=(printed.AIRCACHE_9, printed.AIRCACHE_1),
)

ALPHA = Study(
    name="aircache-alpha",
    answers="Which relevance threshold chooses the best window of AirCache?",
    tasks=tasks(256),
    entries=tuple(Entry("aircache", {"alpha": alpha}, f"{alpha:g}") for alpha in SWEPT),
    keeps=LOW,
    layouts=(
        Layout("table-13", "Threshold", ("task", "keep"), ("entry",)),
        Layout("table-13-all", "Threshold, all tasks", ("keep",), ("entry",)),
    ),
    reference="0.9",
    printed=(printed.AIRCACHE_13,),
)

MERGE = Study(
    name="aircache-merge",
    answers="Is it better to merge dropped tokens into kept ones, or to drop them?",
    tasks=tasks(256),
    entries=tuple(Entry("aircache", {"merge": share}, f"{share:.0%}") for share in MERGED),
    keeps=LOW,
    layouts=(
        Layout("table-12", "Share that is merged", ("task", "keep"), ("entry",)),
        Layout("table-12-all", "Share that is merged, all tasks", ("keep",), ("entry",)),
    ),
    reference="0%",
    printed=(printed.AIRCACHE_12,),
)

WINDOW = Study(
    name="aircache-window",
    answers="Who should observe: the elite, the last rows, all text, or visual tokens?",
    tasks=tasks(256),
    entries=(
        Entry("aircache", {"window": "contiguous", "window_rows": 16}, "contiguous, 16 rows"),
        Entry("aircache", {"window": "contiguous", "window_rows": 32}, "contiguous, 32 rows"),
        Entry("aircache", {"window": "all_text"}, "all text"),
        Entry("aircache", {"window": "last_visual"}, "last 32 visual"),
        Entry("aircache", {}, "elite"),
    ),
    keeps=LOW,
    layouts=(Layout("table-5", "Window", columns=("keep", "task"), together=True),),
    reference="elite",
    printed=(printed.AIRCACHE_5_WINDOW,),
)

BUDGET = Study(
    name="aircache-budget",
    answers="How should layers share the budget?",
    tasks=tasks(256),
    entries=(
        Entry("aircache", {"budget": "uniform"}, "uniform"),
        Entry("aircache", {"budget": "pyramid"}, "pyramid"),
        Entry("aircache", {"budget": "strength"}, "strength"),
        Entry("aircache", {"budget": "skewness"}, "skewness"),
        Entry("aircache", {}, "both"),
    ),
    keeps=LOW,
    layouts=(Layout("table-5", "Layer budgets", columns=("keep", "task"), together=True),),
    reference="both",
    printed=(printed.AIRCACHE_5_BUDGET,),
)

SINGLE = Study(
    name="aircache-single",
    answers="What is one visual token worth, over its place in a method's order?",
    tasks=tasks(144, ("long", "row", "column", "reverse")),  # of one turn, where it is measured
    entries=tuple(Single(preset, {"scope": "visual"}, preset) for preset in COMPARED),
    keeps=(1, 2, 4, 8, 16, 32, 64, 128),
    layouts=(
        Layout("kl", "KL(full || one token), nats", columns=("keep",), shows="kl"),
        Layout("figure-6", "Right answers", columns=("keep",)),
    ),
    picture=COMPARED,
    draws="kl",
    across="place in the order",
    fidelity=True,
)
