"""Measures one library's cache compression in the environment that runs it; needs no Foveate.

The text of this file is run by another Python, with one argument: a JSON object of `library`,
`model` (a Hugging Face configuration), `methods`, `keep`, `batch`, `prompt`, `steps`, `rounds`,
`device`, `dtype`, `clock` and `seed`. Every line that it prints behind MARK is one JSON object:
first the versions, or what is missing, then one per method, with `failed` where the library does
not manage.
"""

import contextlib
import importlib.metadata
import json
import sys
import time
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

MARK = "foveate-peer "
FULL, COMPRESSED = "full", "compressed"


def main(words: dict[str, Any]) -> None:
    """Print versions, and then the numbers of every method."""
    if words["library"] == "kvpress":
        try:
            import_module("kvpress")
        except ImportError as error:
            say({"missing": f"{type(error).__name__}: {error}".splitlines()[0]})
            return
    names = ("torch", "transformers", words["library"])
    say({"versions": {name: importlib.metadata.version(name) for name in names}})
    with torch.no_grad():
        model, ids = prepared(words)
        for method in words["methods"]:
            try:
                say({"method": method, **measured(model, ids, method, words)})
            except Exception as error:
                first = (str(error).splitlines() or [""])[0]
                say({"method": method, "failed": f"{type(error).__name__}: {first}"})


def say(told: dict[str, Any]) -> None:
    """Print one object, so that it is heard even if the process ends badly after it."""
    sys.stdout.write(f"\n{MARK}{json.dumps(told)}\n")
    sys.stdout.flush()


def prepared(words: dict[str, Any]) -> tuple[Any, Tensor]:
    """Return a model with random weights, and token ids [B, T]."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(words["seed"])
    is_text = words["model"]["model_type"] == "llama"
    maker = AutoModelForCausalLM if is_text else AutoModelForImageTextToText
    dtype = getattr(torch, words["dtype"])
    with torch.device(words["device"]):
        model = maker.from_config(AutoConfig.for_model(**words["model"]), dtype=dtype).eval()
    source = torch.Generator().manual_seed(words["seed"])
    ids = torch.randint(10, 250, (words["batch"], words["prompt"]), generator=source)
    return model, ids.to(words["device"])


def measured(model: Any, ids: Tensor, method: str, words: dict[str, Any]) -> dict[str, Any]:
    """Return times and bytes of a method, and of the full cache in turns with it."""
    for layer in masks(model):
        layer.masked_key_indices = None
    for _ in range(2):  # what is loaded once is loaded in the first pass
        caches = {FULL: native(model), COMPRESSED: fresh(model, method, words)}
        prefill = {FULL: seconds(partial(read, model, ids, caches[FULL]), words)}
        with pressed(model, method, words):
            prefill[COMPRESSED] = seconds(partial(read, model, ids, caches[COMPRESSED]), words)
    hidden = masks(model)
    held = {name: nbytes(cache) for name, cache in caches.items()}
    held[COMPRESSED] += sum(nbytes(mask) for mask in hidden.values())
    stored = {name: keys_and_values(cache) for name, cache in caches.items()}
    step: dict[str, list[float]] = {name: [] for name in caches}
    count = max(words["steps"] // words["rounds"], 1)
    for number in range(words["rounds"]):
        places = range(ids.shape[1] + number * count, ids.shape[1] + (number + 1) * count)
        for name in [*caches][:: 1 if number % 2 else -1]:
            for layer, mask in hidden.items():
                layer.masked_key_indices = mask if name == COMPRESSED else None
            spent = seconds(partial(write, model, ids, caches[name], places), words)
            step[name].append(spent / count)
    return {"prefill": prefill, "step": step, "stored": stored, "held": held}


def native(model: Any) -> Any:
    """Return an empty cache of transformers."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def fresh(model: Any, method: str, words: dict[str, Any]) -> Any:
    """Return an empty cache for a method."""
    if words["library"] != "foveate":
        return native(model)
    foveate = import_module("foveate")
    chosen = foveate.method(method, keep=words["keep"])
    return foveate.CompressedCache(model, chosen, storage="auto")


def pressed(model: Any, method: str, words: dict[str, Any]) -> AbstractContextManager[Any]:
    """Return what has to be entered while a prompt is read."""
    if words["library"] != "kvpress":
        return contextlib.nullcontext()
    kvpress = import_module("kvpress")
    ratio = 1 - words["keep"]
    presses = {
        "snapkv": lambda: kvpress.SnapKVPress(ratio, window_size=32),
        "adakv": lambda: kvpress.AdaKVPress(kvpress.SnapKVPress(ratio, window_size=32)),
        "expected": lambda: kvpress.ExpectedAttentionPress(ratio),
        "knorm": lambda: kvpress.KnormPress(ratio),
    }
    return presses[method]()(model)


def masks(model: nn.Module) -> dict[Any, Any]:
    """Return the layers whose keys are hidden at each step, with the indices of those keys."""
    found = {layer: getattr(layer, "masked_key_indices", None) for layer in model.modules()}
    return {layer: mask for layer, mask in found.items() if mask is not None}


def read(model: Any, ids: Tensor, cache: Any) -> None:
    """Read the prompts into a cache."""
    mask = torch.ones_like(ids)
    model(input_ids=ids, attention_mask=mask, past_key_values=cache, logits_to_keep=1)


def write(model: Any, ids: Tensor, cache: Any, places: range) -> None:
    """Read one more token per row at each of the places."""
    for place in places:
        position = torch.full_like(ids[:, :1], place)
        if model.config.model_type == "qwen2_vl":
            position = position.expand(3, -1, -1)
        model(input_ids=ids[:, :1], position_ids=position, past_key_values=cache)


def seconds(work: Callable[[], Any], words: dict[str, Any]) -> float:
    """Return how long a piece of work takes."""
    wait: Callable[[], None] = (
        torch.cuda.synchronize if words["device"].startswith("cuda") else lambda: None
    )
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[words["clock"]]
    wait()
    start = clock()
    work()
    wait()
    return clock() - start


def keys_and_values(cache: Any) -> int:
    """Return the bytes of the keys and values that a cache stores."""
    if hasattr(cache, "report"):
        return int(cache.report().bytes_stored)
    return nbytes([(layer.keys, layer.values) for layer in cache.layers])


def nbytes(thing: Any) -> int:
    """Return the bytes of all storages that something holds, models left out."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (nn.Module, type, types.ModuleType)):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple, set)):
            waiting += one
        elif hasattr(one, "__dict__") or hasattr(one, "__slots__"):
            named = [*getattr(one, "__dict__", {}), *getattr(type(one), "__slots__", ())]
            waiting += [getattr(one, name, None) for name in named]
    return sum(storages.values())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
