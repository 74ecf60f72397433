"""Scores that papers print for their models and tasks, as facts to lay beside ours."""

from __future__ import annotations

from foveate.eval.study import Printed

__all__ = [
    "AIRCACHE_1",
    "AIRCACHE_5_BUDGET",
    "AIRCACHE_5_WINDOW",
    "AIRCACHE_9",
    "AIRCACHE_12",
    "AIRCACHE_13",
    "AIRCACHE_14",
    "LOOKM_1",
    "LOOKM_6",
    "MIXKV_1",
    "MIXKV_4",
]

AIRCACHE = "AirCache (arXiv 2503.23956)"
MIXKV = "MixKV (arXiv 2510.20707)"
LOOKM = "LOOK-M (arXiv 2406.18139)"
VQA = ("ChartQA", "InfoVQA", "DocVQA", "TextVQA")
SHARES = ("50%", "10%", "5%", "1%")


def lines(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the rows of a table whose cells are separated by bars."""
    return tuple(
        tuple(cell.strip() for cell in line.split("|")) for line in text.strip().splitlines()
    )


def spread(text: str) -> tuple[tuple[str, ...], ...]:
    """Return rows of a name and groups such as "79.8/77.4/74.0/71.0", one number a cell."""
    return tuple(
        (name, *(number.strip() for group in groups for number in group.split("/")))
        for name, *groups in lines(text)
    )


AIRCACHE_1 = Printed(
    "printed-1",
    "LLaVA-OneVision-7B",
    f"Printed by {AIRCACHE}, Table 1, for LLaVA-OneVision-7B: another model, other tasks.",
    ("method", *(f"{data} {share}" for data in VQA for share in SHARES)),
    spread("""
full cache | 80.3/80.3/80.3/80.3 | 66.1/66.1/66.1/66.1 | 87.0/87.0/87.0/87.0 | 76.0/76.0/76.0/76.0
H2O | 79.8/77.4/74.0/71.0 | 65.4/59.2/54.2/52.0 | 86.4/74.2/60.8/55.3 | 75.5/70.1/67.9/60.4
Elastic | 80.0/77.9/76.5/71.0 | 65.3/60.5/57.2/52.0 | 86.6/74.2/60.8/55.3 | 75.5/72.0/68.7/60.2
PrefixKV | 80.1/78.2/76.8/70.9 | 65.4/61.1/58.0/51.9 | 86.6/80.5/74.7/55.4 | 75.8/72.7/70.0/60.2
SnapKV | 80.1/79.3/78.3/72.9 | 66.1/64.2/63.0/57.8 | 86.9/84.4/80.6/64.1 | 75.8/73.4/69.5/58.2
AirCache | 80.4/79.9/79.4/76.4 | 66.0/65.7/64.6/62.5 | 86.8/85.5/83.3/73.2 | 76.0/75.3/73.4/67.1
"""),
)

AIRCACHE_9 = Printed(
    "printed-9",
    "InternVL2-1B",
    f"Printed by {AIRCACHE}, Table 9, for InternVL2-1B: another model, other tasks.",
    ("method", *(f"{data} {share}" for data in VQA for share in SHARES)),
    spread("""
full cache | 67.9/67.9/67.9/67.9 | 50.1/50.1/50.1/50.1 | 80.0/80.0/80.0/80.0 | 70.8/70.8/70.8/70.8
H2O | 67.7/62.0/57.7/53.5 | 50.0/42.7/38.8/33.7 | 79.8/73.8/68.2/57.0 | 70.1/58.4/52.3/47.6
Elastic | 67.5/61.8/57.6/54.1 | 50.1/42.6/39.7/32.2 | 79.8/74.0/68.8/57.5 | 70.3/59.8/54.7/47.2
PrefixKV | 67.9/62.1/58.0/53.3 | 49.9/43.8/40.6/34.2 | 79.7/74.3/70.4/59.6 | 70.1/60.7/55.3/48.6
SnapKV | 67.8/63.7/59.8/56.7 | 50.1/47.3/44.4/39.7 | 79.8/76.5/72.1/61.2 | 70.4/64.5/60.7/52.2
AirCache | 67.8/65.7/63.5/60.8 | 50.1/49.6/47.5/45.8 | 80.0/77.7/74.3/68.5 | 70.6/68.9/66.5/59.3
"""),
)

AIRCACHE_13 = Printed(
    "printed-13",
    "The same thresholds in the paper",
    f"Printed by {AIRCACHE}, Table 13: another model, other tasks.",
    ("task", "kept", "0.99", "0.95", "0.9", "0.85", "0.8", "0.75", "0.7", "0.65", "0.6"),
    lines("""
ChartQA | 10% | 78.4 | 79.8 | 79.9 | 79.6 | 78.7 | 78.6 | 78.1 | 77.5 | 77.7
ChartQA | 1% | 75.8 | 76.5 | 76.4 | 76.2 | 75.5 | 74.1 | 73.3 | 72.9 | 71.5
InfoVQA | 10% | 65.1 | 65.5 | 65.7 | 65.7 | 65.0 | 63.7 | 62.2 | 61.6 | 59.4
InfoVQA | 1% | 61.9 | 62.3 | 62.5 | 62.4 | 61.2 | 58.6 | 55.4 | 53.7 | 52.2
DocVQA | 10% | 82.4 | 85.6 | 85.5 | 84.7 | 81.3 | 78.8 | 76.1 | 75.5 | 74.8
DocVQA | 1% | 71.2 | 72.8 | 73.2 | 72.9 | 70.0 | 65.5 | 61.8 | 58.9 | 55.6
TextVQA | 10% | 73.4 | 75.0 | 75.3 | 75.4 | 74.6 | 74.0 | 73.3 | 72.5 | 71.4
TextVQA | 1% | 65.5 | 67.2 | 67.1 | 66.8 | 65.2 | 64.7 | 63.5 | 62.4 | 61.2
"""),
)

AIRCACHE_12 = Printed(
    "printed-12",
    "The same shares in the paper",
    f"Printed by {AIRCACHE}, Table 12: another model, other tasks.",
    ("task", "kept", "100%", "80%", "60%", "40%", "20%", "0%"),
    lines("""
ChartQA | 10% | 76.4 | 77.0 | 77.4 | 78.6 | 79.2 | 79.9
ChartQA | 1% | 72.2 | 73.6 | 74.2 | 75.5 | 76.1 | 76.4
InfoVQA | 10% | 61.1 | 63.7 | 64.5 | 64.9 | 65.5 | 65.7
InfoVQA | 1% | 56.4 | 57.6 | 58.8 | 60.4 | 61.8 | 62.5
DocVQA | 10% | 80.3 | 81.6 | 82.7 | 83.8 | 84.3 | 85.5
DocVQA | 1% | 67.0 | 68.9 | 70.5 | 71.8 | 72.6 | 73.2
TextVQA | 10% | 68.8 | 70.6 | 72.2 | 73.7 | 74.6 | 75.3
TextVQA | 1% | 59.7 | 61.8 | 63.2 | 65.3 | 66.6 | 67.1
"""),
)

AIRCACHE_5_WINDOW = Printed(
    "printed-5",
    "The same windows in the paper, 1 %",
    f"Printed by {AIRCACHE}, Table 5, for LLaVA-OneVision-7B: another model, other tasks.",
    ("window", *VQA),
    spread("""
contiguous, 16 rows | 70.4/56.6/61.3/55.9
contiguous, 32 rows | 72.9/57.8/64.1/58.2
all text | 72.2/58.4/65.7/57.0
last 32 visual | 68.8/55.1/59.2/53.7
elite | 76.4/62.5/73.2/67.1
"""),
)

AIRCACHE_5_BUDGET = Printed(
    "printed-5",
    "The same layer budgets in the paper, 1 %",
    f"Printed by {AIRCACHE}, Table 5, for LLaVA-OneVision-7B: another model, other tasks.",
    ("layers", *VQA),
    spread("""
uniform | 72.2/57.5/69.9/62.4
pyramid | 69.6/54.9/55.8/52.6
strength | 74.2/59.8/71.1/64.9
skewness | 74.7/61.4/71.9/63.6
both | 76.4/62.5/73.2/67.1
"""),
)

AIRCACHE_14 = Printed(
    "printed-14",
    "The same divergences in the paper",
    f"Printed by {AIRCACHE}, Table 14: another model, other tasks.",
    ("kept", "layer budgets", *VQA),
    lines("""
10% | uniform and strength | 0.46 | 0.54 | 0.61 | 0.57
10% | uniform and skewness | 0.53 | 0.49 | 0.58 | 0.55
10% | strength and skewness | 0.62 | 0.58 | 0.63 | 0.52
1% | uniform and strength | 0.51 | 0.58 | 0.63 | 0.59
1% | uniform and skewness | 0.57 | 0.52 | 0.60 | 0.58
1% | strength and skewness | 0.68 | 0.61 | 0.59 | 0.57
"""),
)

MIXKV_1 = Printed(
    "printed-1",
    "Qwen2-VL-7B",
    f"Printed by {MIXKV}, Table 1, for Qwen2-VL-7B: another model, other tasks; TextCaps is CIDEr.",
    (
        "method",
        *(
            f"{data} {tokens}"
            for data in ("DocVQA", "OCRBench", "TextVQA", "ChartQA", "TextCaps")
            for tokens in (256, 128, 64)
        ),
    ),
    spread("""
SnapKV | 88.0/80.1/66.5 | 77.3/71.9/62.4 | 80.3/77.5/69.9 | 81.3/79.6/75.5 | 1.360/1.142/0.794
+ MixKV | 90.5/82.6/67.9 | 79.3/75.4/66.0 | 81.9/80.6/72.5 | 81.6/81.2/77.6 | 1.470/1.342/0.878
PyramidKV | 81.7/74.0/59.9 | 74.5/67.9/56.8 | 78.3/74.6/65.3 | 81.1/79.2/73.5 | 1.115/0.951/0.569
+ MixKV | 84.0/76.3/60.8 | 76.6/72.6/58.4 | 80.4/77.1/67.0 | 81.3/80.7/75.5 | 1.348/1.119/0.633
AdaKV | 87.4/81.2/67.1 | 77.8/71.0/62.1 | 79.9/77.0/70.3 | 80.8/79.6/75.9 | 1.345/1.146/0.775
+ MixKV | 90.3/82.1/67.8 | 79.3/74.7/65.5 | 81.8/79.6/71.2 | 81.5/80.9/77.4 | 1.448/1.275/0.878
SparseMM | 93.5/91.5/84.9 | 81.2/79.0/74.3 | 82.0/81.6/77.3 | 82.0/81.5/80.1 | 1.482/1.430/1.038
+ MixKV | 93.8/92.7/86.4 | 82.0/81.0/77.1 | 82.0/82.0/80.9 | 81.6/81.8/81.4 | 1.480/1.459/1.303
"""),
)

MIXKV_4 = Printed(
    "printed-4",
    "The same parts in the paper, 64 tokens",
    f"Printed by {MIXKV}, Table 4, for Qwen2-VL-7B: another model, other tasks.",
    (
        "score",
        *(
            f"{data} on {host}"
            for data in ("DocVQA", "OCRBench", "TextVQA", "ChartQA")
            for host in ("SnapKV", "AdaKV", "SparseMM")
        ),
    ),
    spread("""
attention | 66.5/67.1/84.9 | 62.4/62.1/74.3 | 69.9/70.3/77.3 | 75.5/75.9/80.1
attention and KNorm | 66.1/66.5/81.2 | 56.2/56.0/68.8 | 67.9/67.2/72.6 | 71.4/72.8/76.3
attention and VNorm | 67.2/67.4/84.7 | 64.9/64.4/75.5 | 71.5/70.3/79.7 | 77.3/77.4/80.8
diversity alone | 44.0/44.3/60.4 | 50.7/50.3/68.4 | 59.8/59.7/78.4 | 64.7/65.2/78.5
sum | 67.6/67.6/86.3 | 65.0/63.6/76.9 | 72.2/70.6/80.8 | 76.6/77.0/81.4
mixed, measured before | 67.7/67.7/86.2 | 66.1/65.2/76.8 | 72.4/71.1/80.9 | 77.5/77.3/81.1
mixed, measured per prompt | 67.9/67.8/86.4 | 66.0/65.5/77.1 | 72.5/71.2/80.9 | 77.6/77.4/81.5
"""),
)

MILE = ("T-1", "T-2", "T-3", "T-4", "S-1", "S-2", "S-3", "S-4", "S-5", "NH", "IR")

LOOKM_1 = Printed(
    "printed-1",
    "The same rows in the paper, 20 %",
    f"Printed by {LOOKM}, Table 1, for LLaVA-1.5-7B on MileBench: another model, other tasks.",
    ("method", *MILE),
    spread("""
full cache | 40.0/46.0/32.2/37.8/56.9/33.3/12.6/23.4/60.5/4.7/4.3
H2O | 40.2/46.0/31.8/38.5/55.0/33.8/12.6/22.8/60.0/1.4/3.7
SnapKV | 40.0/46.0/31.5/40.6/54.6/33.5/13.0/21.9/60.0/1.4/3.7
RoCo | 40.2/46.0/31.8/38.5/55.0/33.8/12.6/22.8/60.0/1.4/3.7
LOOK-M (A-Merge) | 40.3/46.1/32.2/39.1/54.9/34.0/12.9/21.4/60.5/1.6/3.7
LOOK-M (W-Merge) | 40.3/46.1/31.8/39.1/55.0/34.0/13.2/22.4/60.5/1.4/3.7
LOOK-M (P-Merge) | 40.2/46.1/32.5/39.8/55.1/33.8/12.9/22.5/60.5/1.7/3.5
LOOK-M (TP + A-Merge) | 40.2/46.1/31.8/39.2/56.1/33.7/12.9/22.6/60.0/4.9/3.7
LOOK-M (TP + W-Merge) | 40.2/46.1/32.0/39.0/56.5/33.8/12.9/23.1/60.0/5.1/3.5
LOOK-M (TP + P-Merge) | 40.3/46.1/32.5/39.9/57.0/34.0/12.8/23.9/60.5/5.3/3.8
"""),
)

LOOKM_6 = Printed(
    "printed-6",
    "Rows in the paper, 99 % gone",
    f"Printed by {LOOKM}, Table 6, for LLaVA-1.5-7B on MileBench, as far as our copy of the paper "
    "has it: another model, other tasks.",
    ("method", *MILE),
    spread("""
full cache | 40.0/46.0/32.2/37.8/56.9/33.3/12.6/23.4/60.5/4.7/4.3
H2O | 36.5/46.0/25.0/31.5/36.4/23.0/9.4/9.4/51.5/0.0/3.3
SnapKV | 38.8/45.1/26.5/34.1/38.4/26.0/0.0/9.6/58.0/0.0/3.5
RoCo | 36.5/46.1/25.2/32.5/36.4/23.0/9.4/9.2/52.5/0.0/3.1
"""),
)
