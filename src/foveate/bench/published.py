"""What papers report of time and memory, number by number, with the table each one is from.

Figures without printed numbers are here only as far as the text beside them states a number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

FULL = "full cache"
PREFILL, DECODE, RATE, BYTES, TOTAL, PEAK = (
    "prefill, s",
    "decode, s",
    "tokens/s",
    "cache, GiB",
    "prefill and decode",
    "peak memory",
)


@dataclass(frozen=True)
class Variant:
    """A method at a share kept; its numbers are seen as a ratio to the variant `over`."""

    name: str
    method: str
    keep: float
    over: str = FULL

    @property
    def label(self) -> str:
        """Return the name, and what it is compared with if that is no full cache."""
        return self.name if self.over == FULL else f"{self.name} / {self.over}"


@dataclass(frozen=True)
class Point:
    """A batch of prompts, and what a paper prints of it: quantity, then variant.

    `ratios` are printed as such; all others follow from `figures`.
    """

    batch: int
    prompt: int
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def ratio(self, quantity: str, variant: Variant) -> float | None:
        """Return a variant's printed number over the one of what it is compared with."""
        if variant.name in self.ratios.get(quantity, {}):
            return self.ratios[quantity][variant.name]
        printed = self.figures.get(quantity, {})
        if variant.name not in printed or variant.over not in printed:
            return None
        return printed[variant.name] / printed[variant.over]


@dataclass(frozen=True)
class Grid:
    """The points of one model in one table; `notes` say what the paper leaves open."""

    model: str  # a name in `SHAPES`
    source: str
    steps: int  # generated tokens
    variants: tuple[Variant, ...]
    points: tuple[Point, ...]
    notes: str = ""


HALF, TENTH = Variant("50 %", "aircache", 0.5), Variant("10 %", "aircache", 0.1)
AIRCACHE = (HALF, TENTH)


def _rows(*rows: tuple[float, ...]) -> Iterator[Point]:
    """Yield points from rows of AirCache's efficiency tables.

    Batch, prompt in units of 1,024 tokens; seconds of prefill, full and compressed; seconds of
    decoding and tokens per second, at full cache, 50 % and 10 %.
    """
    kept = [variant.name for variant in AIRCACHE]
    for batch, units, full, ours, *rest in rows:
        yield Point(
            int(batch),
            int(units) * 1024,
            {
                PREFILL: {FULL: full, **dict.fromkeys(kept, ours)},
                DECODE: dict(zip((FULL, *kept), rest[:3], strict=True)),
                RATE: dict(zip((FULL, *kept), rest[3:], strict=True)),
            },
        )


GRIDS = {
    "aircache-qwen2-vl": Grid(
        "Qwen2-VL-7B",
        "AirCache (arXiv 2503.23956), Table 10, rows Qwen2-VL-7B",
        512,
        AIRCACHE,
        tuple(
            _rows(
                (8, 2, 1.1, 1.3, 8.4, 6.6, 5.2, 488, 621, 788),
                (8, 8, 4.3, 4.7, 12.6, 9.7, 8.1, 325, 422, 506),
                (8, 16, 9.4, 10.2, 23.7, 14.9, 11.2, 173, 275, 366),
                (8, 32, 22.7, 24.0, 45.0, 26.2, 14.6, 91, 156, 214),
                (16, 2, 2.1, 2.3, 10.1, 6.8, 5.2, 811, 1205, 1575),
                (16, 8, 8.6, 9.2, 19.7, 12.1, 8.4, 426, 677, 975),
                (16, 16, 19.2, 20.1, 27.0, 15.6, 9.7, 303, 525, 845),
            )
        ),
        "batch 8, 32k, 10 %: 214 tokens/s are printed where the seconds give 280",
    ),
    "aircache-internvl2": Grid(
        "InternVL2-8B",
        "AirCache (arXiv 2503.23956), Table 10, rows InternVL2-8B",
        512,
        AIRCACHE,
        tuple(
            _rows(
                (8, 2, 1.2, 1.4, 9.3, 7.0, 5.9, 440, 585, 694),
                (8, 8, 4.6, 5.0, 13.3, 10.5, 8.8, 308, 390, 465),
                (8, 16, 9.8, 10.5, 24.8, 15.7, 11.9, 165, 261, 344),
                (8, 32, 23.8, 24.8, 46.2, 28.1, 18.2, 89, 146, 225),
                (16, 2, 2.5, 2.7, 12.2, 7.4, 6.0, 671, 1107, 1365),
                (16, 8, 9.9, 10.6, 21.6, 12.9, 8.9, 379, 635, 920),
                (16, 16, 21.6, 22.4, 28.5, 16.2, 10.0, 287, 506, 819),
            )
        ),
    ),
    "aircache-llava-ov": Grid(
        "LLaVA-OneVision-7B",
        "AirCache (arXiv 2503.23956), Table 3",
        512,
        AIRCACHE,
        tuple(
            _rows(
                (8, 2, 1.6, 1.8, 11.6, 9.4, 8.2, 353, 436, 500),
                (8, 8, 4.9, 5.3, 15.0, 11.9, 9.4, 273, 344, 436),
                (8, 16, 11.3, 11.9, 21.7, 15.0, 10.4, 189, 273, 394),
                (8, 32, 25.2, 26.4, 35.9, 22.0, 12.3, 114, 186, 333),
                (16, 2, 2.3, 2.5, 14.4, 11.2, 9.7, 569, 731, 845),
                (16, 8, 9.4, 9.8, 22.6, 15.6, 11.8, 362, 525, 694),
                (16, 16, 20.3, 21.4, 36.9, 23.0, 12.8, 222, 356, 640),
            )
        ),
    ),
    "lookm": Grid(
        "LLaVA-1.5-7B",
        "LOOK-M (arXiv 2406.18139), Table 4",
        128,
        (Variant("20 %", "lookm", 0.2), Variant("5 %", "lookm", 0.05)),
        (
            Point(
                1,
                3072,
                {
                    DECODE: {FULL: 128 * 0.02816, "20 %": 128 * 0.02098, "5 %": 128 * 0.01822},
                    RATE: {FULL: 1000 / 28.16, "20 %": 1000 / 20.98, "5 %": 1000 / 18.22},
                    BYTES: {FULL: 1.52, "20 %": 0.32, "5 %": 0.13},
                },
            ),
        ),
        "milliseconds per token are printed; lengths are not, and 1.52 GiB of this model's cache "
        "are 3,113 tokens: 3,072 and 128 generated ones are taken",
    ),
    "mixkv": Grid(
        "Qwen2-VL-7B",
        "MixKV (arXiv 2510.20707), Figures 4 and 5, and the text beside them",
        128,
        (
            Variant("SnapKV", "snapkv", 0.1),
            Variant("SnapKV + MixKV", "mixkv+snapkv", 0.1, over="SnapKV"),
            Variant("AdaKV", "adakv", 0.1),
            Variant("AdaKV + MixKV", "mixkv+adakv", 0.1, over="AdaKV"),
        ),
        tuple(
            Point(
                1,
                prompt,
                ratios={
                    TOTAL: dict.fromkeys(("SnapKV + MixKV", "AdaKV + MixKV"), 1.01),
                    PEAK: dict.fromkeys(("SnapKV + MixKV", "AdaKV + MixKV"), 1.0),
                },
            )
            for prompt in (8192, 32768)
        ),
        "the figures are plots; the text says that MixKV adds less than 1 % of time to its host "
        "and no peak memory that one can measure; lengths and share are chosen here",
    ),
}
