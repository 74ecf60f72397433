"""Conversations that go on in one cache say what each says alone, and cost what each keeps."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foveate
import gold
from engines import RECIPES
from families import BY_NAME
from foveate.errors import CacheError
from foveate.hf import rows as module
from foveate.hf.cache import CompressedCache
from foveate.hf.rows import Rows, lonely
from foveate.schedule import AfterPrefill
from ragged import entries, width
from seam import candidates

FAMILIES = [
    BY_NAME[name] for name in ("qwen2-vl", "qwen3-vl", "llava-1.5", "llava-onevision", "llama")
]
EVERY = pytest.mark.parametrize("family", FAMILIES, ids=str)
METHODS = {
    "full": lambda: foveate.method("full"),
    "adakv": lambda: foveate.method("adakv", keep=0.3, window=4, scope="visual"),
    "aircache": lambda: foveate.method("aircache", keep=0.2),
    "foveate": lambda: foveate.method("foveate", keep=0.3),
    "lookm": lambda: foveate.method("lookm", keep=0.3),
}


@dataclass
class Talk:
    """A conversation on its own: what it says and why, and a cache that has read its prompt."""

    ids: list[int]
    logits: torch.Tensor  # [steps, vocabulary]
    cache: Any
    place: int
    kept: int  # bytes
    token: int  # bytes of one more
    said: int = 1


def cache_of(family: Any, model: Any, inputs: Any, method: Any) -> CompressedCache:
    mask = None if family.is_visual else candidates(family, inputs)
    return CompressedCache(model, method, visual_mask=mask, storage="ragged")


def talk(family: Any, model: Any, number: int, method: Any) -> Talk:
    """The conversation of that number, read and answered alone."""
    inputs = family.encode([family.prompt(RECIPES[number % len(RECIPES)], number)])
    alone = gold.generate(model, inputs, past_key_values=cache_of(family, model, inputs, method))
    tops: list[int] = []

    def watch(_: Any, args: Any, kwargs: Any) -> None:
        places = kwargs.get("position_ids")
        if places is not None:
            tops.append(int((places[1:] if len(places) == 4 else places).max()))

    hook = model.register_forward_pre_hook(watch, with_kwargs=True, prepend=True)
    cache = cache_of(family, model, inputs, method)
    gold.generate(model, inputs, past_key_values=cache, max_new_tokens=1)
    hook.remove()
    length = inputs["input_ids"].shape[1]
    if not tops:  # the model places tokens itself
        tops = [length + int(model.model.rope_deltas) - 1]
    layers, report = cache.compressed_layers, cache.report()
    return Talk(
        ids=alone.sequences[0, length:].tolist(),
        logits=gold.logits(alone)[:, 0],
        cache=cache,
        place=tops[-1] + 1,
        kept=sum(int(entries(layer, report).sum()) * width(layer) for layer in layers),
        token=sum(layer.store.shape[1] * width(layer) for layer in layers),
    )


def talks(family: Any, model: Any) -> list[Talk]:
    """One conversation by every method, each of another length and with other pictures."""
    return [talk(family, model, i, make()) for i, make in enumerate(METHODS.values())]


def join(rows: Rows, conversation: Talk) -> None:
    rows.join(conversation.cache, conversation.place)


def step(rows: Rows, model: Any, present: list[Talk]) -> None:
    """Decode one token of everybody, as each went on alone."""
    logits = rows.step(model, [x.ids[x.said - 1] for x in present])
    for conversation, row in zip(present, logits, strict=True):
        assert (row - conversation.logits[conversation.said]).abs().max() <= gold.TOLERANCE
        conversation.said += 1
    check(rows, present)


def check(rows: Rows, present: list[Talk]) -> None:
    """Every layer is in order, and costs what its rows keep, to the byte."""
    for layer in rows.compressed_layers:
        if layer.store.device is not None:
            layer.store.check()
    assert rows.nbytes == sum(x.kept + (x.said - 1) * x.token for x in present)
    assert len(rows) == len(present)


@EVERY
def test_everybody_says_what_each_says_alone(family):
    """One joins at every step, and leaves when it has said all."""
    model = family.build()
    rows, present, coming = Rows(model), [], talks(family, model)
    while coming or present:
        if coming:
            present.append(coming.pop(0))
            join(rows, present[-1])
            assert present[-1].cache.seen == 0
        step(rows, model, present)
        stays = [i for i, x in enumerate(present) if x.said < gold.STEPS]
        if len(stays) < len(present):
            rows.keep(stays)
            present = [present[i] for i in stays]
            check(rows, present)
    assert rows.nbytes == 0


def test_eager_attention_and_a_tail_that_is_folded(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_TAIL", 3)
    family = BY_NAME["qwen2-vl"]
    model = family.build(attention="eager")
    rows, present = Rows(model), talks(family, model)
    for conversation in present:
        join(rows, conversation)
    tails = []
    for _ in range(gold.STEPS - 1):
        step(rows, model, present)
        tails.append(rows.compressed_layers[0].store.keys.shape[2])
    assert tails[:5] == [1, 2, 3, 1, 2]
    assert model.config.get_text_config()._attn_implementation == "eager"


def test_compacted_positions_go_on_where_each_row_is():
    family = BY_NAME["llava-1.5"]
    model = family.build()
    present = []
    for number, keep in enumerate((0.2, 0.5)):
        method = foveate.method("snapkv", keep=keep, window=4)
        method = replace(method, when=AfterPrefill(positions="compacted"))
        present.append(talk(family, model, number, method))
    rows = Rows(model)
    for conversation in present:
        join(rows, conversation)
    assert all(now < x.place for now, x in zip(rows.places, present, strict=True))
    for _ in range(gold.STEPS - 1):
        step(rows, model, present)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_rows_do_not_see_each_other(poison):
    family = BY_NAME["qwen2-vl"]
    model = family.build()
    rows, present = Rows(model), talks(family, model)
    for conversation in present:
        join(rows, conversation)
    ill = 2
    for layer in rows.compressed_layers:
        prefix = layer.store.prefix
        row = prefix.row_numbers() == ill
        prefix.keys[row], prefix.values[row] = poison, poison
    for turn in range(1, gold.STEPS):
        logits = rows.step(model, [x.ids[turn - 1] for x in present])
        assert not logits[ill].isfinite().any()
        for number, conversation in enumerate(present):
            if number != ill:
                far = (logits[number] - conversation.logits[turn]).abs().max()
                assert far <= gold.TOLERANCE


def test_a_pass_that_fails_is_as_if_it_had_not_been():
    family = BY_NAME["llava-1.5"]
    model = family.build()
    rows, present = Rows(model), talks(family, model)[:3]
    for conversation in present:
        join(rows, conversation)
    step(rows, model, present)
    layer = model.model.language_model.layers[1]

    def fail(*_: Any) -> None:
        raise RuntimeError("out of something")

    hook = layer.register_forward_pre_hook(fail)
    before = (rows.nbytes, list(rows.lengths), list(rows.places))
    with pytest.raises(RuntimeError, match="out of something"):
        rows.step(model, [x.ids[x.said - 1] for x in present])
    hook.remove()
    assert before == (rows.nbytes, rows.lengths, rows.places)
    check(rows, present)
    while present[0].said < gold.STEPS:
        step(rows, model, present)


def test_who_cannot_join_leaves_the_others_as_they_were(monkeypatch):
    family = BY_NAME["qwen2-vl"]
    model = family.build()
    rows, (first, second, third, *_) = Rows(model), talks(family, model)
    join(rows, first)
    join(rows, second)
    calls = []

    def scarce(stores: Any, length: int) -> Any:
        calls.append(length)
        if len(calls) == 2:
            raise MemoryError("no more")
        return real(stores, length)

    real = module.joined
    monkeypatch.setattr(module, "joined", scarce)
    with pytest.raises(MemoryError):
        join(rows, third)
    monkeypatch.undo()
    check(rows, [first, second])
    step(rows, model, [first, second])


def test_what_must_be_alone_is_refused_with_the_reason():
    family = BY_NAME["qwen2-vl"]
    model = family.build()
    method = foveate.method("aircache", keep=0.2)
    follows = CompressedCache(model, foveate.method("h2o", keep=0.3), storage="ragged")
    assert "evicts while decoding" in lonely(follows)
    static = CompressedCache(model, method, storage="static")
    assert "compiled" in lonely(static)
    windows = BY_NAME["gemma3"].build()
    assert "layers are stored as the model has them" in lonely(CompressedCache(windows, method))
    assert lonely(CompressedCache(model, method)) is None
    rows = Rows(model)
    with pytest.raises(CacheError, match="has not"):
        rows.join(CompressedCache(model, method), 0)
    with pytest.raises(CacheError, match="evicts while decoding"):
        rows.join(follows, 0)
    padded = CompressedCache(model, foveate.method("full"))
    gold.generate(model, family.inputs(3), past_key_values=padded, max_new_tokens=1)
    with pytest.raises(CacheError, match="without padding"):
        rows.join(padded, 0)


@pytest.fixture(scope="module")
def hall() -> tuple[Any, list[Talk]]:
    """A model, and conversations to draw from."""
    torch.manual_seed(20260)
    family = BY_NAME["llama"]
    model = family.build()
    return model, talks(family, model)


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["join", "leave", "step", "step"]), st.integers(0, 4)),
        min_size=4, max_size=30,
    )
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_anybody_may_come_and_go_at_any_time(hall, moves):
    model, known = hall
    rows, present = Rows(model), []
    for move, number in moves:
        if move == "join" and len(present) < 4:
            present.append(replace(known[number], cache=copy.deepcopy(known[number].cache)))
            join(rows, present[-1])
        elif move == "leave" and present:
            present.pop(number % len(present))
            left = [i for i in range(len(rows)) if i != number % len(rows)]
            rows.keep(left)
        elif move == "step" and present and max(x.said for x in present) < gold.STEPS:
            step(rows, model, present)
        check(rows, present)
