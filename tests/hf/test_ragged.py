"""Ragged storage says what dense storage says, and costs what is kept and nothing more."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import families
import foveate
import gold
from foveate.cache.dense import Dense
from foveate.hf.attention import EAGER, Call
from foveate.hf.ragged import check_known
from foveate.hf.storage import Form
from foveate.reduce import Evict
from foveate.types import Observation
from ragged import (
    BY_HEAD,
    CAPPED,
    FAMILIES,
    METHODS,
    SHARED,
    SINKS,
    cache_of,
    distance,
    entries,
    forms,
    run,
    width,
)
from seam import kept, stage

EVERY = pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)
FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=str)
METHOD = pytest.mark.parametrize("name", METHODS)
BATCH = pytest.mark.parametrize("batch", [1, 3])


@EVERY
def test_evicted_is_hidden_and_dense_storage_agrees(family):
    model, inputs, method = family.build(), family.inputs(3), METHODS["adakv"]()
    dense, _ = run(family, model, inputs, method, "dense")
    ragged, cache = run(family, model, inputs, method, "ragged")
    report = cache.report()
    assert forms(cache) == {"ragged"} and "ragged" in str(report)
    with gold.hiding(model, stage(family, model, inputs, report)):
        twin = gold.generate(model, inputs)
    assert distance(ragged, twin) <= gold.TOLERANCE
    assert distance(ragged, dense) <= gold.TOLERANCE
    assert torch.equal(ragged.logits[0], dense.logits[0])
    assert gold.distance(ragged, gold.generate(model, inputs)) > 1e-2


@FAMILY
@METHOD
@BATCH
def test_every_method_and_attention_agrees_with_dense_storage(family, name, batch):
    inputs, method = family.inputs(batch), METHODS[name]()
    attention = "eager" if batch == 1 else "sdpa"
    model = family.build(attention=attention)
    dense, other = run(family, model, inputs, method, "dense")
    for storage in ("ragged", "auto"):
        output, cache = run(family, model, inputs, method, storage)
        assert distance(output, dense) <= gold.TOLERANCE
        for layer in cache.compressed_layers:
            counts = entries(layer, cache.report())
            agree = storage == "auto" and bool((counts == counts[0, 0]).all())
            assert layer.store.name == ("dense" if agree else "ragged")
        differ = name in BY_HEAD or batch > 1
        assert ("ragged" in forms(cache)) == (differ or storage == "ragged")
        a, b = (kept(family, model, inputs, x.report()) for x in (cache, other))
        assert all(torch.equal(a[layer], b[layer]) for layer in a)


@EVERY
@BATCH
def test_everything_kept_is_the_untouched_model(family, batch):
    model, inputs = family.build(), family.inputs(batch)
    output, _ = run(family, model, inputs, foveate.aircache(keep=1.0), "ragged")
    assert gold.same(output, gold.generate(model, inputs))


@FAMILY
@pytest.mark.parametrize("name", [*BY_HEAD, "lookm"])
@BATCH
def test_stored_bytes_are_those_of_what_is_kept(family, name, batch):
    """Mixed image sizes and padding in a batch of three; a padded form of the same is larger."""
    model, inputs = family.build(), family.inputs(batch)
    sizes = {}
    for storage in ("dense", "ragged", "auto"):
        _, cache = run(family, model, inputs, METHODS[name](), storage, max_new_tokens=4)
        report = cache.report()
        counts = [entries(layer, report) for layer in cache.compressed_layers]
        slots = [layer.store.seen - report.layers[0].seen for layer in cache.compressed_layers]
        assert slots == [0] * len(slots)
        promised = [int(x.sum()) * width(y)
                    for x, y in zip(counts, cache.compressed_layers, strict=True)]  # fmt: skip
        padded = [int(x.max()) * x.numel() * width(y)
                  for x, y in zip(counts, cache.compressed_layers, strict=True)]  # fmt: skip
        stored = sizes[storage] = [x.bytes_stored for x in report.layers]
        for layer, count, told in zip(cache.compressed_layers, counts, report.layers, strict=True):
            if told.storage != "ragged":
                continue
            S = int(count.sum()) - count.numel() * 3  # three tokens behind the prompt
            own = 4 * S + 8 * (count.numel() + 1)  # positions and offsets
            runs = 4 * S + 4 * (count.numel() + 1)  # where entries lie in a padded table, on a CPU
            assert told.bytes_metadata == layer.store.metadata_nbytes == own + runs
        if storage == "dense":
            assert stored == padded
            assert name == "lookm" or sum(padded) > sum(promised), "storage can be told apart"
        elif storage == "ragged":
            assert stored == promised
    assert sizes["auto"] == sizes["ragged"]  # a dense layer whose heads agree has no empty slots


@pytest.mark.parametrize("storage", ["ragged", "auto"])
@pytest.mark.parametrize("family", [CAPPED, SINKS, SHARED], ids=str)
@BATCH
def test_caps_sinks_and_shared_keys(family, storage, batch):
    model, inputs = family.build(attention="eager"), family.inputs(batch)
    full = gold.generate(model, inputs)
    dense, _ = run(family, model, inputs, METHODS["adakv"](), "dense")
    output, cache = run(family, model, inputs, METHODS["adakv"](), storage)
    assert distance(output, dense) <= gold.TOLERANCE
    assert forms(cache) == {"ragged"} and gold.distance(output, full) > 1e-2


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [(CAPPED, "softcap", None), (SINKS, "s_aux", None)],
    ids=["softcap", "sinks"],
)
def test_without_cap_or_sinks_the_comparison_fails(family, name, value, monkeypatch):
    from foveate.hf import ragged

    inner = ragged.ragged_attention
    what = {"s_aux": "sinks"}.get(name, name)
    monkeypatch.setattr(ragged, "ragged_attention", lambda *a, **k: inner(*a, **{**k, what: value}))
    model, inputs = family.build(attention="eager"), family.inputs(3)
    dense, _ = run(family, model, inputs, METHODS["adakv"](), "dense")
    output, _ = run(family, model, inputs, METHODS["adakv"](), "ragged")
    assert distance(output, dense) > 1e-3


def test_attention_weights_are_refused_where_a_model_would_give_them():
    family = families.BY_NAME["llama"]
    model, inputs = family.build(attention="eager"), family.inputs(1)
    with pytest.raises(foveate.UnsupportedModel, match=r"output_attentions.*dense"):
        run(family, model, inputs, METHODS["adakv"](), "ragged", output_attentions=True)
    if families.VERSION.major >= 5:  # before, a variant of eager attention is not asked for them
        output, _ = run(family, model, inputs, METHODS["adakv"](), "dense", output_attentions=True)
        assert output.attentions[-1][0].shape[1] == 6


def test_a_context_takes_it_too():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(3)
    options = {"keep": 0.3, "window": 4, "scope": "visual"}
    with foveate.compress(model, "adakv", storage="auto", **options) as session:
        output = gold.generate(model, inputs)
    dense, _ = run(family, model, inputs, METHODS["adakv"](), "dense")
    assert distance(output, dense) <= gold.TOLERANCE
    told = session.report.to_dict()["layers"]
    assert {layer["storage"] for layer in told} == {"ragged"}


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"sliding_window": 43}, "a window of 43 tokens over 44"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "look ahead"),
        ({}, "eager function of its own"),
    ],
    ids=["bias", "window", "dropout", "both-ways", "own-function"],
)
def test_what_would_change_the_output_is_refused(given, what):
    query, own = torch.zeros(1, 6, 2, 8), EAGER if not given else "sdpa"
    usual = {"position_bias": None, "dropout": 0.0, "sliding_window": 44, "position_ids": query}
    check_known(Call("sdpa", torch.nn.Identity(), query, query, None, None, usual), 44)
    with pytest.raises(foveate.UnsupportedModel, match=f"{what}.*storage='dense'"):
        check_known(Call(own, torch.nn.Identity(), query, query, None, None, usual | given), 44)


def test_a_mask_for_every_query_head_is_refused():
    family = families.BY_NAME["llama"]
    model, inputs = family.build(), family.inputs(1)
    cache = cache_of(family, model, inputs, METHODS["adakv"](), "ragged")
    T = inputs["input_ids"].shape[1]
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
        mask = torch.zeros(1, 6, 1, T + 1)
        with pytest.raises(foveate.UnsupportedModel, match="a mask for every query head"):
            model(input_ids=torch.tensor([[7]]), attention_mask=mask, past_key_values=cache)


@pytest.mark.parametrize("kind", ["bool", "float", "hides"])
@pytest.mark.parametrize("queries", [1, 4])
def test_masks_of_the_caller_are_read(kind, queries):
    """A mask over logical positions by hand, over one new token and several."""
    family = families.BY_NAME["llama"]
    model, inputs, runs = family.build(), family.inputs(3), []
    T = inputs["input_ids"].shape[1]
    seen = torch.nn.functional.pad(inputs["attention_mask"].bool(), (0, queries), value=True)
    causal = torch.ones(T + queries, T + queries, dtype=torch.bool).tril()[T:]
    mask = (seen[:, None, None] & causal).clone()
    if kind == "hides":
        mask[:, :, :, T - 6 : T - 2] = False
    if kind == "float":
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    for storage in ("dense", "ragged"):
        cache = cache_of(family, model, inputs, METHODS["adakv"](), storage)
        with torch.no_grad():
            model(**inputs, past_key_values=cache)
            ids = torch.arange(7, 7 + queries).expand(3, -1)
            place = torch.arange(T, T + queries)[None]
            out = model(
                input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=cache
            )
        runs.append(out.logits)
    assert (runs[0] - runs[1]).abs().max() <= gold.TOLERANCE


class Largest(TorchDispatchMode):
    """Notes the largest tensor of floats that was made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                new = all(
                    tensor.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
                    for x in args
                    if isinstance(x, torch.Tensor)
                )
                self.numbers = max(self.numbers, tensor.numel() * new)
        return made


@pytest.mark.parametrize("storage", ["dense", "ragged"])
def test_packing_makes_no_padded_copy(storage):
    """One head keeps nearly all and the others next to nothing: padding is what is largest."""
    B, H, T, D = 2, 4, 50, 8
    keys, values = torch.randn(B, H, T, D), torch.randn(B, H, T, D)
    store = Dense()
    store.append(keys, values)
    keep = torch.zeros(B, H, T, dtype=torch.bool)
    keep[:, 0, 5:], keep[:, 1:, 7] = True, True
    kinds = torch.zeros(B, T, dtype=torch.long)
    observation = Observation(keys[:, :, :0], keys, values, kinds, 1.0, 0)
    form = Form(storage)
    with Largest() as largest:
        kept = form.reduced(store, Evict(), observation, torch.zeros(B, H, T), keep)
        packed = form.packing(store, kept)
        packed.pack(kept, T)
    padded, flat = B * H * 45 * D, int(keep.sum()) * D
    assert largest.numbers == {"dense": padded, "ragged": flat}[storage] and padded > 2 * flat
    assert packed.nbytes == 2 * 4 * largest.numbers
