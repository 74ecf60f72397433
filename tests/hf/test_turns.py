"""A compressed cache goes on living: more turns, copies, cropping, reuse, forwards by hand."""

import copy
import inspect

import pytest
import torch
from transformers import DynamicCache

import families
import foveate
import gold
from families import Prompt
from seam import (
    MODES,
    budget,
    cache_for,
    candidates,
    follow,
    kept,
    native_turns,
    stage,
    two_turns,
)  # fmt: skip

FAMILIES = pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)
BATCHES = pytest.mark.parametrize("batch", [1, 3])
IN_TURN = [family for family in families.VISUAL if "qwen" not in family.name]


@FAMILIES
@BATCHES
def test_second_turn_of_text(family, batch):
    model, inputs = family.build(), family.inputs(batch)
    native_turns(family, model, inputs, (6,))
    cache = cache_for(family, model, inputs, foveate.aircache(keep=0.2))
    first, report, _, second = two_turns(family, model, inputs, cache, (6,), cache.report)
    hidden = stage(family, model, inputs, report)
    with gold.hiding(model, hidden):
        full = DynamicCache(config=model.config)
        a, _, _, b = two_turns(family, model, inputs, full, (6,))
    assert gold.distance(first, a) <= gold.TOLERANCE
    assert gold.distance(second, b) <= gold.TOLERANCE
    assert torch.equal(second.sequences, b.sequences)
    assert cache.get_seq_length() == full.get_seq_length() == second.sequences.shape[1] - 1
    for layer, mask in kept(family, model, inputs, report).items():
        told = cache.report().kept(layer, 0, 0)
        T = inputs["input_ids"].shape[1]
        assert told[told < T].tolist() == mask[0, 0].nonzero().flatten().tolist()


def later_images_count(family, model, inputs, recipe) -> bool:
    """Whether the untouched model looks at an image that comes in a second turn."""
    cache, turn, output = native_turns(family, model, inputs, recipe)
    other = turn | {"pixel_values": turn["pixel_values"].flip(-1)}
    return not gold.same(output, gold.generate(model, other, past_key_values=cache))


@pytest.mark.parametrize("family", IN_TURN, ids=str)
@BATCHES
def test_second_turn_with_a_new_image(family, batch):
    model, inputs, keep = family.build(), family.inputs(batch), 0.2
    cache = cache_for(family, model, inputs, foveate.aircache(keep=keep))
    recipe = (4, ("image", 1), 5)
    if not later_images_count(family, model, inputs, recipe):
        pytest.skip("this transformers drops the images of later turns")
    first, report, turn, second = two_turns(family, model, inputs, cache, recipe, cache.report)
    before, after = stage(family, model, inputs, report), stage(family, model, turn, cache.report())
    with gold.hiding(model, before, after):
        full = DynamicCache(config=model.config)
        a, _, _, b = two_turns(family, model, inputs, full, recipe)
    assert gold.distance(first, a) <= gold.TOLERANCE
    assert gold.distance(second, b) <= gold.TOLERANCE
    assert torch.equal(second.sequences, b.sequences)
    T, masks = inputs["input_ids"].shape[1], kept(family, model, turn, cache.report())
    new = candidates(family, turn).clone()
    new[:, :T] = False
    for layer, mask in masks.items():
        assert not (mask[..., :T] & before.hidden[layer]).any(), "what was evicted stays evicted"
    N, H = len(masks), next(iter(masks.values())).shape[1]
    share = sum((mask & new[:, None]).sum((1, 2)) for mask in masks.values())
    assert share.tolist() == [budget(keep, V, N) * H for V in new.sum(-1).tolist()]


