"""Finds out which image-text-to-text families Foveate supports, by running each one small.

Every family is built with random weights from its own config, shrunken, and run on the CPU: first
plainly, with probes on its cache and on the attention interface; then through Foveate, keeping
everything (must be bit-identical) and keeping some (must equal the full cache, the rest hidden).
Writes benchmarks/results/support.json and docs/support.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import warnings
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical", "OMP_NUM_THREADS": "1"}
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]
warnings.simplefilter("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from recipes import amend, extras  # noqa: E402
from shrink import SECTIONS, shrink  # noqa: E402
from support_page import PAGE, RESULT, page  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.cache_utils import DynamicLayer  # noqa: E402
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as NAMES,
)

import foveate  # noqa: E402
from foveate.errors import FoveateError  # noqa: E402
from foveate.hf.support import check_model, compressible, native_layers  # noqa: E402

STEPS, LENGTH, LIMIT = 5, 24, 90


@dataclass
class Row:
    """What is known about one family."""

    model_type: str
    model: str
    language_model: str = ""
    verdict: str = "unknown"
    reason: str = ""
    ran: str = ""  # "whole model" or "language model alone"
    attention: str = "sdpa"
    layers: str = ""  # compressible of all
    difference: float | None = None  # of an evicting run to the full cache with those slots hidden


def scan(model_type: str) -> Row:
    """Return the verdict on one family, with its reason."""
    row = Row(model_type, str(NAMES[model_type]))
    config = AutoConfig.for_model(model_type)
    row.language_model = config.get_text_config(decoder=True).model_type
    if config.is_encoder_decoder:
        row.verdict, row.reason = (
            "refused",
            "encoder-decoder: Foveate compresses decoder-only models",
        )
        return row
    failures: list[str] = []
    for ran, build in (("whole model", whole), ("language model alone", alone)):
        for sections, attention in product(SECTIONS, ("sdpa", "eager")):
            model = None
            try:
                model, inputs = prepared(build(model_type, sections, attention))
                inputs, plain = first_run(model, inputs)
                row.ran, row.attention = ran, attention
                judge(row, model, inputs, plain)
            except FoveateError as refusal:
                row.verdict, row.reason = "refused", first_line(refusal)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {first_line(error)}")
                if row.ran:
                    row.reason = "a check failed: " + failures[-1]
                elif refused_unrun(row, model):
                    return row
            if row.ran:
                return row
    row.reason = "did not run small: " + failures[0]
    return row


def refused_unrun(row: Row, model: Any) -> bool:
    """Fill in the refusal of a model that did not run; return whether there is one."""
    try:
        if model is not None:
            check_model(model)
    except FoveateError as refusal:
        row.verdict, row.reason = "refused", first_line(refusal)
    except Exception:
        return False
    return row.verdict == "refused"


def first_line(error: BaseException) -> str:
    """Return the first statement of an error's message, on one line."""
    return " ".join(str(error).split()).split(";")[0][:160]


def whole(model_type: str, sections: list[int] | None, attention: str) -> Any:
    """Return the family's shrunken model."""
    settings = amend(model_type, shrink(AutoConfig.for_model(model_type), sections))
    config = AutoConfig.for_model(**settings | {"model_type": model_type})
    for name, value in settings.items():
        if not hasattr(config, name):
            setattr(config, name, value)
    found = getattr(transformers, str(NAMES[model_type]))
    return found._from_config(config, attn_implementation=attention)


