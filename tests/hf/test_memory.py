"""The bytes that a report promises are the bytes that are held, and what is evicted is gone."""

import gc
import weakref

import pytest
import torch

import families
import foveate
import gold
from seam import by_context, cache_for, candidates, heads, kept

FAMILIES = pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)
WIDTH = 8  # of every head of every family here
ITEM = 4


@pytest.fixture(autouse=True)
def nursery():
    """Sets everything that lives already aside, so that looking at what is new is quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def alive(length: int = 1, flat: bool = False) -> list[torch.Tensor]:
    """Every live tensor that looks like keys or values of at least `length` slots, or flat ones."""
    found = [x for x in gc.get_objects() if type(x) is torch.Tensor]
    found = [x for x in found if x.ndim in ((2, 4) if flat else (4,)) and x.shape[-1] == WIDTH]
    return [x for x in found if x.shape[-2] >= length]


def storages(tensors: list[torch.Tensor]) -> int:
    """Bytes of the distinct storages behind tensors: a view of a large storage counts in full."""
    return sum({s.data_ptr(): s.nbytes() for x in tensors if (s := x.untyped_storage())}.values())


def pointer(tensor: torch.Tensor) -> int:
    """What tells storages apart."""
    return tensor.untyped_storage().data_ptr()


def native_storages(family, cache) -> set[int]:
    """Storages of the layers that stay native (a sliding window is a view of a longer one)."""
    native = [layer for i, layer in enumerate(cache.layers) if i not in family.full_layers]
    held = [value for layer in native for value in vars(layer).values()]
    held += [x for value in held if isinstance(value, dict) for x in value.values()]
    held += [x for value in held if isinstance(value, list | tuple) for x in value]
    return {pointer(x) for x in held if torch.is_tensor(x)}


def prompt_only(family, model, inputs, method):
    """A cache that holds the compressed prompt and nothing else."""
    cache = cache_for(family, model, inputs, method)
    gold.generate(model, inputs, past_key_values=cache, max_new_tokens=1)
    return cache


@FAMILIES
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_freed_bytes_are_promised_bytes(family, batch, keep, storage):
    model, inputs = family.build(), family.inputs(batch)
    gc.collect()
    flat = storage != "dense"
    before = {id(x) for x in alive(flat=flat)}
    cache = prompt_only(family, model, inputs, foveate.aircache(keep=keep))
    report = cache.report()
    gc.collect()
    theirs = native_storages(family, cache)
    mine = [x for x in alive(flat=flat) if id(x) not in before and pointer(x) not in theirs]
    B, H, T = inputs["input_ids"].shape[0], heads(model), inputs["input_ids"].shape[1]
    slot = H * WIDTH * ITEM * 2
    masks = kept(family, model, inputs, report)
    promised = sum(int(mask.sum(-1).amax()) for mask in masks.values()) * B * slot
    if storage != "dense":  # no slot is empty
        promised = sum(int(mask.sum()) for mask in masks.values()) * slot // H
    told = sum(layer.bytes_stored for layer in report.layers)
    assert storages(mine) == told == promised
    assert sum(layer.bytes_full for layer in report.layers) == len(masks) * B * T * slot
    if batch == 1:
        V = int(candidates(family, inputs).sum())
        text = len(masks) * (T - V)
        assert told == (max(round(keep * V * len(masks)), len(masks)) + text) * slot
    del mine


@FAMILIES
def test_bytes_grow_by_one_slot_per_generated_token(family):
    model, inputs = family.build(), family.inputs(3)
    short = prompt_only(family, model, inputs, foveate.aircache(keep=0.1))
    long = cache_for(family, model, inputs, foveate.aircache(keep=0.1))
    gold.generate(model, inputs, past_key_values=long)
    stored = [sum(x.bytes_stored for x in c.report().layers) for c in (short, long)]
    slot = 3 * heads(model) * WIDTH * ITEM * 2 * len(family.full_layers)
    assert stored[1] - stored[0] == (gold.STEPS - 1) * slot


@FAMILIES
def test_full_cache_is_not_kept_alive_anywhere(family):
    model, inputs = family.build(), family.inputs(1)
    T = inputs["input_ids"].shape[1]
    gc.collect()
    before = {id(x) for x in alive(T)}
    cache = prompt_only(family, model, inputs, foveate.aircache(keep=0.1))
    gc.collect()
    theirs = native_storages(family, cache)
    longer = [x for x in alive(T) if id(x) not in before and pointer(x) not in theirs]
    assert [tuple(x.shape) for x in longer] == []
    assert len(alive(flat=True)) >= 2 * len(family.full_layers)
    del cache


@FAMILIES
def test_memory_is_freed_without_the_garbage_collector(family):
    model, inputs = family.build(), family.inputs(1)
    with torch.no_grad():
        model(**inputs)  # whatever a model sets up once
    gc.collect()
    gc.disable()
    try:
        before = {id(x) for x in alive()}
        cache = cache_for(family, model, inputs, foveate.aircache(keep=0.1))
        gold.generate(model, inputs, past_key_values=cache, return_dict_in_generate=False)
        watch = weakref.ref(cache)
        assert any(id(x) not in before for x in alive())
        del cache
        assert watch() is None, "nothing but the caller holds the cache"
        assert [x.shape for x in alive() if id(x) not in before] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_a_session_keeps_reports_and_no_keys(family):
    model, inputs = family.build(), family.inputs(3)
    gc.collect()
    before = {id(x) for x in alive()}
    with foveate.compress(model, foveate.aircache(keep=0.1)) as session:
        for _ in range(2):
            gold.generate(model, inputs, return_dict_in_generate=False)
            gc.collect()
            assert [x.shape for x in alive() if id(x) not in before] == []
    assert len(session.reports) == 2
    assert session.report.kept(family.full_layers[0], 1, 0).numel() > 0


def test_report_is_plain_data(tmp_path):
    import json

    family = families.BY_NAME["gemma3"]
    model, inputs = family.build(), family.inputs(3)
    _, report = by_context(family, model, inputs, foveate.aircache(keep=0.1))
    data = json.loads(json.dumps(report.to_dict()))
    assert data["bytes_stored"] == report.bytes_stored < data["bytes_full"] == report.bytes_full
    assert [layer["layer"] for layer in data["layers"]] == list(family.full_layers)
    assert data["total_visual"] == int(candidates(family, inputs).sum())
    assert report.bytes_peak >= report.bytes_stored and report.seconds > 0
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["method"] == data["method"]
    assert str(report.total_visual) in str(report)


@pytest.mark.parametrize("undo", ["crop", "select"])
def test_the_peak_knows_what_steps_added_before_it_went_again(undo):
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(2)
    cache = foveate.CompressedCache(model, foveate.snapkv(keep=0.3, window=4))
    model.generate(**inputs, past_key_values=cache, max_new_tokens=60, do_sample=False)
    layers = cache.compressed_layers
    grown = sum(layer.nbytes for layer in layers)
    if undo == "crop":
        cache.crop(-50)
    else:
        cache.batch_select_indices(torch.tensor([0]))
    assert sum(layer.nbytes for layer in layers) < grown <= cache.report().bytes_peak
