"""What new tokens give to every position, against the weights of eager attention."""

import pytest
import torch
from transformers import DynamicCache

from families import BY_NAME
from foveate.hf.attended import attended


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_sums_are_those_of_the_weights_of_eager_attention(attention):
    family = BY_NAME["llava-1.5"]
    model, inputs = family.build(attention=attention), family.inputs(1)
    cache, twin = (DynamicCache(config=model.config) for _ in range(2))
    ids, length = torch.tensor([[9, 40, 77]]), inputs["input_ids"].shape[1]
    rows = torch.tensor([[length, -1, length + 2]])
    model(**inputs, past_key_values=cache)
    with attended(model, cache, rows, torch.ones(1, length + 3, dtype=torch.bool)) as found:
        logits = model(input_ids=ids, past_key_values=cache).logits
    slowly = family.build(attention="eager")
    slowly(**inputs, past_key_values=twin)
    output = slowly(input_ids=ids, past_key_values=twin, output_attentions=True)
    assert (logits - output.logits).abs().max() <= 1e-5
    assert sorted(found) == list(family.full_layers)
    for layer, weights in enumerate(output.attentions):
        sums = weights[:, :, [0, 2]].sum(2).unflatten(1, (2, -1)).mean(2)
        assert torch.allclose(found[layer], sums, atol=1e-6)


def test_the_cache_is_a_plain_one_again_after_an_error():
    model = BY_NAME["llava-1.5"].build()
    cache = DynamicCache(config=model.config.get_text_config())
    none = torch.zeros(1, 0, dtype=torch.long)
    with pytest.raises(KeyError), attended(model, cache, none, none.bool()):
        assert "update" in vars(cache.layers[0])
        raise KeyError
    assert not any("update" in vars(layer) for layer in cache.layers)
