"""Prompts that come again are not read again, and nothing else changes."""

import pytest
import torch
from transformers import DynamicCache

import families
import foveate
import gold
from foveate.hf.replayed import Replayed, _Reading
from seam import candidates, check_same, same

NAMES = ("qwen2-vl", "qwen3-vl", "llava-onevision", "internvl", "idefics3", "gemma3", "llama")
METHODS = {
    "snapkv": lambda: foveate.snapkv(keep=0.4, window=4),
    "aircache": lambda: foveate.aircache(keep=0.2),
    "foveate": lambda: foveate.foveate(keep=0.3),
    "lookm": lambda: foveate.lookm(keep=0.4),
    "h2o": lambda: foveate.h2o(keep=0.4),
    "full": lambda: foveate.method("full"),
}


def cache_of(family, model, inputs, name, storage):
    """A cache by the name of its method; None is the native one."""
    if name is None:
        return DynamicCache(config=model.config)
    mask = None if family.is_visual else candidates(family, inputs)
    return foveate.CompressedCache(
        model, METHODS[name](), visual_mask=mask, stream=name == "aircache", storage=storage
    )


def said(model, inputs, cache, replayed=None):
    """What `generate` says, and the logits it says that by."""
    if replayed is None:
        return gold.generate(model, inputs, past_key_values=cache)
    with replayed.around(model):
        return gold.generate(model, inputs, past_key_values=cache)


@pytest.mark.parametrize(
    ("name", "storage"),
    [*((name, "dense") for name in NAMES), ("qwen2-vl", "ragged"), ("llama", "static")],
)
def test_a_replayed_prompt_is_one_that_was_read(name, storage):
    family = families.BY_NAME[name]
    model, inputs, replayed = family.build(), family.inputs(3), Replayed()
    names = [key for key in METHODS if (key, storage) != ("h2o", "static")]
    for again, key in enumerate((*names, None, "snapkv")):
        caches = [cache_of(family, model, inputs, key, storage) for _ in range(2)]
        one = said(model, inputs, caches[0], replayed)
        other = said(model, inputs, caches[1])
        assert replayed.reused == again
        assert torch.equal(one.sequences, other.sequences)
        assert all(map(same, one.logits, other.logits))
        if key is not None:
            check_same(caches)
            assert caches[0].report().bytes_stored == caches[1].report().bytes_stored


def test_another_prompt_is_read():
    family = families.BY_NAME["qwen2-vl"]
    model, replayed = family.build(), Replayed()
    one, two = family.inputs(2), family.inputs(2)
    two["input_ids"][0, -1] += 1
    for inputs in (one, two, one):
        caches = [cache_of(family, model, inputs, "snapkv", "dense") for _ in range(2)]
        told = said(model, inputs, caches[0], replayed)
        assert torch.equal(told.sequences, said(model, inputs, caches[1]).sequences)
    assert not replayed.reused
    said(family.build(), one, cache_of(family, family.build(), one, None, "dense"), replayed)
    assert not replayed.reused  # another model with the same weights


def test_what_somebody_wrote_to_is_read_anew():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs, replayed = family.build(), family.inputs(2), Replayed()
    expected = said(model, inputs, cache_of(family, model, inputs, "snapkv", "dense")).sequences
    said(model, inputs, cache_of(family, model, inputs, "snapkv", "dense"), replayed)
    replayed._last.did[0].keys.fill_(float("nan"))
    told = said(model, inputs, cache_of(family, model, inputs, "snapkv", "dense"), replayed)
    assert torch.equal(told.sequences, expected) and not replayed.reused


def test_what_is_too_large_is_not_held():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(2)
    replayed = Replayed(most=1000)
    for _ in range(2):
        said(model, inputs, cache_of(family, model, inputs, "snapkv", "dense"), replayed)
    assert not replayed.reused and replayed._last is None


def test_what_becomes_too_large_is_let_go_at_once(monkeypatch):
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(2)
    replayed, held = Replayed(most=60_000), []
    note = _Reading.note

    def watched(reading, one):
        note(reading, one)
        held.append(len(reading.did))

    monkeypatch.setattr(_Reading, "note", watched)
    said(model, inputs, cache_of(family, model, inputs, "snapkv", "dense"), replayed)
    assert held[0] == 1 and held[-1] == 0 and replayed._last is None
    assert held == sorted(held, key=lambda count: count == 0)  # and nothing is noted after that


def test_full_caches_let_go_of_another_prompt():
    family = families.BY_NAME["qwen2-vl"]
    model, replayed = family.build(), Replayed()
    for name, seed in (("snapkv", 0), (None, 1)):
        inputs = family.inputs(2, seed)
        said(model, inputs, cache_of(family, model, inputs, name, "dense"), replayed)
    assert replayed._last is None


def test_layers_with_other_states_are_read_every_time():
    family = families.BY_NAME["qwen3.5"]
    family.require()
    model, inputs, replayed = family.build(), family.inputs(2), Replayed()
    told = [
        said(model, inputs, cache_of(family, model, inputs, "snapkv", "dense"), replayed)
        for _ in range(2)
    ]
    assert torch.equal(told[0].sequences, told[1].sequences) and not replayed.reused


def test_the_model_and_the_cache_are_as_before_also_after_an_error(monkeypatch):
    family = families.BY_NAME["llama"]
    model, inputs, replayed = family.build(), family.inputs(2), Replayed()
    cache = cache_of(family, model, inputs, "snapkv", "dense")
    monkeypatch.setattr(
        type(model.model.layers[1]), "forward", lambda *args, **kwargs: 1 / 0, raising=True
    )
    with pytest.raises(ZeroDivisionError):
        said(model, inputs, cache, replayed)
    assert "forward" not in vars(model.get_decoder())
    assert "update" not in vars(cache)
    assert not any("note_queries" in vars(layer) for layer in cache.compressed_layers)
    assert replayed._last is None
