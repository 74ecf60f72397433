"""The calibration curve of keep="auto": the share of attention asked for, and what comes of it."""

from __future__ import annotations

from foveate.eval.entry import Entry
from foveate.eval.studies.parts import tasks, visual
from foveate.eval.study import Layout, Study

__all__ = ["AUTO"]

MASSES = (0.5, 0.7, 0.8, 0.9, 0.95)
WHOLE = (0.4, 0.5, 0.6, 0.7)
OF_LAYERS = "{} {:.0%} in every layer"
OF_MODEL = "foveate {:.0%} over the model"
FAMILIES = ("long", "row", "second")


def entries() -> tuple[Entry, ...]:
    """Return the preset of ours at shares per layer and over the model, and SnapKV per layer."""
    asked = [("foveate", mass) for mass in MASSES] + [("snapkv", mass) for mass in MASSES[2:]]
    return (
        *(visual(name, OF_LAYERS.format(name, mass), mass=mass) for name, mass in asked),
        *(visual("foveate", OF_MODEL.format(mass), mass=mass, over="model") for mass in WHOLE),
    )


AUTO = Study(
    name="auto",
    answers="What share of attention has to be asked for, what is kept, and what is right then?",
    tasks=tasks(256, FAMILIES),
    entries=entries(),
    keeps=("auto",),
    layouts=(
        Layout("kept", "Share of visual tokens kept", columns=("task",), shows="kept"),
        Layout("right", "Right answers", columns=("task",), together=True),
    ),
    reference=OF_LAYERS.format("foveate", 0.95),
    curves={
        "foveate, in every layer": {mass: OF_LAYERS.format("foveate", mass) for mass in MASSES},
        "foveate, over the model": {mass: OF_MODEL.format(mass) for mass in WHOLE},
        "snapkv, in every layer": {mass: OF_LAYERS.format("snapkv", mass) for mass in MASSES[2:]},
    },
)
