"""The model `foveate` answers as we answer ourselves, and says what it cannot do."""

import lmms_tasks
import pytest
from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model

import foveate.hf.cache
from foveate import InputError, MethodError
from foveate.cli.models import load
from foveate.cli.options import build_method
from foveate.eval.asking.answering import Answerer
from foveate.eval.tasks import task
from foveate.integrations.lmms_eval.chat import NEW_TOKENS, Foveate, generation

NUMBER = 12


def make(arguments):
    return get_model("foveate").create_from_arg_string(arguments, {"batch_size": 1})


def own(name, method, keep):
    """Our answers, a sample after the other, and their scores."""
    ours = task(lmms_tasks.BUILT_IN[name])
    samples = lmms_tasks.samples(name)[:NUMBER]
    told = []
    for sample in samples:
        told += Answerer(load(device="cpu")).answers(ours, [sample], build_method(method, keep, []))
    scores = [
        ours.metric.score(one.said, sample) for one, sample in zip(told, samples, strict=True)
    ]
    return told, scores


@pytest.mark.parametrize(
    "name, method, keep, batch",
    [
        ("foveate_lookup", "snapkv", "0.1", 1),
        ("foveate_lookup", "aircache", "0.05", 5),
        ("foveate_row", "full", None, 4),
    ],
)
def test_answers_and_scores_are_our_own(evaluate, name, method, keep, batch):
    arguments = f"method={method},device=cpu" + (f",keep={keep}" if keep else "")
    result = evaluate("foveate", arguments, name, limit=NUMBER, batch_size=batch)
    told, scores = own(name, method, keep)
    samples = result["samples"][name]
    assert [s["filtered_resps"][0] for s in samples] == [one.said for one in told]
    assert [s["exact_match"] for s in samples] == scores
    assert result["results"][name]["exact_match,none"] == pytest.approx(sum(scores) / NUMBER)
    held = [s["token_counts"][0] for s in samples]
    kept = sum(one.kept for one in told) / NUMBER
    assert sum(h["kept_visual"] for h in held) / NUMBER == pytest.approx(kept)
    assert result["throughput"]["avg_foveate_share_visual"] == pytest.approx(kept)
    assert result["throughput"]["total_gen_tokens"] >= sum(h["output_tokens"] for h in held)
    assert method == "full" or 0 < sum(scores) < NUMBER, "a task that tells nothing"


def test_a_model_on_disk_answers_as_in_lmms_eval(evaluate, llava):
    def said(model, arguments):
        samples = evaluate(model, arguments, limit=3)["samples"]["foveate_lookup"]
        return [sample["filtered_resps"] for sample in samples]

    plain = said("llava_hf", f"pretrained={llava},device=cpu,device_map=cpu")
    assert said("foveate", f"pretrained={llava},device=cpu,method=full") == plain
    assert said("foveate", f"pretrained={llava},device=cpu,method=snapkv,keep=0.25") != plain


@pytest.mark.parametrize(
    "arguments, error, told",
    [
        ("keep=0.1", InputError, "no method came"),
        ("method=snapkw", MethodError, "snapkv"),
        ("method=snapkv,keeep=0.1", InputError, "'keep'"),
        ("method=snapkv,pretrianed=x", InputError, "'pretrained'"),
        ("method=snapkv,keep=2.5", MethodError, "2.5"),
        ("method=snapkv,device=tpu", InputError, "tpu"),
        ("method=snapkv,storage=moist", InputError, "moist"),
        ("method=snapkv,batch_size=auto", InputError, "batch_size='auto'"),
        ("method=snapkv,batch_size=0", InputError, "batch_size=0"),
        ("method=snapkv,pretrained=./nowhere", InputError, "./nowhere"),
    ],
)
def test_bad_arguments(arguments, error, told):
    with pytest.raises(error, match=told):
        make(arguments)


def test_model_arguments_count_before_options_of_the_command():
    assert make("method=snapkv,batch_size=3,device=cpu").batch_size == 3


def test_likelihoods_and_rounds_are_refused():
    model = make("method=snapkv,device=cpu")
    meta = {"task": "mmbench", "doc_id": 0, "repeats": 1}
    request = Instance("loglikelihood", ("a", "b"), 0, meta)
    with pytest.raises(InputError, match="mmbench asks for likelihoods"):
        model.loglikelihood([request])
    with pytest.raises(InputError, match="several rounds"):
        model.generate_until_multi_round([request])


def test_a_method_that_fails_ends_the_run(evaluate, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("a method divided by nothing")

    monkeypatch.setattr(foveate.hf.cache, "finish", broken)
    with pytest.raises(ZeroDivisionError, match="divided by nothing"):
        evaluate("foveate", "method=snapkv,keep=0.1,device=cpu", limit=2)


def test_generation_settings():
    greedy = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    assert generation({"until": ["\n\n"], "temperature": 0, "top_p": None}) == (greedy, [])
    cold = {"temperature": 0.7, "do_sample": False, "max_new_tokens": 5, "image_aspect_ratio": "x"}
    assert generation(cold) == ({"max_new_tokens": 5, "do_sample": False}, [])
    warm = {"temperature": 0.7, "top_p": 0.9, "num_beams": 2, "until": "ASSISTANT"}
    assert generation(warm) == (
        {**greedy, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "num_beams": 2},
        ["ASSISTANT"],
    )


def test_requests_of_different_settings_keep_their_order():
    """Batches are of equal settings only, and what a task names ends its answers."""
    model = make("method=snapkv,keep=1.0,batch_size=4,device=cpu")
    rows = [lmms_tasks.samples("foveate_lookup")[i] for i in range(6)]
    model.task_dict = {"t": {"test": rows}}

    def messages(sample):
        ((message,),) = sample.turns
        page, question = message.parts
        content = [{"type": "image", "url": page}, {"type": "text", "text": question}]
        return [{"role": "user", "content": content}]

    def request(number):
        until = [rows[0].answers[0][1]] if number == 0 else []
        arguments = ("", messages, {"max_new_tokens": 8 - number % 2, "until": until})
        meta = {"task": "t", "doc_id": number, "repeats": 1}
        return Instance("generate_until", (*arguments, number, "t", "test"), 0, meta)

    said = [result.text for result in model.generate_until([request(i) for i in range(6)])]
    right = [row.answers[0] for row in rows]
    assert said == [right[0][:1], *right[1:]]
    assert isinstance(model, Foveate)