def alone(model_type: str, sections: list[int] | None, attention: str) -> Any:
    """Return the family's shrunken language model."""
    text = AutoConfig.for_model(model_type).get_text_config(decoder=True)
    config = type(text)(**amend(model_type, shrink(text, sections), text=True))
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def prepared(model: Any) -> tuple[Any, dict[str, Any]]:
    """Return a model with lively weights, and two rows of text, one left-padded."""
    from families.base import enliven  # type: ignore[import-not-found]

    model = model.float().eval()
    enliven(model, 0)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0, eos_token_id=1)
    ids = torch.randint(5, 290, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[1, :5] = mask[1, :5] = 0
    return model, {"input_ids": ids, "attention_mask": mask}


def run(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
    """Return a greedy generation of a few tokens."""
    import gold

    return gold.generate(model, inputs, max_new_tokens=STEPS, **options)


def first_run(model: Any, inputs: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the inputs with the least beside them that the model asks for, and its generation."""
    last: Exception | None = None
    for extra in extras(inputs["input_ids"]):
        try:
            return {**inputs, **extra}, run(model, {**inputs, **extra})
        except Exception as error:
            last = last or error
    raise last or RuntimeError("nothing ran")


def judge(row: Row, model: Any, inputs: dict[str, Any], plain: Any) -> None:
    """Fill in the verdict on a model that runs; Foveate's own errors pass through."""
    import gold  # type: ignore[import-not-found]

    text = model.config.get_text_config(decoder=True)
    layers = native_layers(text)
    found = [i for i, layer in enumerate(layers) if type(layer) is DynamicLayer]
    row.layers = f"{len(found)} of {len(layers)}"
    if not found:
        row.verdict = "native"
        kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
        row.reason = f"no plain full-attention layer, only {kinds}"
        return
    if getattr(text, "kv_lora_rank", None):
        row.verdict, row.reason = "native", "its cache holds latents (multi-head latent attention)"
        return
    check_model(model)
    found = compressible(text)
    row.layers = f"{len(found)} of {len(layers)}"
    missing = [layer for layer in found if layer not in probe(model, inputs)]
    if missing:
        row.verdict = "refused"
        row.reason = f"the keys of layers {missing} do not reach the attention interface"
        return
    place = inputs["attention_mask"].cumsum(-1)
    mask = (place > 4) & (place <= place[:, -1:] - 4)
    cache = foveate.CompressedCache(model, foveate.full(), visual_mask=mask)
    same = gold.same(run(model, inputs, past_key_values=cache), plain)
    cache = foveate.CompressedCache(model, foveate.random(keep=0.3, seed=1), visual_mask=mask)
    output = run(model, inputs, past_key_values=cache)
    hidden = {
        layer: ~gold.kept_mask(
            cache.report(), layer, (2, cache.layers[layer].keys.shape[1], LENGTH)
        )
        for layer in found
    }
    with gold.hiding(model, gold.Stage(LENGTH, hidden)):
        twin = run(model, inputs)
    row.difference, effect = gold.distance(output, twin), gold.distance(output, plain)
    if not same:
        row.reason = "keeping everything is not bit-identical to the untouched model"
    elif row.difference > 1e-4 or effect < 20 * row.difference:
        row.reason = f"differs from its slow twin by {row.difference:.1e} (effect {effect:.1e})"
    else:
        row.verdict = "supported"


def probe(model: Any, inputs: dict[str, Any]) -> set[int]:
    """Return the layers whose keys arrive, as the cache gave them, at the attention interface."""
    from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    import gold

    cache, reached = DynamicCache(config=model.config), set()

    def tagging(index: int, update: Any) -> Any:
        def tagged(*args: Any, **kwargs: Any) -> Any:
            keys, values = update(*args, **kwargs)
            keys = keys.view_as(keys)
            keys._probe = index
            return keys, values

        return tagged

    def watched(module: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(module, "layer_idx", None) == getattr(key, "_probe", -1):
            reached.add(key._probe)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, *args, **kwargs)

    for index, layer in enumerate(cache.layers):
        if hasattr(layer, "update"):
            setattr(layer, "update", tagging(index, layer.update))  # noqa: B010
    AttentionInterface.register("probe", watched)
    AttentionMaskInterface.register("probe", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    with gold.attending(model, "probe"):
        run(model, inputs, past_key_values=cache)
    return reached


def child(model_type: str, channel: Any) -> None:
    """Scan one family in a process of its own, with bounded memory."""
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    torch.set_num_threads(1)
    try:
        row = scan(model_type)
    except BaseException as error:
        row = Row(
            model_type,
            str(NAMES[model_type]),
            reason=f"{type(error).__name__}: {first_line(error)}",
        )
    channel.send(asdict(row))


def scan_all(names: list[str]) -> list[dict[str, Any]]:
    """Return the rows of all families, one process each."""
    fork, rows = multiprocessing.get_context("fork"), []
    for name in names:
        mine, theirs = fork.Pipe()
        process = fork.Process(target=child, args=(name, theirs))
        process.start()
        theirs.close()
        row = asdict(Row(name, str(NAMES[name]), reason=f"did not finish within {LIMIT} s"))
        if mine.poll(LIMIT):
            try:
                row = mine.recv()
            except EOFError:
                row["reason"] = "the process was ended while it ran"
        process.kill()
        process.join()
        rows.append(row)
        print(f"{row['verdict']:10} {name:24} {row['layers']:8} {row['reason']}", file=sys.stderr)
    return rows


def main() -> int:
    """Scan all families, and write the result and its page."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("families", nargs="*", help="only these; nothing is written then")
    given = arguments.parse_args()
    rows = scan_all(given.families or sorted(NAMES))
    if given.families:
        return 0
    result = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "families": rows,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
