"""Later turns compete with what is stored; kept positions equal plain loops on the model's own."""

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

import families
import gold
from decoding import FAMILIES, NAMES, OPTIONS, method, positions, watched
from reference.decoding import SIMULATORS
from seam import follow, native_turns, two_turns

NAME = pytest.mark.parametrize("name", NAMES)
SOME = pytest.mark.parametrize("name", ["h2o", "tova", "roco", "prefixkv", "cake"])
EVERY = pytest.mark.parametrize("every", [1, 3])
RECIPES = {"text": (6,), "image": (4, ("image", 1), 5)}


def turns(family, recipe):
    """A model and prompts whose second turn the untouched model can take."""
    model, inputs = family.build(), family.inputs(3)
    if "image" in str(recipe) and "qwen" in family.name:
        pytest.skip("Qwen-VL cannot place a later image in `generate` itself")
    native_turns(family, model, inputs, recipe)
    return model, inputs


def second_turn(family, model, inputs, cache, recipe, **options):
    """The output of a turn behind the first one."""
    first = gold.generate(model, inputs, past_key_values=cache)
    turn = follow(family, inputs, first.sequences, recipe)
    return gold.generate(model, turn, past_key_values=cache, **options)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@NAME
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_second_turn_competes_with_what_is_stored(family, name, recipe):
    recipe = RECIPES[recipe]
    model, inputs = turns(family, recipe)
    made = method(name, 0.5, 2)
    watch = watched(family, model, inputs, made)
    first, _, turn, second = two_turns(family, model, inputs, watch.cache, recipe)
    with gold.hiding(model, *watch.stages):
        full = DynamicCache(config=model.config)
        a, _, _, b = two_turns(family, model, inputs, full, recipe)
    assert gold.distance(first, a) <= gold.TOLERANCE
    assert gold.distance(second, b) <= gold.TOLERANCE
    assert torch.equal(second.sequences, b.sequences)
    valid, T = inputs["attention_mask"].sum(-1), inputs["input_ids"].shape[1]
    new = turn["input_ids"].shape[1] - (T + gold.STEPS - 1)  # with the last token of the first turn
    padded = turn["attention_mask"][:, T:] == 0
    assert not padded.any()
    for layer in watch.layers():
        planned, seen = layer.store.planned, valid[:, None] + layer.store.seen - T
        room = planned * (valid[:, None] + new) // valid[:, None]
        if made.when.grows:
            room = -(-planned * seen // valid[:, None])
        held = (~watch.hidden()[layer.index]).sum(-1)
        assert ((held == room) | (held == room + 1)).all(), "room grows by the new prompt's share"


@pytest.mark.parametrize("name", ["h2o", "tova", "streaming", "roco"])
@pytest.mark.parametrize("keep", [30, 60])
def test_a_number_of_tokens_stays_one_in_later_turns(name, keep):
    family = families.BY_NAME["internvl"]
    model, inputs = turns(family, (6,))
    watch = watched(family, model, inputs, method(name, keep))
    two_turns(family, model, inputs, watch.cache, (6,))
    for hidden in watch.hidden().values():
        seen = inputs["attention_mask"].sum(-1) + hidden.shape[-1] - inputs["input_ids"].shape[1]
        held = (~hidden).sum(-1)
        assert torch.equal(held, seen.clamp(max=keep)[:, None].expand_as(held))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@SOME
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("chunk", [3])
def test_a_second_turn_in_chunks_is_the_turn(family, name, recipe, chunk):
    """Chunks are looked at together, behind the last one; a chunk of one token is no step."""
    recipe = RECIPES[recipe]
    model, inputs = turns(family, recipe)
    pair = ({}, {"prefill_chunk_size": chunk})
    try:
        full = [second_turn(family, model, inputs, DynamicCache(config=model.config), recipe, **o)
                for o in pair]  # fmt: skip
    except (ValueError, RuntimeError, IndexError) as error:
        pytest.skip(f"transformers itself: {' '.join(str(error).split())[:90]}")
    if gold.distance(*full) > gold.TOLERANCE:
        pytest.skip("chunks change the untouched model")
    runs = []
    for options in pair:
        watch = watched(family, model, inputs, method(name, 0.5, 2))
        second = second_turn(family, model, inputs, watch.cache, recipe, **options)
        runs.append((second, watch.hidden()))
    (whole, a), (chunked, b) = runs
    assert gold.distance(whole, chunked) <= gold.TOLERANCE
    assert all(torch.equal(a[layer], b[layer]) for layer in a)


_seen: dict[int, list[tuple[torch.Tensor, torch.Tensor, float]]] = {}


def _noted(module, q, k, v, mask, **kwargs):
    """sdpa that notes each layer's queries and new keys."""
    new = k[:, :, k.shape[2] - q.shape[2] :]
    scaling = kwargs.get("scaling") or q.shape[-1] ** -0.5
    _seen.setdefault(module.layer_idx, []).append((q, new, scaling))
    return sdpa_attention_forward(module, q, k, v, mask, **kwargs)


AttentionInterface.register("noted", _noted)
AttentionMaskInterface.register("noted", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


@pytest.mark.parametrize("family", [FAMILIES[0], FAMILIES[-1]], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("keep", [0.5, 40], ids=str)
def test_positions_equal_loops_over_the_models_own_queries_and_keys(
    family, name, every, keep, storage
):
    if storage != "dense":
        pytest.skip("the keys are read off a function that ragged attention does not call")
    model, inputs = family.build(), family.inputs(1)
    watch = watched(family, model, inputs, method(name, keep, every))
    _seen.clear()
    with gold.attending(model, "noted"):
        two_turns(family, model, inputs, watch.cache, (6,))
    T, tokens = inputs["input_ids"].shape[1], watch.passes[1:]
    passes = [(n, n > 1) for n in tokens]
    options = {k: v for k, v in OPTIONS[name].items() if k != "merge"}
    found = [*watch.stages[1:], gold.Stage(watch.cache.seen, watch.hidden())]
    for layer in watch.layers():
        q, k = (torch.cat([part[i][0] for part in _seen[layer.index]], 1) for i in (0, 1))
        chosen = [positions(stage.hidden[layer.index])[0] for stage in found]
        expected = SIMULATORS[name](
            q.numpy(),
            k.numpy(),
            _seen[layer.index][0][2],
            T,
            positions(watch.stages[0].hidden[layer.index])[0],
            passes,
            keep=keep,
            every=every,
            found=chosen,
            **options,
        )
        assert chosen == expected
