"""Survivors in fewer bits: through generate, in every mode, with the bytes that are promised."""

import copy

import pytest
import torch
from transformers import cache_utils

import families
import foveate
import gold
from foveate.errors import InputError, MethodError, UnsupportedModel

FAMILY = families.BY_NAME["llava-onevision"]
NAMES = ["fp8", "quanto"] if hasattr(cache_utils, "Fp8QuantizedLayer") else ["quanto"]
KINDS = pytest.mark.parametrize("name", NAMES)
BITS = {"fp8": 8, "quanto": 4}
METHOD = foveate.aircache(keep=0.3)


def cache_of(model, name, method=METHOD, **options):
    return foveate.CompressedCache(model, method, quantized=name, **options)


def run(model, inputs, cache, **options):
    return gold.generate(model, inputs, past_key_values=cache, max_new_tokens=6, **options)


def next_turn(inputs, seen):
    """Four tokens of text behind `seen` others."""
    mask = inputs["attention_mask"]
    return {
        "input_ids": torch.tensor([[9, 11, 12, 7]] * len(mask)),
        "attention_mask": torch.nn.functional.pad(mask, (0, seen + 4 - mask.shape[1]), value=1),
    }


def rounded(cache, name):
    """The same dense cache, as if its prefix had been encoded and decoded by hand."""
    from foveate.hf.quantized import codec

    twin = copy.deepcopy(cache)
    for layer in twin.compressed_layers:
        store = layer.store
        kind = codec(name, *store.slots())
        for part in (store.keys, store.values):
            part[:, :, : store.prefix] = kind.decode(kind.encode(part[:, :, : store.prefix]))
    return twin


@KINDS
@pytest.mark.parametrize("count", [1, 3])
def test_decoding_goes_on_from_what_the_codes_say(name, count):
    """Equal to a dense cache whose numbers were rounded; and not to one that was not."""
    model, inputs = FAMILY.build(), FAMILY.inputs(count)
    dense, ours = foveate.CompressedCache(model, METHOD), cache_of(model, name)
    with torch.no_grad():
        for cache in (dense, ours):
            model(**inputs, past_key_values=cache)
        twin = rounded(dense, name)
        token = {"input_ids": inputs["input_ids"][:, :1]}
        mask = inputs["attention_mask"]
        token["attention_mask"] = torch.cat([mask, mask.new_ones(count, 1)], -1)
        steps = [model(**token, past_key_values=x).logits for x in (twin, ours, dense)]
    torch.testing.assert_close(steps[1], steps[0], rtol=0, atol=1e-6)
    assert (steps[1] - steps[2]).abs().max() > 1e-4


@KINDS
def test_bytes_are_those_of_codes_and_tail(name):
    model, inputs = FAMILY.build(), FAMILY.inputs(3)
    cache = cache_of(model, name)
    run(model, inputs, cache)
    report = cache.report()
    for layer, told in zip(cache.compressed_layers, report.layers, strict=True):
        B, H, D, Dv = layer.store.shape
        tail = (layer.store.seen - layer.store.start) * (D + Dv) * 4
        scales = 4 * 2 if name == "fp8" else 2 * 4 * 2  # a scale per token, or with a zero each
        prefix = layer.store.prefix * ((D + Dv) * BITS[name] // 8 + scales)
        assert told.bytes_stored == B * H * (tail + prefix)
        assert told.storage == name
    dense = foveate.CompressedCache(model, METHOD)
    run(model, inputs, dense)
    assert report.bytes_stored < dense.report().bytes_stored
    assert report.bytes_full == dense.report().bytes_full


@KINDS
def test_a_whole_prompt_can_be_held_in_codes(name):
    model, inputs = FAMILY.build(), FAMILY.inputs(1)
    cache = cache_of(model, name, foveate.full())
    run(model, inputs, cache)
    assert cache.report().bytes_stored < 0.6 * cache.report().bytes_full


@KINDS
def test_beams_copies_and_second_turns(name):
    model, inputs = FAMILY.build(), FAMILY.inputs(3)
    with foveate.compress(model, METHOD, quantized=name) as session:
        beams = model.generate(**inputs, max_new_tokens=5, num_beams=2, do_sample=False)
    assert len(beams) == 3 and session.report.layers[0].storage == name
    cache = cache_of(model, name)
    run(model, inputs, cache)
    twin = copy.deepcopy(cache)
    blocks = [len(layer.store.blocks) for layer in cache.compressed_layers]
    for asked in (cache, twin):
        turn = next_turn(inputs, asked.seen)
        with torch.no_grad():
            asked.logits = model(**turn, past_key_values=asked).logits
    assert torch.equal(cache.logits, twin.logits)
    for layer, before in zip(cache.compressed_layers, blocks, strict=True):
        assert layer.store.name == name and len(layer.store.blocks) == before + 1
        assert layer.store.start == layer.store.seen  # all of the second prompt is in codes


def test_what_cannot_be_is_refused(monkeypatch):
    model = FAMILY.build()
    with pytest.raises(InputError, match="'int3' is not known; allowed: 'fp8'"):
        cache_of(model, "int3")
    with (
        pytest.raises(InputError, match="'int3' is not known"),
        foveate.compress(model, METHOD, quantized="int3"),
    ):
        pass
    assert "generate" not in vars(model)
    with pytest.raises(MethodError, match="eviction while decoding and quantized"):
        cache_of(model, "quanto", foveate.h2o(keep=0.3, every=1))
    monkeypatch.setattr("foveate.hf.quantized.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package optimum-quanto"):
        cache_of(model, "quanto")
    monkeypatch.delattr(cache_utils, "Fp8QuantizedLayer", raising=False)
    with pytest.raises(UnsupportedModel, match="has no Fp8QuantizedLayer"):
        cache_of(model, "fp8")
