"""Less trodden paths: videos, threads, foreign caches, failed passes, odd prompts."""

import copy
import threading

import pytest
import torch
from transformers import DynamicCache

import families
import foveate
import gold
from families import SPECIAL, Prompt
from families.base import VIDEO, VISION_END, VISION_START, pixels
from seam import by_context, cache_for, check_selection, stage

LLAVA, QWEN = families.BY_NAME["llava-1.5"], families.BY_NAME["qwen2-vl"]
AIR = foveate.aircache(keep=0.2)


def video_inputs(family, frames=3):
    """A prompt with a video of three frame pairs between text."""
    rng = torch.Generator().manual_seed(4)
    head, tail = family.prompt((4,), 1), family.prompt((6,), 2)
    h, w = 4, 6
    clip = (VISION_START, *[VIDEO] * (frames * h * w // 4), VISION_END)
    inputs = family.encode([Prompt(head.ids + clip + tail.ids[1:])])
    inputs["pixel_values_videos"] = pixels((frames * h * w, 3 * 2 * 16), rng)
    inputs["video_grid_thw"] = torch.tensor([[frames, h, w]])
    return inputs


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl"])
def test_video_tokens_are_compressed(name):
    family = families.BY_NAME[name]
    model, inputs = family.build(), video_inputs(family)
    full = gold.generate(model, inputs)
    with foveate.compress(model, foveate.full()):
        assert gold.same(gold.generate(model, inputs), full)
    output, report = by_context(family, model, inputs, AIR)
    V = int((inputs["input_ids"] == VIDEO).sum())
    assert report.total_visual == V
    assert sum(layer.kept_visual for layer in report.layers) == round(0.2 * V * 3)
    with gold.hiding(model, stage(family, model, inputs, report)):
        twin = gold.generate(model, inputs)
    assert gold.distance(output, twin) <= gold.TOLERANCE
    assert gold.distance(output, full) > 1e-2


def test_cache_of_one_model_in_another_is_refused():
    model, other, inputs = LLAVA.build(0), LLAVA.build(1), LLAVA.inputs(1)
    untouched = gold.generate(other, inputs)
    cache = cache_for(LLAVA, model, inputs, AIR)
    with pytest.raises(foveate.FoveateError):
        gold.generate(other, inputs, past_key_values=cache)
    assert gold.same(gold.generate(other, inputs), untouched)


def test_cache_of_a_failed_pass_is_refused_afterwards():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    cache = cache_for(LLAVA, model, inputs, AIR)
    last = max((m for m in model.modules() if hasattr(m, "layer_idx")), key=lambda m: m.layer_idx)

    def explode(*_):
        raise MemoryError("in the last layer")

    hook = last.register_forward_pre_hook(explode)
    with pytest.raises(MemoryError):
        gold.generate(model, inputs, past_key_values=cache)
    hook.remove()
    with pytest.raises(foveate.CacheError), torch.no_grad():
        model(**inputs, past_key_values=cache)
    cache.reset()
    fresh = cache_for(LLAVA, model, inputs, AIR)
    assert gold.same(
        gold.generate(model, inputs, past_key_values=cache),
        gold.generate(model, inputs, past_key_values=fresh),
    )


def test_native_cache_inside_a_context_stays_native():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    expected = gold.generate(model, inputs, past_key_values=DynamicCache(config=model.config))
    with foveate.compress(model, AIR) as session:
        mine = DynamicCache(config=model.config)
        assert gold.same(gold.generate(model, inputs, past_key_values=mine), expected)
    assert session.reports == []
    with pytest.raises(foveate.CacheError):
        session.report  # noqa: B018


def test_cache_that_outlives_its_context_goes_on_or_is_refused():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)

    def follow(output):
        more = LLAVA.prompt((5,), 3).ids
        ids = torch.cat([output.sequences, torch.tensor([more])], 1)
        turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return gold.generate(model, turn, past_key_values=output.past_key_values)

    with foveate.compress(model, AIR):
        inside = follow(gold.generate(model, inputs))
    with foveate.compress(model, AIR):
        first = gold.generate(model, inputs)
    untouched = gold.generate(model, inputs)
    try:
        outside = follow(first)
    except foveate.CacheError:
        pass
    else:
        assert gold.same(outside, inside)
    assert gold.same(gold.generate(model, inputs), untouched)


@pytest.mark.parametrize("shared", [False, True], ids=["two-models", "one-model"])
def test_threads_do_not_disturb_each_other(shared):
    models = [LLAVA.build(0)] * 2 if shared else [LLAVA.build(0), QWEN.build(1)]
    used = [LLAVA, LLAVA if shared else QWEN]
    inputs = [family.inputs(3, seed=i) for i, family in enumerate(used)]
    methods = [foveate.aircache(keep=0.1), foveate.random(keep=0.5, seed=1)]

    def run(i):
        cache = cache_for(used[i], models[i], inputs[i], methods[i])
        return gold.generate(models[i], inputs[i], past_key_values=cache)

    alone, together = [run(0), run(1)], [[], []]

    def repeat(i):
        for _ in range(4):
            together[i].append(run(i))

    threads = [threading.Thread(target=repeat, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, seen in zip(alone, together, strict=True):
        assert len(seen) == 4 and all(gold.same(output, expected) for output in seen)


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_generated_placeholders_are_text(family):
    """A model may write the placeholder's id; such a token is neither visual nor ever evicted."""
    model, inputs = family.build(), family.inputs(1)
    bias = {"suppress_tokens": [i for i in range(families.VOCAB) if i != families.IMAGE]}
    output, report = by_context(family, model, inputs, AIR, **bias)
    assert (output.sequences[0, -gold.STEPS :] == families.IMAGE).all()
    check_selection(family, model, inputs, report, 0.2)
    with gold.hiding(model, stage(family, model, inputs, report)):
        twin = gold.generate(model, inputs, **bias)
    assert gold.distance(output, twin) <= gold.TOLERANCE


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_long_generation_keeps_every_new_token(family):
    model, inputs = family.build(), family.inputs(3)
    cache = cache_for(family, model, inputs, AIR)
    output = gold.generate(model, inputs, past_key_values=cache, max_new_tokens=40)
    with gold.hiding(model, stage(family, model, inputs, cache.report())):
        twin = gold.generate(model, inputs, max_new_tokens=40)
    assert gold.distance(output, twin) <= gold.TOLERANCE
    assert cache.get_seq_length() == inputs["input_ids"].shape[1] + 39


@pytest.mark.parametrize("length", [1, 2])
def test_shortest_prompts(length):
    family = families.BY_NAME["qwen3"]
    model = family.build()
    ids = torch.full((1, length), 7)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    untouched = gold.generate(model, inputs)
    cache = foveate.CompressedCache(model, AIR, visual_mask=torch.zeros_like(ids).bool())
    assert gold.same(gold.generate(model, inputs, past_key_values=cache), untouched)


def test_prompt_without_attention_mask():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    masked, _ = by_context(LLAVA, model, inputs, AIR)
    del inputs["attention_mask"]
    output, report = by_context(LLAVA, model, inputs, AIR)
    assert gold.same(output, masked)
    assert report.kept(0).numel() < inputs["input_ids"].shape[1]


def test_right_padded_prompt_is_masked_as_given():
    """Right padding is unusual for generation; what is hidden by the mask stays hidden."""
    family = families.BY_NAME["llava-1.5"]
    model, prompts = family.build(), family.prompts(3)[:2]
    left = family.encode(prompts)
    width = left["input_ids"].shape[1]
    rows = [list(p.ids) + [families.PAD] * (width - len(p.ids)) for p in prompts]
    right = {**left, "input_ids": torch.tensor(rows)}
    right["attention_mask"] = (right["input_ids"] != families.PAD).long()
    untouched = gold.generate(model, right)
    whole, _ = by_context(family, model, right, foveate.full())
    assert gold.same(whole, untouched)
    output, report = by_context(family, model, right, AIR)
    check_selection(family, model, right, report, 0.2)
    with gold.hiding(model, stage(family, model, right, report)):
        twin = gold.generate(model, right)
    assert gold.distance(output, twin) <= gold.TOLERANCE


def test_method_objects_are_values():
    import pickle

    method = foveate.aircache(keep=0.1)
    assert method == foveate.aircache(keep=0.1) != foveate.aircache(keep=0.2)
    assert pickle.loads(pickle.dumps(method)) == copy.deepcopy(method) == method
    assert "0.1" in repr(method)
    assert SPECIAL
