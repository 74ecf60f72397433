"""What goes wrong around a cache: finished rows, interrupts, bad images, threads, copies."""

import copy
import pickle
import threading
import weakref
from contextlib import nullcontext

import pytest
import torch
from packaging.version import Version
from transformers import DynamicCache, GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import families
import foveate
import gold
from families import IMAGE
from seam import follow, stage

LLAVA, QWEN = families.BY_NAME["llava-1.5"], families.BY_NAME["qwen2-vl"]


def after_a_finished_row(family, inputs, sequences, recipe):
    """A second turn whose mask hides the last generated tokens of row 1, as a chat loop does."""
    more = family.encode([family.prompt(recipe, 50 + row) for row in range(len(sequences))])
    ids = torch.cat([sequences, more["input_ids"]], 1)
    mask = torch.ones_like(ids)
    mask[:, : inputs["input_ids"].shape[1]] = inputs["attention_mask"]
    mask[1, sequences.shape[1] - 5 : sequences.shape[1]] = 0
    turn = {"input_ids": ids, "attention_mask": mask}
    if "mm_token_type_ids" in inputs:
        turn["mm_token_type_ids"] = (ids == IMAGE).long()
    return turn | {name: value for name, value in more.items() if name not in turn}


@pytest.mark.parametrize("recipe", [(6,), (6, ("image", 1), 5)], ids=["text", "image"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_row_that_finished_early_stays_hidden(recipe, attention):
    model, inputs = LLAVA.build(attention=attention), LLAVA.inputs(3)
    cache = foveate.CompressedCache(model, foveate.random(keep=0.3))
    first = gold.generate(model, inputs, past_key_values=cache)
    stages = [stage(LLAVA, model, inputs, cache.report())]
    turn = after_a_finished_row(LLAVA, inputs, first.sequences, recipe)
    second = gold.generate(model, turn, past_key_values=cache)
    if len(recipe) > 1:
        stages.append(stage(LLAVA, model, turn, cache.report()))
    with gold.hiding(model, *stages):
        full = DynamicCache(config=model.config)
        gold.generate(model, inputs, past_key_values=full)
        twin = gold.generate(model, turn, past_key_values=full)
    assert gold.distance(second, twin) <= gold.TOLERANCE


@pytest.mark.parametrize("storage", ["dense", "ragged"])
@pytest.mark.parametrize("loop", [False, True], ids=["generate", "forward"])
def test_a_mask_that_hides_more_than_before_is_followed_in_every_step(loop, storage):
    model, inputs = LLAVA.build(), LLAVA.inputs(3)
    cache = foveate.CompressedCache(model, foveate.random(keep=0.3), storage=storage)
    caches, found = (DynamicCache(config=model.config), cache), []
    first = gold.generate(model, inputs, past_key_values=cache)
    with gold.hiding(model, stage(LLAVA, model, inputs, cache.report())):
        gold.generate(model, inputs, past_key_values=caches[0])
    turn = follow(LLAVA, inputs, first.sequences, (1,) if loop else (6,))
    prompt = inputs["input_ids"].shape[1]
    turn["attention_mask"][:, prompt - 4 : prompt - 1] = 0
    for made in caches:
        hide = gold.hiding(model, stage(LLAVA, model, inputs, cache.report()))
        with nullcontext() if made is cache else hide, torch.no_grad():
            if loop:
                mask = turn["attention_mask"][:, : made.get_seq_length() + 1]
                one = {"input_ids": turn["input_ids"][:, -1:], "attention_mask": mask}
                found.append(model(**one, past_key_values=made).logits)
            else:
                found.append(gold.logits(gold.generate(model, turn, past_key_values=made)))
    assert (found[1] - found[0]).abs().max() <= gold.TOLERANCE


class Stop(KeyboardInterrupt):
    """What a notebook's stop button raises; torch calls no hook for it."""


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("step", [0, 4])
def test_an_interrupt_leaves_the_model_clean_and_the_cache_unusable(attention, step):
    model, inputs = QWEN.build(attention=attention), QWEN.inputs(1)
    untouched = gold.generate(model, inputs)
    names = set(ALL_ATTENTION_FUNCTIONS.valid_keys())
    before = {name: ALL_ATTENTION_FUNCTIONS[name] for name in names}
    cache, calls = foveate.CompressedCache(model, foveate.aircache(keep=0.3)), []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == step + 1:
            raise Stop

    hook = model.model.language_model.layers[1].register_forward_pre_hook(interrupt)
    held = None
    try:
        gold.generate(model, inputs, past_key_values=cache)
    except Stop as stop:
        held = stop  # as a notebook holds the last traceback
    finally:
        hook.remove()
    assert held is not None
    assert {name: ALL_ATTENTION_FUNCTIONS[name] for name in names} == before
    assert model.config.get_text_config()._attn_implementation == attention
    with pytest.raises(foveate.CacheError, match="use a new cache"):
        gold.generate(model, inputs, past_key_values=cache)
    assert gold.same(gold.generate(model, inputs), untouched)


def test_a_failed_image_leaves_the_cache_as_new():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    wrong = inputs | {"input_ids": inputs["input_ids"].clone()}
    wrong["input_ids"][0, -1] = IMAGE  # one placeholder more than there are features
    with pytest.raises(ValueError, match=r"(?i)features"):
        gold.generate(model, wrong, past_key_values=cache)
    fresh = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    expected = gold.generate(model, inputs, past_key_values=fresh)
    assert gold.same(gold.generate(model, inputs, past_key_values=cache), expected)


def test_options_in_a_positional_generation_config_count():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    config = GenerationConfig(use_cache=False, max_new_tokens=3)
    with (
        foveate.compress(model, foveate.aircache(keep=0.3)),
        pytest.raises(foveate.InputError, match="use_cache=False"),
    ):
        model.generate(inputs["input_ids"], config, **rest)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_threads_that_share_a_model_do_not_disturb_each_other(attention):
    model, inputs = LLAVA.build(attention=attention), LLAVA.inputs(1)
    method, answers = foveate.aircache(keep=0.3), []
    expected = gold.generate(
        model, inputs, past_key_values=foveate.CompressedCache(model, method)
    ).sequences

    def work():
        for _ in range(4):
            cache = foveate.CompressedCache(model, method)
            answers.append(gold.generate(model, inputs, past_key_values=cache).sequences)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and all(torch.equal(x, expected) for x in answers)
    assert "generate" not in vars(model) and not model._forward_pre_hooks
    assert model.config.get_text_config()._attn_implementation == attention


def test_a_copy_of_an_attached_model_can_be_attached():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    expected = gold.generate(model, inputs, past_key_values=cache)
    twin = copy.deepcopy(model)
    mine = foveate.CompressedCache(twin, foveate.aircache(keep=0.3))
    assert gold.same(gold.generate(twin, inputs, past_key_values=mine), expected)
    assert len(twin._forward_pre_hooks) == 1


def test_a_generate_that_the_user_put_on_meanwhile_stays():
    model = LLAVA.build()
    with foveate.compress(model, foveate.aircache(keep=0.3)):
        model.generate = len
    assert model.__dict__.pop("generate") is len


def test_a_cache_of_another_model_is_named():
    model, other, inputs = LLAVA.build(), LLAVA.build(1), LLAVA.inputs(1)
    mine = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    theirs = foveate.CompressedCache(other, foveate.aircache(keep=0.3))
    with pytest.raises(foveate.CacheError, match="made for another"):
        gold.generate(other, inputs, past_key_values=mine)
    assert theirs.get_seq_length() == 0


def test_compacted_positions_are_refused_where_they_have_no_meaning():
    method = foveate.aircache(keep=0.3, positions="compacted")
    with pytest.raises(foveate.MethodError, match="original"):
        foveate.CompressedCache(QWEN.build(), method)
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    with (
        foveate.compress(model, method),
        pytest.raises(foveate.UnsupportedModel, match="assisted"),
    ):
        model.generate(**inputs, max_new_tokens=3, prompt_lookup_num_tokens=2)


def test_compacted_positions_continue_behind_the_longest_layer():
    model, inputs = LLAVA.build(), LLAVA.inputs(3)
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_ids"].clone()), with_kwargs=True
    )
    with foveate.compress(model, foveate.aircache(keep=0.3, positions="compacted")) as session:
        gold.generate(model, inputs, max_new_tokens=4)
    hook.remove()
    report = session.report
    for row in range(3):
        longest = max(len(report.kept(x.layer, row, 0)) for x in report.layers)
        assert [int(positions[row, -1]) for positions in seen[1:]] == [
            longest + i for i in range(3)
        ]


def test_a_text_turn_is_counted_as_kept():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    first = gold.generate(model, inputs, past_key_values=cache)
    words = torch.full((1, 6), 30)
    ids = torch.cat([first.sequences, words], 1)
    gold.generate(model, {"input_ids": ids}, past_key_values=cache)
    report = cache.report()
    assert report.kept_text == report.total_text


def test_new_images_stay_whole_when_the_method_says_so():
    if families.VERSION < Version("5"):
        pytest.skip("this transformers drops the images of later turns")
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    method = foveate.aircache(keep=0.3, recompress=False)
    cache = foveate.CompressedCache(model, method)
    first = gold.generate(model, inputs, past_key_values=cache)
    before = cache.report().kept_visual
    more = LLAVA.encode([LLAVA.prompt((6, ("image", 1), 5), 50)])
    ids = torch.cat([first.sequences, more["input_ids"]], 1)
    turn = {"input_ids": ids, "pixel_values": more["pixel_values"]}
    gold.generate(model, turn, past_key_values=cache)
    new = int((more["input_ids"] == IMAGE).sum())
    assert cache.report().kept_visual == before + new


def test_a_bare_forward_pass_in_a_context_is_compressed_and_reported():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    with foveate.compress(model, foveate.aircache(keep=0.3)) as session, torch.no_grad():
        output = model(**inputs)
        step = model(input_ids=torch.tensor([[7]]), past_key_values=output.past_key_values)
    assert step.logits.shape[1] == 1
    assert len(session.reports) == 1
    assert session.report.bytes_stored < session.report.bytes_full


def test_slices_of_a_fused_projection_are_not_pinned():
    from foveate.cache.dense import Dense

    fused = torch.randn(1, 2, 10, 24)
    store = Dense()
    store.append(fused[..., :8], fused[..., 8:16])
    assert store.nbytes == 2 * 2 * 10 * 8 * 4


def test_a_flat_visual_mask_is_refused():
    model = LLAVA.build()
    with pytest.raises(foveate.InputError, match=r"\[B, T\]"):
        foveate.CompressedCache(model, foveate.full(), visual_mask=torch.zeros(9))


def test_a_report_survives_pickling_and_the_cache_goes_with_its_last_name():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    gold.generate(model, inputs, past_key_values=cache)
    report = cache.report()
    assert str(pickle.loads(pickle.dumps(report))) == str(report)
    gone = weakref.ref(cache)
    del cache
    assert gone() is None
    assert "generate" not in vars(model)
