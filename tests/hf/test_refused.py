"""Models and modes without a seam are refused with a reason, or pass through and say so."""

import copy
import inspect
from dataclasses import replace

import pytest
import torch
from packaging.version import Version
from transformers import StaticCache

import families
import foveate
import gold
from foveate.calibration.tables import save_table
from foveate.hf.watch import shape
from seam import by_cache, check_selection

NATIVE = pytest.mark.parametrize("family", families.NATIVE, ids=str)
QWEN = families.BY_NAME["qwen2-vl"]


@NATIVE
@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_compressible_is_refused_or_untouched_with_a_note(family, batch):
    model, inputs = family.build(), family.inputs(batch)
    untouched = gold.generate(model, inputs)
    try:
        output, report = by_cache(family, model, inputs, foveate.aircache(keep=0.1))
    except foveate.UnsupportedModel as refusal:
        assert any(word in str(refusal).lower() for word in ("sliding", "latent", "mla"))
    else:
        assert gold.same(output, untouched)
        assert report.notes and report.bytes_stored == report.bytes_full
    assert gold.same(gold.generate(model, inputs), untouched)


@NATIVE
def test_nothing_compressible_in_a_context(family):
    model, inputs = family.build(), family.inputs(1)
    untouched = gold.generate(model, inputs)
    try:
        with foveate.compress(model, foveate.aircache(keep=0.1)) as session:
            output = gold.generate(model, inputs)
    except foveate.UnsupportedModel:
        pass
    else:
        assert gold.same(output, untouched) and session.report.notes
    assert gold.same(gold.generate(model, inputs), untouched)


def test_static_cache_in_a_context_is_refused():
    model, inputs = QWEN.build(), QWEN.inputs(1)
    untouched = gold.generate(model, inputs)
    with foveate.compress(model, foveate.aircache(keep=0.1)):
        with pytest.raises(foveate.FoveateError, match="static"):
            gold.generate(model, inputs, cache_implementation="static", disable_compile=True)
    assert gold.same(gold.generate(model, inputs), untouched)


def test_static_cache_of_ones_own_in_a_context_is_left_alone():
    model, inputs = QWEN.build(), QWEN.inputs(1)
    config = model.config.get_text_config()
    expected = gold.generate(
        model,
        inputs,
        past_key_values=StaticCache(config=config, max_cache_len=64),
        disable_compile=True,
    )
    with foveate.compress(model, foveate.aircache(keep=0.1)):
        cache = StaticCache(config=config, max_cache_len=64)
        assert gold.same(
            gold.generate(model, inputs, past_key_values=cache, disable_compile=True), expected
        )


def test_without_a_cache_nothing_is_compressed():
    model, inputs = QWEN.build(), QWEN.inputs(1)
    untouched = gold.generate(model, inputs, use_cache=False)
    with foveate.compress(model, foveate.aircache(keep=0.1)):
        try:
            output = gold.generate(model, inputs, use_cache=False)
        except foveate.FoveateError:
            return
        assert gold.same(output, untouched)


@pytest.mark.parametrize("name", ["llava-onevision", "qwen3"])
def test_assistant_model_is_refused_or_keeps_the_budget(name):
    family = families.BY_NAME[name]
    model, helper, inputs = family.build(), families.BY_NAME["qwen3"].build(3), family.inputs(1)
    options = {"assistant_model": helper, "max_new_tokens": 8}
    gold.untouched(model, inputs, **options)
    try:
        output, report = by_cache(family, model, inputs, foveate.aircache(keep=0.2), **options)
    except foveate.FoveateError as refusal:
        assert "assist" in str(refusal)
    else:
        check_selection(family, model, inputs, report, 0.2)
        assert output.sequences.shape[1] == inputs["input_ids"].shape[1] + 8


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_inputs_embeds_without_ids_needs_a_mask(family):
    """Token kinds cannot be read from embeddings; an explicit mask serves."""
    model, inputs = family.build(), family.inputs(1)
    if "inputs_embeds" not in inspect.signature(model.prepare_inputs_for_generation).parameters:
        pytest.skip("transformers does not generate from inputs_embeds for this model")
    ids = inputs["input_ids"]
    embeds = model.get_input_embeddings()(ids).detach()
    prompt = {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}
    untouched = gold.generate(model, prompt)
    mask = ids == families.IMAGE
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.2), visual_mask=mask)
    output = gold.generate(model, prompt, past_key_values=cache)
    told = sum(layer.kept_visual for layer in cache.report().layers)
    assert told == round(0.2 * int(mask.sum()) * len(family.full_layers))
    assert torch.equal(output.logits[0], untouched.logits[0])
    assert gold.distance(output, untouched) > 1e-3


def test_copy_of_a_model_inside_its_context_is_an_ordinary_model():
    model, inputs = QWEN.build(), QWEN.inputs(1)
    untouched = gold.generate(model, inputs)
    with foveate.compress(model, foveate.aircache(keep=0.1)):
        compressed = gold.generate(model, inputs)
        twin = copy.deepcopy(model)
    assert gold.distance(compressed, untouched) > 1e-2
    assert gold.same(gold.generate(twin, inputs), untouched) or gold.same(
        gold.generate(twin, inputs), compressed
    ), "a copy either is free of the context or compresses too; it must run"


def test_flash_attention_without_the_package_is_not_our_error():
    with pytest.raises((ImportError, ValueError)):
        QWEN.build(attention="flash_attention_2")


def test_hybrid_with_a_cache_of_its_own_is_refused():
    """Before 5.14 recurrent hybrids bring a cache class of their own, which cannot be replaced."""
    if not Version("5.3") <= families.VERSION < Version("5.14"):
        pytest.skip("this transformers has a common cache for hybrids, or no such model")
    family = replace(families.BY_NAME["qwen3.5"], since="5.3")
    model, inputs = family.build(), family.inputs(1)
    untouched = gold.generate(model, inputs)
    with pytest.raises(foveate.UnsupportedModel):
        by_cache(family, model, inputs, foveate.aircache(keep=0.2))
    assert gold.same(gold.generate(model, inputs), untouched)


def test_a_table_of_another_model_is_refused_when_the_cache_is_made(tmp_path):
    model = QWEN.build()
    layers, query_heads, kv_heads = shape(model)

    def table(layers, name="org/model"):
        numbers = {"layers": layers, "query_heads": query_heads, "kv_heads": kv_heads}
        head = {"format": "foveate-heads", "version": 1, "model": name}
        save_table(
            tmp_path / "heads.json", {**head, **numbers, "scores": [[1.0] * query_heads] * layers}
        )
        return foveate.sparsemm(table=str(tmp_path / "heads.json"))

    foveate.CompressedCache(model, table(layers))
    with pytest.raises(foveate.MethodError, match=r"\(4, 6, 2\), and this model \(3, 6, 2\)"):
        foveate.CompressedCache(model, table(layers + 1))
    model.config._name_or_path = "org/model"
    foveate.CompressedCache(model, table(layers))
    with pytest.raises(foveate.MethodError, match=r"is of other, and this model is org/model"):
        foveate.CompressedCache(model, table(layers, "other"))
