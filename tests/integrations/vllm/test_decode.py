"""vLLM goes on from compressed prompts as transformers does: the same tokens, greedily."""

import pytest
import torch

import foveate
from alone import EVEN, RAGGED, STEPS, answers
from families import BY_NAME
from foveate.integrations.vllm import export, padded, prefill

from .asking import ask, parameters, resumed, said, wanted

SHAPES = ("llava-1.5", "qwen2.5-vl")
CLOSE = {"rtol": 0, "atol": 1e-4}


def compared(found, tokens, logits):
    for row, (ids, likely) in enumerate(found):
        expected, chances = wanted(tokens[row], logits[row])
        assert ids == expected
        torch.testing.assert_close(likely, chances, **CLOSE)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("preset", [*EVEN, *(f"padded {name}" for name in RAGGED)])
def test_a_batch_of_three_decodes_as_in_transformers(place, engine, name, preset):
    here = place(name)
    pad = preset.startswith("padded")
    method = RAGGED[preset.split()[1]] if pad else EVEN[preset]
    inputs = here.family.inputs(3)
    read = prefill(here.model, inputs, method, pad="next-best" if pad else "none")
    handoffs = export(read, here.handed)
    assert all(
        x.length < n for x, n in zip(handoffs, inputs["attention_mask"].sum(-1), strict=True)
    )
    found = resumed(engine(name), handoffs)
    compared(found, *answers(here.model, inputs, padded(method) if pad else method))


def test_methods_and_plain_requests_share_a_batch(place, engine):
    here, llm = place("llava-1.5"), engine("llava-1.5")
    cases = []
    for number, method in enumerate([*EVEN.values(), foveate.full()]):
        inputs = here.family.inputs(1, seed=number)
        (handoff,) = export(prefill(here.model, inputs, method), here.handed)
        cases.append((handoff, *answers(here.model, inputs, method)))
    plain = BY_NAME["llama"].inputs(1)["input_ids"]
    text = here.model.generate(
        plain, max_new_tokens=STEPS, do_sample=False, eos_token_id=-1, attention_mask=plain * 0 + 1
    )
    prompts = [*(handoff.prompt() for handoff, *_ in cases), plain[0].tolist()]
    settings = [parameters(handoff) for handoff, *_ in cases]
    outputs = ask(llm, prompts, [*settings, parameters(cases[0][0], extra_args=None)])
    for (handoff, tokens, logits), output in zip(cases, outputs, strict=False):
        compared([said(handoff, output)], tokens, logits)
    assert list(outputs[-1].outputs[0].token_ids) == text[0, plain.shape[1] :].tolist()


def test_other_text_may_follow_the_stored_tokens(place, engine):
    here, llm = place("qwen2.5-vl"), engine("qwen2.5-vl")
    inputs, method = here.family.inputs(1), EVEN["mixkv"]
    read = prefill(here.model, inputs, method)
    (handoff,) = export(read, here.handed)
    question = [17, 63, 101, 9]
    (output,) = ask(llm, [handoff.prompt(after=question)], [parameters(handoff)])
    ids = torch.tensor([question])
    mask = torch.ones(1, inputs["input_ids"].shape[1] + len(question), dtype=torch.long)
    expected = []
    for _ in range(STEPS):  # by hand, at the positions that the model would take
        start = read.positions[0] + len(question) + len(expected) - ids.shape[1]
        places = torch.arange(ids.shape[1]) + start
        with torch.no_grad():
            out = here.model(
                input_ids=ids,
                attention_mask=mask[:, : inputs["input_ids"].shape[1] + len(question)],
                position_ids=places.expand(3, 1, -1),
                past_key_values=read.cache,
            )
        expected.append(int(out.logits[0, -1].argmax()))
        ids = torch.tensor([expected[-1:]])
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    assert list(output.outputs[0].token_ids) == expected


def test_preempted_requests_come_back_and_read_their_file_again(place):
    here, steps = place("llava-1.5"), 60
    family, method = here.family, foveate.snapkv(keep=110, window=4)
    recipe = (90, ("image", 0), 40)
    inputs = [family.encode([family.prompt(recipe, seed=n)]) for n in range(6)]
    cases = []
    for given in inputs:
        (handoff,) = export(prefill(here.model, given, method), here.handed)
        assert handoff.length == 110  # one block of 128 at first, two later on
        cases.append((handoff, *answers(here.model, given, method, steps)))
    with here.engine(num_gpu_blocks_override=9) as llm:
        found = resumed(llm, [handoff for handoff, *_ in cases], steps=steps)
        metrics = {metric.name: metric for metric in llm.get_metrics()}
    for answer, (_, tokens, logits) in zip(found, cases, strict=True):
        compared([answer], tokens, logits)
    assert metrics["vllm:num_preemptions"].value > 0