def test_second_turn_with_a_new_image_and_positions_by_hand():
    """Qwen-VL cannot place a later image in `generate` itself, so positions are given."""
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(1)
    if "mm_token_type_ids" not in inspect.signature(model.model.get_rope_index).parameters:
        pytest.skip("this transformers finds images by their markers; covered on newer ones")
    prompt, more = family.prompts(1)[0], family.prompt((4, ("image", 1), 5), 50)
    whole = family.encode([Prompt(prompt.ids + more.ids, prompt.images + more.images)])
    T = len(prompt.ids)
    positions, _ = model.model.get_rope_index(
        **{k: v for k, v in whole.items() if k != "pixel_values"}
    )
    tail = family.encode([more])
    tail |= {"attention_mask": whole["attention_mask"], "position_ids": positions[..., T:]}

    @torch.no_grad()
    def run(cache):
        model(**inputs, position_ids=positions[..., :T], past_key_values=cache)
        seen = [model(**tail, past_key_values=cache).logits[:, -1]]
        for step in range(6):
            mask = torch.ones(1, whole["input_ids"].shape[1] + step + 1, dtype=torch.long)
            here = positions.max() + 1 + step
            token = seen[-1].argmax(-1, keepdim=True)
            seen.append(model(input_ids=token, attention_mask=mask, past_key_values=cache,
                              position_ids=here.expand(3, 1, 1)).logits[:, -1])  # fmt: skip
        return torch.stack(seen)

    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.2))
    mine = run(cache)
    report = cache.report()
    after = stage(family, model, whole, report)
    before = gold.Stage(T, {layer: hidden[..., :T] for layer, hidden in after.hidden.items()})
    with gold.hiding(model, before, after):
        twin = run(DynamicCache(config=model.config))
    assert (mine - twin).abs().max() <= gold.TOLERANCE
    assert (mine - run(DynamicCache(config=model.config))).abs().max() > 1e-2


@torch.no_grad()
def by_hand(model, inputs, cache, steps=8):
    """Logits of a decoding loop with `forward`, without positions."""
    seen = [model(**inputs, past_key_values=cache).logits[:, -1]]
    mask = inputs["attention_mask"]
    told = not hasattr(
        model.model, "rope_deltas"
    )  # M-RoPE models misread a full mask beside one token
    for _ in range(steps):
        mask = torch.nn.functional.pad(mask, (0, 1), value=1) if told else None
        token = seen[-1].argmax(-1, keepdim=True)
        seen.append(
            model(input_ids=token, attention_mask=mask, past_key_values=cache).logits[:, -1]
        )
    return torch.stack(seen)


@FAMILIES
@BATCHES
def test_loop_of_forwards_without_positions(family, batch):
    model, inputs = family.build(), family.inputs(batch)
    if batch > 1 and hasattr(model.model, "rope_deltas"):
        pytest.skip("transformers itself fails on a padded M-RoPE loop without positions")
    cache = cache_for(family, model, inputs, foveate.aircache(keep=0.2))
    mine = by_hand(model, inputs, cache)
    with gold.hiding(model, stage(family, model, inputs, cache.report())):
        twin = by_hand(model, inputs, DynamicCache(config=model.config))
    assert (mine - twin).abs().max() <= gold.TOLERANCE
    full = by_hand(model, inputs, DynamicCache(config=model.config))
    assert torch.equal(mine[0], full[0])
    assert (mine - full).abs().max() > 1e-2
    whole = by_hand(model, inputs, cache_for(family, model, inputs, foveate.full()))
    assert torch.equal(whole, full)


