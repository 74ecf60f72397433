"""Models of the papers: built as their configurations say, and divided so that parts keep."""

import pytest
import torch

from foveate.bench import shapes
from foveate.errors import InputError

BY = 32


def weights(shape):
    """Return the parameters of one layer."""
    both, inner = shape.heads + shape.kv_heads, shape.inner
    return 2 * shape.hidden * both * shape.width + 3 * shape.hidden * inner


@pytest.mark.parametrize("by", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("name", shapes.SHAPES)
def test_divided_models_keep_the_share_of_keys_and_values(name, by):
    whole = shapes.SHAPES[name]
    part = shapes.scaled(whole, by)
    assert part.hidden * by == whole.hidden and part.layers == shapes.LAYERS
    assert part.heads * whole.kv_heads == whole.heads * part.kv_heads
    assert part.kv_heads >= 2
    tokens = 32768
    before = whole.kv_heads * whole.width * tokens / weights(whole)
    after = part.kv_heads * part.width * (tokens // by) / weights(part)
    assert after == pytest.approx(before, rel=0.01)


def test_the_last_product_keeps_its_share():
    whole = shapes.SHAPES["Qwen2-VL-7B"]
    part = shapes.scaled(whole, 8)
    before = whole.vocabulary * whole.hidden / (whole.layers * weights(whole))
    after = part.vocabulary * part.hidden / (part.layers * weights(part))
    assert after == pytest.approx(before, rel=0.01)


def test_full_size_is_the_size_of_the_configuration():
    whole = shapes.SHAPES["LLaVA-OneVision-7B"]
    assert shapes.scaled(whole, 1) is whole
    text = shapes.configured(whole)["text_config"]
    assert (text["hidden_size"], text["num_hidden_layers"], text["head_dim"]) == (3584, 28, 128)


@pytest.mark.parametrize("by", [0, 3, 64])
def test_other_divisions_are_refused(by):
    with pytest.raises(InputError, match="choose one of 1, 2, 4, 8, 16, 32"):
        shapes.scaled(shapes.SHAPES["Llama-3-8B"], by)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_every_model_reads_and_writes(name):
    shape = shapes.scaled(shapes.SHAPES[name], BY)
    model = shapes.random_model(shape, 1, "cpu", torch.float32)
    batched = shapes.prompts(model, 2, 64, 1)
    cache = batched.native_cache()
    with torch.no_grad():
        batched.prefill(cache)
        batched.step(cache, 64)
    assert cache.layers[0].keys.shape == (2, shape.kv_heads, 65, shape.width)
    assert len(cache.layers) == shape.layers
    text = model.get_input_embeddings().weight.shape
    assert text == (shape.vocabulary, shape.hidden)


def test_one_token_in_32_is_text_on_both_sides_of_the_image():
    model = torch.nn.Linear(1, 1)
    visual = shapes.prompts(model, 2, 256, 1).visual
    assert visual.shape == (2, 256) and visual[0].sum() == 248
    assert visual[0].nonzero().flatten()[[0, -1]].tolist() == [2, 249]


def test_a_step_reads_all_weights_but_embeddings_and_the_image_encoder():
    shape = shapes.scaled(shapes.SHAPES["InternVL2-8B"], BY)
    model = shapes.random_model(shape, 1, "cpu", torch.bfloat16)
    norms = (2 * shape.layers + 1) * shape.hidden
    expected = shape.layers * weights(shape) + shape.vocabulary * shape.hidden + norms
    assert shapes.bytes_of_weights(model) == 2 * expected
