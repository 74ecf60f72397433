"""What is trained, in which order, for how long: plain data, saved next to the checkpoint."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foveate.tiny.batches import Scope

CHECKPOINT = Path(__file__).with_name("checkpoint")
ROWS = (("rows", 1.0),)
MIXED = (("rows", 0.4), ("columns", 0.2), ("receipt", 0.15), ("table", 0.25))


@dataclass(frozen=True)
class Stage:
    """One step of the curriculum; it ends at `steps`, or once look-up is better than `promote`."""

    name: str
    scope: Scope
    tokens: int
    steps: int
    promote: float | None = 0.9
    least: int = 50
    replay: float = 0.2
    rate: tuple[float, float] = (1.0, 1.0)
    ahead: float = 0.0  # weight of the loss on tokens further ahead


@dataclass(frozen=True)
class Recipe:
    """Seed, model size, optimiser settings and the stages in order."""

    stages: tuple[Stage, ...]
    seed: int = 1
    layers: int = 6
    hidden: int = 128
    workers: int = 2
    muon: float = 0.02
    adamw: float = 3e-3
    warmup: int = 100
    clip: float = 1.0
    distances: int = 5  # that multi-token prediction looks ahead, from two tokens on

    def save(self, path: Path) -> None:
        """Write the recipe as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a recipe that `save` wrote."""
        raw = json.loads(path.read_text())
        stages = tuple(
            Stage(**{**s, "scope": _scope(s["scope"]), "rate": tuple(s["rate"])})
            for s in raw.pop("stages")
        )
        return cls(stages=stages, **raw)


def _scope(raw: dict[str, Any]) -> Scope:
    nested: dict[str, Any] = {name: tuple(map(tuple, raw[name])) for name in ("grids", "layouts")}
    plain: dict[str, Any] = {
        name: tuple(raw[name]) for name in ("keys", "values", "pages", "skills") if name in raw
    }
    return Scope(**{**raw, **nested, **plain})
