"""Writes docs/support.md from benchmarks/results/support.json, the result of support_scan.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT, PAGE = ROOT / "benchmarks" / "results" / "support.json", ROOT / "docs" / "support.md"
VERDICTS = ("supported", "native", "refused", "unknown")
PLACES = (  # families, what a picture becomes, what says where, how that was checked
    (
        "every one that returns `image_grid_thw`: Qwen-VL and its like, the embedded model",
        "one grid",
        "that grid",
        "painted: qwen2_vl, qwen2_5_vl, qwen3_vl, the embedded model",
    ),
    (
        "gemma3, paligemma, shieldgemma2",
        "one square grid",
        "the config",
        "painted: gemma3, paligemma",
    ),
    (
        "llava, vipllava",
        "one square grid over the middle of the picture, or over all of it and a border",
        "the config, the picture's size, the processor's settings",
        "painted",
    ),
    (
        "llava with a Pixtral tower, mistral3",
        "one grid",
        "`image_sizes`",
        "painted; the prompt is made by hand, since the processor needs torchvision",
    ),
    (
        "llava_next, llava_next_video, llava_onevision",
        "an overview and a detailed view without its border; llava_onevision shows a square with "
        "a border of a picture that is given beside others",
        "`image_sizes`",
        "painted: llava_next, llava_onevision",
    ),
    ("idefics3, smolvlm", "tiles in rows, then a view of all", "the prompt's ids", "painted"),
    ("internvl", "tiles in rows, then a view of all", "the picture's size", "painted"),
)
ABOUT_PLACES = """
## Where visual tokens are on the picture

`report.pictures()` and `foveate.hf.views.pictures` know it for these families; for all others they
raise `InputError`, and a report lists tokens in the order of the prompt.

| family | a picture becomes | known from | checked |
| --- | --- | --- | --- |
{rows}

Videos are known for Qwen-VL (`video_grid_thw`, with seconds where `second_per_grid_ts` comes),
llava_onevision and llava_next_video: their processors need torchvision, so frames are made by hand,
and the tiny model says where they are. Frames of internvl and smolvlm are pictures of their own in
the prompt, and so are the crops that gemma3 adds with pan and scan. Where patches do not divide a
tile (SigLIP), places in the detailed view of llava_onevision are right to half a token.

*painted*: a part of a picture is painted, the real processor prepares it, and the tokens that a
tiny model, with patches alone for a vision tower, embeds differently are those said to be there.
"""


def page(result: dict[str, Any]) -> str:
    """Return the documentation page of a result."""
    rows = result["families"]
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    lines = [
        "# Supported models",
        "",
        "<!-- Written by scripts/support_scan.py from benchmarks/results/support.json. -->",
        "",
        f"All {len(rows)} image-text-to-text families that transformers {result['transformers']} "
        f"registers, each built small with random weights and run: {count['supported']} supported, "
        f"{count['native']} native, {count['refused']} refused, {count['unknown']} unknown.",
        "",
        "- **supported**: keeping everything is bit-identical to the untouched model, and a run",
        "  that evicts equals the full cache with the evicted positions hidden.",
        "- **native**: nothing to compress; every layer has a small cache of its own kind.",
        "- **refused**: Foveate raises an error, or the reason says what is missing.",
        "- **unknown**: the shrunken model did not run here, or a check failed.",
        "",
        "A family is the `model_type` in a model's `config.json`. That one is supported says that",
        "what is computed is right, and nothing about answers, which depend on weights, method and",
        "budget: [Evaluation](evaluation.md). For your own weights, listed or not, see whether",
        '`foveate ask picture.png "..." --model ... --keep 1.0 --compare` says the same twice.',
        "",
        "Layers: compressible of all layers of the shrunken language model.",
        "",
        "| family | language model | verdict | layers | ran | reason |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        reason = row["reason"].replace("|", "\\|")
        if row["verdict"] == "supported":
            reason = f"evicted equals hidden within {row['difference']:.0e}"
        lines.append(
            f"| {row['model_type']} | {row['language_model']} | {row['verdict']} | {row['layers']} "
            f"| {row['ran']} | {reason} |"
        )
    places = "\n".join(f"| {' | '.join(row)} |" for row in PLACES)
    return "\n".join(lines) + "\n" + ABOUT_PLACES.format(rows=places)


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULT.read_text())))
