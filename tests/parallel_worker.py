"""One of several processes that run a model together: every variant, and what all of them saw.

Run as `python -m torch.distributed.run --nproc-per-node 2 parallel_worker.py FOLDER`. FOLDER holds
a checkpoint for each name in `MODELS`, and gets `results.pt`.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

import foveate
import gold
from families import BY_NAME, Family
from seam import candidates
from shared_heads import VARIANTS, named, write_tables

KEEP, STEPS, ROWS = 0.4, 4, 3
MODELS = {"qwen2-vl": (6, 2), "llama": (8, 4)}  # query heads, key-value heads
STORED: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (  # and settings of the cache
    ("adakv", {"window": 4, "alpha": 0.0}, {"storage": "ragged"}),
    ("mixkv+adakv", {"window": 4}, {"storage": "auto", "stream": False}),
    ("tova", {"every": 1}, {"storage": "ragged"}),
)
LATER = {"every", "decode", "positions"}  # options that tell while decoding: Llama is run for these


def family_of(name: str) -> Family:
    """The family with that many heads, and a vocabulary that divides."""
    Hq, H = MODELS[name]
    changes = {"num_attention_heads": Hq, "num_key_value_heads": H, "vocab_size": 212}

    def settings() -> dict[str, Any]:
        given = BY_NAME[name].settings()
        given.get("text_config", given).update(changes)
        return given

    return replace(BY_NAME[name], settings=settings)


def load(family: Family, folder: Path) -> torch.nn.Module:
    """The model, its heads split over the processes."""
    auto = AutoModelForImageTextToText if family.is_visual else AutoModelForCausalLM
    config = getattr(transformers, "DistributedConfig", None)
    plan: dict[str, Any] = {"tp_plan": "auto"}
    if config is not None and hasattr(config, "tp_size"):
        plan = {"distributed_config": config(tp_plan="auto")}
    return auto.from_pretrained(folder / family.name, dtype=torch.float32, **plan).eval()


def runs(family: Family, model: torch.nn.Module, folder: Path, heads: int) -> Iterator[dict]:
    """Tokens, logits and kept positions [B, heads, T] of every variant."""
    inputs = family.inputs(ROWS)
    tables = write_tables(folder, len(family.full_layers), *MODELS[family.name], family.name)
    size = (ROWS, heads, inputs["input_ids"].shape[1])
    for name, options, settings in (*((*variant, {}) for variant in VARIANTS), *STORED):
        method = named(name, KEEP, options, tables)
        if (method.when.positions == "compacted") if family.is_visual else not LATER & set(options):
            continue
        output, report = compressed(family, model, inputs, method, settings)
        kept = [gold.kept_mask(report, layer, size) for layer in family.full_layers]
        yield {
            "variant": f"{family} {name} {options} {settings or ''}",
            "sequences": output.sequences,
            "logits": gold.logits(output),
            "kept": torch.stack(kept),
        }


def compressed(family: Family, model: Any, inputs: Any, method: Any, settings: Any) -> Any:
    """Output and report: in a context where ids tell what is visual, with a cache elsewhere."""
    if family.is_visual:
        with foveate.compress(model, method, **settings) as session:
            output = gold.generate(model, inputs, max_new_tokens=STEPS)
        return output, session.report
    cache = foveate.CompressedCache(
        model, method, visual_mask=candidates(family, inputs), **settings
    )
    output = gold.generate(model, inputs, past_key_values=cache, max_new_tokens=STEPS)
    return output, cache.report()


def gathered(mine: dict) -> dict:
    """One process's results with the kept positions of all heads, after comparing the rest."""
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    for other in everyone:
        assert torch.equal(other["sequences"], mine["sequences"]), (
            "processes wrote different tokens"
        )
        assert torch.equal(other["logits"], mine["logits"]), "processes have different logits"
    return mine | {"kept": torch.cat([other["kept"] for other in everyone], 2)}


def main(folder: Path) -> None:
    """Run everything; process 0 writes it down."""
    torch.set_num_threads(1)
    # transformers asks what torch is built for, not what is there
    torch._C._get_accelerator = lambda: torch.device("cpu")
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    own = folder / f"tables{rank}"
    own.mkdir()
    found = []
    for name, (_, heads) in MODELS.items():
        family = family_of(name)
        model = load(family, folder)
        found += [gathered(run) for run in runs(family, model, own, heads // size)]
    if rank == 0:
        torch.save(found, folder / "results.pt")
    # device meshes keep their groups, whose threads can abort an interpreter that is being ended
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
