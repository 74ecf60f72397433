"""Survivors in fewer bits: through generate, in every mode, with the bytes that are promised."""

import copy
import dataclasses

import pytest
import torch
from transformers import cache_utils

import families
import foveate
import gold
from foveate.errors import InputError, MethodError, UnsupportedModel
from foveate.hf.quantized import codec

FAMILY = families.BY_NAME["llava-onevision"]
NAMES = ["fp8", "quanto"] if hasattr(cache_utils, "Fp8QuantizedLayer") else ["quanto"]
KINDS = pytest.mark.parametrize("name", NAMES)
BITS = {"fp8": 8, "quanto": 4}
METHOD = foveate.aircache(keep=0.3)
UNEQUAL = foveate.adakv(keep=0.3, alpha=0, scope="visual")


def cache_of(model, name, method=METHOD, **options):
    return foveate.CompressedCache(model, method, quantized=name, **options)


def run(model, inputs, cache, **options):
    return gold.generate(model, inputs, past_key_values=cache, max_new_tokens=6, **options)


def next_turn(inputs, seen, count=4):
    """Tokens of text behind `seen` others."""
    mask = inputs["attention_mask"]
    return {
        "input_ids": torch.tensor([[9, 11, 12, 7][:count]] * len(mask)),
        "attention_mask": torch.nn.functional.pad(mask, (0, seen + count - mask.shape[1]), value=1),
    }


def rounded(cache, name):
    """The same cache, as if its prefix had been encoded and decoded by hand."""
    twin = copy.deepcopy(cache)
    for layer in twin.compressed_layers:
        store = layer.store
        kind = codec(name, *store.slots())
        if store.name == "ragged":
            keys, values = (kind.decode(kind.encode(x)) for x in store.prefix.contents())
            store.prefix = dataclasses.replace(store.prefix, keys=keys, values=values)
            continue
        for part in store.slots():
            part[:, :, : store.prefix] = kind.decode(kind.encode(part[:, :, : store.prefix]))
    return twin


@KINDS
@pytest.mark.parametrize("storage", ["dense", "ragged"])
@pytest.mark.parametrize("count", [1, 3])
def test_decoding_goes_on_from_what_the_codes_say(name, storage, count):
    """Equal to a cache whose numbers were rounded by hand; and not to one that was not."""
    model, inputs = FAMILY.build(), FAMILY.inputs(count)
    method = METHOD if storage == "dense" else UNEQUAL
    plain = foveate.CompressedCache(model, method, storage=storage)
    ours = cache_of(model, name, method, storage=storage)
    with torch.no_grad():
        for cache in (plain, ours):
            model(**inputs, past_key_values=cache)
        twin = rounded(plain, name)
        turn = next_turn(inputs, plain.seen, 1)
        steps = [model(**turn, past_key_values=x).logits for x in (twin, ours, plain)]
    assert {x.store.name for x in ours.compressed_layers} == {f"{storage} {name}"}
    torch.testing.assert_close(steps[1], steps[0], rtol=0, atol=2e-6)
    assert (steps[1] - steps[2]).abs().max() > 1e-4


@KINDS
def test_unequal_heads_cost_the_codes_of_what_they_keep(name):
    model, inputs = FAMILY.build(), FAMILY.inputs(3)
    cache = cache_of(model, name, UNEQUAL, storage="auto")
    run(model, inputs, cache)
    report = cache.report()
    for layer, told in zip(cache.compressed_layers, report.layers, strict=True):
        assert told.storage == f"ragged {name}"
        B, H, D, Dv = layer.store.shape
        prompt = inputs["input_ids"].shape[1]
        kept = sum(len(report.kept(layer.index, b, h)) for b in range(B) for h in range(H))
        tail = B * H * (layer.store.seen - prompt) * (D + Dv) * 4
        groups = kept if name == "fp8" else kept + kept % 2
        each = D * BITS[name] // 8 + (4 if name == "fp8" else 8)
        assert told.bytes_stored == 2 * groups * each + tail
    padded = cache_of(model, name, UNEQUAL)
    run(model, inputs, padded)
    assert report.bytes_stored < padded.report().bytes_stored


@KINDS
def test_beams_of_ragged_codes_encode_nothing_anew(name):
    model, inputs = FAMILY.build(), FAMILY.inputs(3)
    cache = cache_of(model, name, UNEQUAL, storage="ragged")
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
    layer = cache.compressed_layers[0].store
    codes = layer.prefix.codes
    before, runs = layer.prefix.contents()[0], layer.prefix.counts.tolist()
    cache.reorder_cache(torch.tensor([0, 1, 2]))
    assert layer.prefix.codes is codes
    cache.reorder_cache(torch.tensor([2, 2, 0]))
    layer.check()
    rows = before.split(runs)
    H = layer.shape[1]
    wanted = torch.cat([*rows[2 * H :], *rows[2 * H :], *rows[:H]])
    torch.testing.assert_close(layer.prefix.contents()[0], wanted, rtol=0, atol=1e-5)


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
        assert told.storage == f"dense {name}"
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
    assert len(beams) == 3 and session.report.layers[0].storage == f"dense {name}"
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
        assert layer.store.name == f"dense {name}" and len(layer.store.blocks) == before + 1
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
