"""Methods with a count for every head, caches of every storage, and what storage should cost."""

from typing import Any

import torch
from torch import Tensor

import foveate
import gold
from families import BY_NAME, Family
from families.base import text
from seam import candidates

WINDOW = {"window": 4, "scope": "visual"}
METHODS: dict[str, Any] = {
    "adakv": lambda: foveate.method("adakv", keep=0.3, **WINDOW),
    "sparsemm": lambda: foveate.method("sparsemm", keep=0.3, table="random", **WINDOW),
    "mixkv+adakv": lambda: foveate.method("mixkv+adakv", keep=0.3, **WINDOW),
    "mixkv+sparsemm": lambda: foveate.method(
        "mixkv+sparsemm", keep=0.3, host_table="random", **WINDOW
    ),
    "foveate": lambda: foveate.method("foveate", keep=0.3),
    "snapkv": lambda: foveate.method("snapkv", keep=0.3, **WINDOW),
    "lookm": lambda: foveate.method("lookm", keep=0.3),
}
BY_HEAD = ("adakv", "foveate", "sparsemm", "mixkv+adakv", "mixkv+sparsemm")
FAMILIES = [BY_NAME[name] for name in ("qwen2-vl", "llava-onevision", "gemma3", "llama")]

_TURNS = {"num_hidden_layers": 4, "sliding_window": 9,
          "layer_types": ["sliding_attention", "full_attention"] * 2}  # fmt: skip
CAPPED = Family(
    "gemma2", "gemma2", full_layers=(1, 3),
    settings=lambda: text("gemma2", attn_logit_softcapping=2.0, query_pre_attn_scalar=8, **_TURNS),
)  # fmt: skip
SINKS = Family(
    "gpt-oss", "gpt_oss", full_layers=(1, 3),
    settings=lambda: text("gpt_oss", num_local_experts=4, num_experts_per_tok=2, **_TURNS),
)  # fmt: skip
SHARED = Family(
    "gemma4", "gemma4_text", full_layers=(1, 3), since="5.14", settings=lambda: _shared()
)


def _shared() -> dict[str, Any]:
    layers = {"num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3}
    shared = {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "global_head_dim": 8}
    return text("gemma4_text", **_TURNS | layers | shared, vocab_size_per_layer_input=211)


def cache_of(family: Family, model: Any, inputs: Any, method: Any, storage: str) -> Any:
    """A compressed cache; text models are told which tokens count as visual."""
    mask = None if family.is_visual else candidates(family, inputs)
    return foveate.CompressedCache(model, method, visual_mask=mask, storage=storage)


def run(
    family: Family, model: Any, inputs: Any, method: Any, storage: str, **options: Any
) -> tuple[Any, Any]:
    """Output and cache of a `generate` call, every layer's storage checked."""
    cache = cache_of(family, model, inputs, method, storage)
    torch.manual_seed(3)
    output = gold.generate(model, inputs, past_key_values=cache, **options)
    for layer in cache.compressed_layers:
        layer.store.check()
    return output, cache


def forms(cache: Any) -> set[str]:
    """The forms in which the layers of a cache are stored."""
    return {layer.storage for layer in cache.report().layers}


def distance(a: Any, b: Any) -> float:
    """Largest difference of the logits; infinite where tokens differ."""
    return gold.distance(a, b) if torch.equal(a.sequences, b.sequences) else torch.inf


def entries(layer: Any, report: Any) -> Tensor:
    """How many tokens every row and head of a layer stores, by the report and by what came after.

    Nothing here asks the storage: prompt positions are the report's, later tokens are all there.
    """
    rows, heads = layer.store.shape[:2]
    prompt = layer.turn.kinds.kind.shape[1]
    kept = [[len(report.kept(layer.index, b, h)) for h in range(heads)] for b in range(rows)]
    return torch.tensor(kept) + layer.store.seen - prompt


def width(layer: Any) -> int:
    """Bytes of one token of one head: its key and its value."""
    D, Dv = layer.store.shape[2:]
    return (D + Dv) * layer.store.dtype.itemsize
