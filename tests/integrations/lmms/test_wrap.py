"""The model `foveate_wrap` leaves all but the cache to lmms-eval's own model, and fails aloud."""

import pytest
import torch
from lmms_eval.models import get_model
from loguru import logger
from transformers import LlavaForConditionalGeneration

import foveate
import foveate.hf.cache
from foveate import CacheError, InputError

LIMIT = 3


@pytest.fixture
def prompts(monkeypatch):
    """The arguments of every call of generate, as the model itself gets them."""
    seen = []
    generate = LlavaForConditionalGeneration.generate

    def noted(self, *args, **kwargs):
        assert not args
        seen.append({k: v for k, v in kwargs.items() if k != "past_key_values"})
        return generate(self, **kwargs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", noted)
    return seen


@pytest.fixture
def told():
    """What has been logged."""
    lines = []
    number = logger.add(lines.append)
    yield lambda: "".join(lines)
    logger.remove(number)


@pytest.fixture
def stock(llava):
    return f"pretrained={llava},device=cpu,device_map=cpu"


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def answers(result):
    return [sample["filtered_resps"] for sample in result["samples"]["foveate_lookup"]]


@pytest.mark.parametrize("simple", [False, True])
def test_prompts_are_those_of_the_stock_model(evaluate, stock, prompts, simple):
    plain = evaluate("llava_hf", stock, limit=LIMIT, force_simple=simple)
    expected = prompts[:]
    prompts.clear()
    wrapped = f"base=llava_hf,{stock}" + (",force_simple=true" if simple else "")
    full = evaluate("foveate_wrap", f"{wrapped},method=full", limit=LIMIT)
    assert len(expected) == len(prompts) == LIMIT
    for one, other in zip(expected, prompts, strict=True):
        assert one.keys() == other.keys() and {"input_ids", "pixel_values"} <= one.keys()
        assert all(same(one[name], other[name]) for name in one)
    assert answers(full) == answers(plain)

    prompts.clear()
    small = evaluate("foveate_wrap", f"{wrapped},method=snapkv,keep=0.25", limit=LIMIT)
    assert all(
        same(one[name], other[name])
        for one, other in zip(expected, prompts, strict=True)
        for name in one
    )
    assert answers(small) != answers(plain), "nothing was compressed"
    for result, share in ((full, 1.0), (small, 0.25)):
        assert result["throughput"]["avg_foveate_share_visual"] <= share
        for sample in result["samples"]["foveate_lookup"]:
            (held,) = sample["token_counts"]
            assert held["visual_tokens"] == 64 and held["kept_visual"] <= share
            assert (held["cache_bytes"] < held["full_cache_bytes"]) == (share < 1)


def test_the_stock_model_swallows_what_a_method_raises(evaluate, stock, monkeypatch):
    """Why the wrapper is needed, and that it is not fooled."""

    def broken(*args):
        raise ZeroDivisionError("a method divided by nothing")

    monkeypatch.setattr(foveate.hf.cache, "finish", broken)
    model = get_model("llava_hf").create_from_arg_string(stock, {})
    with foveate.compress(model.model, "snapkv", keep=0.5):
        silent = evaluate(model, "", limit=2)
    assert answers(silent) == [[""], [""]]
    with pytest.raises(ZeroDivisionError, match="divided by nothing"):
        evaluate("foveate_wrap", f"base=llava_hf,{stock},method=snapkv", limit=2)


def test_refusals_of_a_call_end_the_run(evaluate, stock):
    with pytest.raises(InputError, match="use_cache=False leaves no cache"):
        arguments = f"base=llava_hf,{stock},method=snapkv,use_cache=false"
        evaluate("foveate_wrap", arguments, limit=1)


def test_answers_without_generate_are_refused(evaluate, stock, monkeypatch):
    kind = get_model("llava_hf")
    monkeypatch.setattr(kind, "generate_until", lambda self, requests: ["7"] * len(requests))
    with pytest.raises(CacheError, match="without calling generate"):
        evaluate("foveate_wrap", f"base=llava_hf,{stock},method=snapkv", limit=2)


def test_a_cache_of_its_own_is_refused(evaluate, stock, monkeypatch):
    from transformers import DynamicCache

    kind = get_model("llava_hf")
    ask = kind.generate_until

    def cached(self, requests):
        generate = self.model.generate
        self.model.generate = lambda **kw: generate(**kw, past_key_values=DynamicCache())
        return ask(self, requests)

    monkeypatch.setattr(kind, "generate_until", cached)
    with pytest.raises(CacheError, match="brought a cache of its own"):
        evaluate("foveate_wrap", f"base=llava_hf,{stock},method=snapkv", limit=1)


def in_pairs(ahead):
    """A generate_until that answers two requests at once, and may read all documents first."""

    def ask(self, requests):
        if ahead:
            for number, task, split in (request.args[-3:] for request in requests):
                self.task_dict[task][split][number]
        for start in range(0, len(requests), 2):
            keys = [request.args[-3:] for request in requests[start : start + 2]]
            docs = [self.task_dict[task][split][number] for number, task, split in keys]
            texts = [f"<image> {doc['question']}" for doc in docs]
            pictures = [[doc["image"]] for doc in docs]
            inputs = self._image_processor(
                images=pictures, text=texts, padding=True, return_tensors="pt"
            )
            self.model.generate(**inputs, max_new_tokens=3)
        return ["7"] * len(requests)

    return ask


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_share_what_they_held(evaluate, stock, monkeypatch, ahead):
    monkeypatch.setattr(get_model("llava_hf"), "generate_until", in_pairs(ahead))
    arguments = f"base=llava_hf,{stock},method=snapkv,keep=0.25"
    model = get_model("foveate_wrap").create_from_arg_string(arguments, {})
    samples = evaluate(model, "", limit=5)["samples"]["foveate_lookup"]
    held = [sample["token_counts"][0] for sample in samples]
    assert model.compression.tally.calls == 3
    if ahead:  # the first call cannot tell whose rows these are
        assert held[:2] == [None, None]
    else:
        assert held[0] == held[1] and held[2] == held[3]
        stored = sum(one["cache_bytes"] for one in held)
        assert stored == pytest.approx(model.compression.tally.bytes_stored, abs=len(held))
        assert sum(one["visual_tokens"] for one in held) == model.compression.tally.visual


def test_answers_without_the_model_are_told_of(evaluate, stock, monkeypatch, told):
    ask = in_pairs(ahead=False)
    monkeypatch.setattr(
        get_model("llava_hf"), "generate_until", lambda self, r: [*ask(self, r[:2]), "", ""]
    )
    evaluate("foveate_wrap", f"base=llava_hf,{stock},method=snapkv", limit=4)
    assert "only 2 of 4 answers were generated" in told()


def test_model_is_left_as_it_was(evaluate, stock):
    arguments = f"base=llava_hf,{stock},method=snapkv,keep=0.5"
    model = get_model("foveate_wrap").create_from_arg_string(arguments, {"batch_size": 1})
    inner = model.model
    evaluate(model, "", limit=1)
    assert "generate" not in vars(inner)
    assert model.compression.tally.calls == 1


@pytest.mark.parametrize(
    "arguments, told",
    [
        ("method=snapkv", "base=None"),
        ("base=llava_fh,method=snapkv", "'llava_hf'"),
        ("base=foveate,method=snapkv", "is not the name"),
        ("base=dummy,method=snapkv", "no model of transformers"),
        ("base=llava_hf,keep=0.1", "no method came"),
        ("base=llava_hf,method=snapkv,pretrianed=x", "'pretrained'"),
    ],
)
def test_bad_arguments(arguments, told):
    with pytest.raises(InputError, match=told):
        get_model("foveate_wrap").create_from_arg_string(arguments, {})


def test_likelihoods_are_refused(evaluate, stock):
    arguments = f"base=llava_hf,{stock},method=snapkv"
    model = get_model("foveate_wrap").create_from_arg_string(arguments, {})
    with pytest.raises(InputError, match="likelihoods"):
        model.loglikelihood([])
