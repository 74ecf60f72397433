"""Every bad input has an error that says what came and what to do, before any harm."""

import math

import pytest
import torch

import families
import foveate
import gold
from seam import by_context, candidates

LLAVA = families.BY_NAME["llava-1.5"]
BAD_KEEPS = [0, 0.0, 1.5, -0.1, -3, math.nan, math.inf, True, False, "x", None, [0.5]]


@pytest.mark.parametrize("keep", BAD_KEEPS, ids=repr)
@pytest.mark.parametrize("preset", ["aircache", "random", "recency"])
def test_impossible_keep_is_refused(preset, keep):
    with pytest.raises(foveate.FoveateError) as told:
        getattr(foveate, preset)(keep=keep)
    assert "keep" in str(told.value)
    if keep is not None:  # by name, that is the preset's own default
        with pytest.raises(foveate.FoveateError):
            foveate.method(preset, keep=keep)


@pytest.mark.parametrize("keep", [0, 1.5, math.nan, "x"], ids=repr)
def test_impossible_keep_leaves_the_model_alone(keep):
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    untouched = gold.generate(model, inputs)
    with pytest.raises(foveate.FoveateError), foveate.compress(model, "aircache", keep=keep):
        raise AssertionError("the context must not be entered")
    assert gold.same(gold.generate(model, inputs), untouched)


@pytest.mark.parametrize(
    ("wrong", "right"), [("aircahe", "aircache"), ("AirCache", "aircache"), ("randm", "random")]
)
def test_unknown_method_names_the_nearest(wrong, right):
    with pytest.raises(foveate.FoveateError, match=right):
        foveate.method(wrong, keep=0.1)
    with (
        pytest.raises(foveate.FoveateError, match=right),
        foveate.compress(LLAVA.build(), wrong, keep=0.1),
    ):
        pass


def test_unknown_option_names_the_nearest():
    with pytest.raises(foveate.FoveateError, match="alpha"):
        foveate.method("aircache", keep=0.1, alhpa=0.5)
    with (
        pytest.raises(foveate.FoveateError, match="alpha"),
        foveate.compress(LLAVA.build(), "aircache", keep=0.1, alhpa=0.5),
    ):
        pass


@pytest.mark.parametrize(
    "method", [None, 3, {"keep": 0.1}, object()], ids=["none", "int", "dict", "object"]
)
def test_something_else_than_a_method_is_refused(method):
    model = LLAVA.build()
    with pytest.raises((foveate.FoveateError, TypeError)):
        foveate.CompressedCache(model, method)
    with pytest.raises((foveate.FoveateError, TypeError)), foveate.compress(model, method):
        pass


@pytest.mark.parametrize(
    "model", [None, "Qwen/Qwen2-VL-2B", torch.nn.Linear(2, 3)], ids=["none", "name", "linear"]
)
def test_something_else_than_a_model_is_refused(model):
    with pytest.raises((foveate.FoveateError, TypeError)):
        foveate.CompressedCache(model, foveate.aircache(keep=0.1))
    with pytest.raises((foveate.FoveateError, TypeError)), foveate.compress(model, foveate.full()):
        pass


def test_visual_mask_of_the_wrong_shape_is_refused():
    model, inputs = LLAVA.build(), LLAVA.inputs(3)
    wrong = candidates(LLAVA, inputs)[:, :-2]
    with pytest.raises(foveate.FoveateError, match="mask"):
        cache = foveate.CompressedCache(model, foveate.aircache(keep=0.1), visual_mask=wrong)
        gold.generate(model, inputs, past_key_values=cache)


def test_visual_mask_is_repeated_for_beams():
    family = families.BY_NAME["qwen3"]
    model, inputs = family.build(), family.inputs(3)
    mask = candidates(family, inputs)
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.2), visual_mask=mask)
    gold.generate(model, inputs, past_key_values=cache, num_beams=2)
    promised = [round(0.2 * V * 3) for V in mask.sum(-1).repeat_interleave(2).tolist()]
    held = [sum(int(torch.isin(cache.report().kept(layer, row, 0), mask[row // 2].nonzero()).sum())
                for layer in range(3)) for row in range(6)]  # fmt: skip
    assert held == promised


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_no_text_after_the_image(family):
    """A prompt that ends in an image has no window after it: compressed, and noted."""
    model, inputs = family.build(), family.encode([family.prompt((6, ("image", 0)))])
    ids = inputs["input_ids"]
    ends = int((ids == families.IMAGE)[0].nonzero().max()) + 1
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            inputs[name] = inputs[name][:, :ends]
    with foveate.compress(model, foveate.aircache(keep=0.2)) as session:
        gold.generate(model, inputs)
    N, V = len(family.full_layers), int(candidates(family, inputs).sum())
    assert sum(layer.kept_visual for layer in session.report.layers) == round(0.2 * V * N)
    assert session.report.notes


def test_integer_keep_larger_than_the_prompt_keeps_everything():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    untouched = gold.generate(model, inputs)
    with foveate.compress(model, foveate.aircache(keep=10_000)):
        assert gold.same(gold.generate(model, inputs), untouched)


def test_errors_form_the_drawn_tree():
    assert issubclass(foveate.FoveateError, Exception)
    for name in ("InputError", "MethodError", "UnsupportedModel", "CacheError", "MissingExtra"):
        assert issubclass(getattr(foveate, name, foveate.FoveateError), foveate.FoveateError)


def test_a_budget_that_holds_only_what_is_protected_is_noted():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(1)
    for keep, told in ((0.1, True), (0.6, False)):
        _, report = by_context(family, model, inputs, foveate.snapkv(keep=keep))
        assert any("no more than what is protected" in note for note in report.notes) == told
