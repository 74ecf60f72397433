"""Redundancy of keys and kept shares, against plain loops and what the cache reports."""

import pytest
import torch

from families import BY_NAME
from foveate import CompressedCache, method
from foveate.calibration.keys import redundancy
from foveate.errors import UnsupportedModel
from foveate.hf.prefill import kept_shares, key_redundancy


def mean_cosine(keys):
    """Return the mean over all pairs of different keys, pair by pair."""
    unit = [key / key.norm() for key in keys.double()]
    pairs = [float(a @ b) for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j]
    return sum(pairs) / len(pairs)


def test_redundancy_is_the_mean_cosine_of_pairs():
    keys = torch.randn(3, 13, 7) + torch.tensor([0.0, 1.0, 5.0])[:, None, None]
    found = redundancy(keys)
    assert found.tolist() == pytest.approx([mean_cosine(head) for head in keys], abs=1e-12)
    assert found[0] < found[1] < found[2]
    same = torch.ones(1, 5, 4)
    assert redundancy(same).item() == pytest.approx(1.0)
    assert redundancy(torch.stack([torch.eye(4)[0], -torch.eye(4)[0]])[None]).item() == -1.0
    assert torch.isfinite(redundancy(torch.zeros(1, 3, 4))).all()
    assert torch.isfinite(redundancy(torch.ones(1, 1, 4))).all()


@pytest.mark.parametrize("name", ["qwen2-vl", "llava-onevision", "gemma3"])
def test_redundancy_of_a_prompt(name):
    family = BY_NAME[name]
    model, inputs = family.build(), family.inputs(1)
    found = key_redundancy(model, inputs)
    cache = CompressedCache(model, method("full"))
    with torch.no_grad():
        model(**inputs, past_key_values=cache, use_cache=True)
    assert found.shape == (len(cache.layers), 2)
    for index, row in enumerate(found):
        if index in family.full_layers:
            keys = cache.layers[index].keys[0]
            assert row.tolist() == pytest.approx([mean_cosine(head) for head in keys], abs=1e-6)
        else:
            assert row.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["qwen2-vl", "gemma3"])
def test_kept_shares_are_what_is_stored(name):
    family = BY_NAME[name]
    model, inputs = family.build(), family.inputs(1)
    chosen = method("random", keep=0.5)
    shares = kept_shares(model, inputs, chosen)
    cache = CompressedCache(model, chosen)
    with torch.no_grad():
        model(**inputs, past_key_values=cache, use_cache=True)
    tokens = inputs["input_ids"].shape[1]
    for index, share in enumerate(shares.tolist()):
        stored = cache.layers[index].store.stored if index in family.full_layers else tokens
        assert share == pytest.approx(stored / tokens)
    assert kept_shares(model, inputs, method("full")).tolist() == [1.0] * len(cache.layers)


def test_models_without_a_seam_are_refused():
    model = BY_NAME["qwen2-vl"].build()
    model.config.is_encoder_decoder = True
    with pytest.raises(UnsupportedModel, match="encoder-decoder"):
        key_redundancy(model, {})