@FAMILIES
def test_two_questions_to_copies_of_one_compressed_prompt(family):
    model, inputs = family.build(), family.inputs(3)
    native_turns(family, model, inputs, (6,))
    cache = cache_for(family, model, inputs, foveate.aircache(keep=0.2))
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
    deltas = getattr(getattr(model, "model", None), "rope_deltas", None)
    answers = []
    for seed in (1, 2, 1):
        if deltas is not None:
            model.model.rope_deltas = deltas
        turn = follow(family, inputs, inputs["input_ids"], (6,), seed)
        answers.append(gold.generate(model, turn, past_key_values=copy.deepcopy(cache)))
    assert gold.same(answers[0], answers[2]), "asking one copy leaves the others alone"
    assert gold.distance(answers[0], answers[1]) > 1e-2
    assert cache.get_seq_length() == inputs["input_ids"].shape[1]
    with gold.hiding(model, stage(family, model, inputs, cache.report())):
        full = DynamicCache(config=model.config)
        with torch.no_grad():
            model(**inputs, past_key_values=full)
        turn = follow(family, inputs, inputs["input_ids"], (6,), 1)
        twin = gold.generate(model, turn, past_key_values=full)
    assert gold.distance(answers[0], twin) <= gold.TOLERANCE


@pytest.mark.parametrize(
    "family", [families.BY_NAME[name] for name in MODES if name != "gemma3"], ids=str
)
def test_cropping_new_tokens_and_going_on_repeats_them(family):
    model, inputs = family.build(), family.inputs(1)
    cache = cache_for(family, model, inputs, foveate.aircache(keep=0.2))
    output = gold.generate(model, inputs, past_key_values=cache)
    length, kept_before = cache.get_seq_length(), cache.report().kept(0, 0, 0)
    cache.crop(-4)
    assert cache.get_seq_length() == length - 4
    assert torch.equal(cache.report().kept(0, 0, 0), kept_before)
    ids = output.sequences[:, : length - 3]
    turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inputs:
        turn["mm_token_type_ids"] = torch.zeros_like(ids)
    again = gold.generate(model, turn, past_key_values=cache, max_new_tokens=4)
    assert torch.equal(again.sequences, output.sequences)
    assert (gold.logits(again) - gold.logits(output)[-4:]).abs().max() <= gold.TOLERANCE


@pytest.mark.parametrize("removed", [3, 12])
def test_cropping_into_the_prompt_is_refused_or_consistent(removed):
    """Cut after and inside the image: what was kept of the rest stays, or it is refused."""
    family = families.BY_NAME["internvl"]
    model, inputs = family.build(), family.inputs(1)
    length = inputs["input_ids"].shape[1] - removed
    cache = cache_for(family, model, inputs, foveate.aircache(keep=0.4))
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
    try:
        cache.crop(-removed)
    except foveate.CacheError:
        return
    assert cache.get_seq_length() == length
    report, ids = cache.report(), inputs["input_ids"]
    hidden = {
        layer: ~mask[..., :length] for layer, mask in kept(family, model, inputs, report).items()
    }
    text = torch.full_like(ids[:, length:], 7)
    turn = {
        "input_ids": torch.cat([ids[:, :length], text], 1),
        "attention_mask": torch.ones_like(ids),
    }
    output = gold.generate(model, turn, past_key_values=cache)
    full = DynamicCache(config=model.config)
    with torch.no_grad():
        model(**inputs, past_key_values=full)
    full.crop(-removed)
    with gold.hiding(model, gold.Stage(length, hidden)):
        twin = gold.generate(model, turn, past_key_values=full)
    assert gold.distance(output, twin) <= gold.TOLERANCE


@pytest.mark.parametrize("family", [families.BY_NAME[name] for name in MODES], ids=str)
def test_reset_cache_is_a_fresh_one(family):
    model, one, three = family.build(), family.inputs(1), family.inputs(3)
    native = DynamicCache(config=model.config)
    gold.generate(model, three, past_key_values=native)
    native.reset()
    gold.untouched(model, one, past_key_values=native)
    cache = cache_for(family, model, three, foveate.aircache(keep=0.2))
    gold.generate(model, three, past_key_values=cache)
    cache.reset()
    assert cache.get_seq_length() == 0
    fresh = cache_for(family, model, one, foveate.aircache(keep=0.2))
    reused = gold.generate(model, one, past_key_values=cache)
    assert gold.same(reused, gold.generate(model, one, past_key_values=fresh))
