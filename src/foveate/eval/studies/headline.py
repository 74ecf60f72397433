"""Every preset at every budget on every family of tasks."""

from __future__ import annotations

import foveate
from foveate.eval.entry import Entry
from foveate.eval.studies.parts import measured, tasks, visual
from foveate.eval.study import Layout, Study

__all__ = ["HEADLINE"]

APART = ("full", "mixkv")  # a cell of every study; and below, with its hosts
FAMILIES = (
    "lookup", "long", "row", "column", "reverse", "count", "several", "second", "before",
    "pages2", "pages4",
)  # fmt: skip
DRAWN = (
    "foveate", "aircache", "snapkv", "mixkv+snapkv", "sparsemm (head table)", "cake", "h2o",
    "random",
)  # fmt: skip


def entries() -> tuple[Entry, ...]:
    """Return every preset with its defaults, and the variants that are worth a row."""
    rows = []
    for info in foveate.methods():
        counted = any(option.name == "scope" for option in info.options)
        if info.name not in APART:
            rows.append(visual(info.name) if counted else Entry(info.name))
    heads = measured("heads")  # with the total of all others: the rest is redistributed
    return (
        *rows,
        *(visual(f"mixkv+{host}") for host in ("snapkv", "pyramidkv", "adakv")),
        visual("sparsemm", "sparsemm (head table)", table=heads, redistribute=True),
        visual(
            "mixkv+sparsemm", "mixkv+sparsemm (head table)", host_table=heads, redistribute=True
        ),
        visual(
            "snapkv",
            "snapkv (literal window and pooling)",
            window_of="any",
            pool_over="sequence",
        ),
        visual("lookm", "lookm (no merging)", merge="none"),
        visual("aircache", "aircache (neighbours)", neighbours="line"),
    )


HEADLINE = Study(
    name="headline",
    answers="Which method keeps most answers right at which budget, on which kind of question?",
    tasks=tasks(256, FAMILIES),
    entries=entries(),
    keeps=(0.5, 0.2, 0.1, 0.05, 0.01),
    number=300,
    layouts=(
        Layout("all", "All families together", columns=("keep",), ordered=True),
        *(
            Layout(family, family, columns=("keep",), families=(family,), ordered=True)
            for family in FAMILIES
        ),
        Layout("families", "At 10 %", columns=("family",), keeps=(0.1,), ordered=True),
        Layout(
            "beside",
            f"Of {len(FAMILIES)} families, how many a method is better and worse in than `foveate`",
            columns=("keep",),
            shows="tasks",
            entries=tuple(entry.label for entry in entries() if entry.label != "foveate"),
            beside="foveate",
            ordered=True,
        ),
        Layout("stored", "Bytes stored / full cache", columns=("keep",), shows="bytes"),
    ),
    picture=DRAWN,
)
