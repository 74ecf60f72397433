"""Measures what equal counts cost, as vLLM wants them: bytes kept, and bytes handed over.

Every preset reads the same documents with the embedded model, once as it is and once padded; visual
tokens are counted, all text stays on top. Writes benchmarks/results/vllm-padding.json, whose table
scripts/tables.py puts into docs/vllm.md.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import foveate
from foveate import tiny
from foveate.bench.result import origin
from foveate.errors import InputError
from foveate.eval.asking.answering import conversation
from foveate.eval.generated import Documents
from foveate.eval.studies.parts import measured
from foveate.integrations.vllm import Prefilled, export, prefill
from foveate.method import Method

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "benchmarks" / "results" / "vllm-padding.json"
KEEPS = (26, 77)  # visual tokens per layer and head, of 256: a tenth and three tenths
SEED = 7
LEFT_OUT = ("full",)
FURTHER: dict[str, dict[str, Any]] = {  # other settings of a preset, in the row behind it
    "aircache": {"budget": "uniform"},
    "sparsemm": {"table": measured("heads")},
}


@dataclass
class Sizes:
    """Bytes of keys and values, summed over the documents."""

    full: int = 0
    kept: int = 0
    handed: int = 0
    fits: bool = True


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return what is measured: the text in the table, the preset, and its options."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for info in foveate.methods():
        if info.name in LEFT_OUT:
            continue
        found[f"`{info.name}`"] = info.name, {}
        for option, value in FURTHER.get(info.name, {}).items():
            shown = "of the model" if option == "table" else repr(value)
            found[f"`{info.name}`, {option} {shown}"] = info.name, {option: value}
    return found


def measured(model: Any, prompts: list[Any], method: Method) -> Sizes:
    """Return the sizes of one method over all prompts."""
    sizes = Sizes()
    with tempfile.TemporaryDirectory() as folder:
        for inputs in prompts:
            alone = prefill(model, inputs, method)
            report = alone.cache.report()
            sizes.full += report.bytes_full
            sizes.kept += report.bytes_filled
            sizes.fits = sizes.fits and _fits(alone, folder)
            (handoff,) = export(prefill(model, inputs, method, pad="next-best"), folder)
            sizes.handed += sum(part.nbytes for part in load_file(handoff.path).values())
    return sizes


def _fits(alone: Prefilled, folder: str) -> bool:
    """Return whether a cache can be handed over as it is."""
    try:
        export(alone, folder)
    except InputError:
        return False
    return True


def table(cases: dict[str, dict[int, Sizes]]) -> dict[str, Any]:
    """Return rows of text: what is kept, what is handed over, and how much more that is."""
    columns = ["Method", "Fits as it is"]
    for keep in KEEPS:
        columns += [f"keep={keep}: kept", "handed over", "padding adds"]
    rows = []
    for name, by_keep in cases.items():
        row = [name, "yes" if all(sizes.fits for sizes in by_keep.values()) else "padded"]
        for sizes in by_keep.values():
            more = sizes.handed / sizes.kept - 1
            row += [f"{sizes.kept / sizes.full:.1%}", f"{sizes.handed / sizes.full:.1%}"]
            row += [f"{more:.0%}" if more else "nothing"]
        rows.append(row)
    return {"columns": columns, "rows": rows}


def main(arguments: list[str]) -> None:
    """Measure all presets and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args(arguments)
    model, processor = tiny.load()
    samples = Documents().samples(given.documents, SEED)
    prompts = [
        processor.apply_chat_template(
            conversation(sample.turns[0]), add_generation_prompt=True, tokenize=True,
            return_dict=True, return_tensors="pt",
        )
        for sample in samples
    ]  # fmt: skip
    cases: dict[str, dict[int, Sizes]] = {}
    for label, (name, options) in variants().items():
        for keep in KEEPS:
            method = foveate.method(name, keep=keep, scope="visual", **options)
            cases.setdefault(label, {})[keep] = measured(model, prompts, method)
        print(label, cases[label])
    setting = {"documents": given.documents, "seed": SEED, "keeps": KEEPS}
    numbers = {name: {k: vars(v) for k, v in by_keep.items()} for name, by_keep in cases.items()}
    result = {
        "what": "vllm-padding",
        **origin(ROOT, "cpu"),
        "setting": setting,
        "cases": numbers,
        "table": table(cases),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {given.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
