"""lm-eval's LongBench through FoveateLM says what compress and generate say by hand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import lm_eval
import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

import foveate
from foveate.integrations.lm_eval import FoveateLM

from .conftest import TASK

OPTIONS = {"method": "snapkv", "keep": 0.2, "window": 8}
NEVER = ["no", "such", "thing", "here"]


def by_hand(place, method):
    """Return what the model says to every prompt, one by one."""
    model = AutoModelForCausalLM.from_pretrained(place.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(place.model)
    said = []
    for prompt in place.prompts:
        inputs = tokenizer(prompt, return_tensors="pt")
        with foveate.compress(model, method):
            output = model.generate(
                inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=32,
                do_sample=False,
            )
        new = output[0, inputs["input_ids"].shape[1] :]
        said.append(tokenizer.decode(new, skip_special_tokens=True))
    return said


def evaluated(lm, place, answers, **more):
    return simple_evaluate(
        model=lm,
        tasks=[TASK],
        task_manager=place.manager(answers),
        bootstrap_iters=0,
        **more,
    )


def answers_of(results):
    samples = sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])
    return [sample["resps"][0][0].strip() for sample in samples]


@pytest.fixture(scope="module")
def expected(place):
    return by_hand(place, foveate.snapkv(keep=0.2, window=8))


def load(place, **options):
    return FoveateLM(pretrained=place.model, device="cpu", **options)


@pytest.mark.parametrize("batch", [1, 4])
def test_answers_and_score_are_those_by_hand(place, expected, batch):
    lm = load(place, batch_size=batch, **OPTIONS)
    results = evaluated(lm, place, [*expected[:2], *NEVER[:2]])
    assert answers_of(results) == expected
    assert results["results"][TASK]["qa_f1_score,none"] == pytest.approx(0.5)
    full = evaluated(HFLM(pretrained=place.model, device="cpu"), place, NEVER)
    assert answers_of(full) != expected  # or nothing was compressed


def test_results_say_what_was_kept(place, expected):
    lm = load(place, **OPTIONS)
    told = evaluated(lm, place, expected)["config"]["foveate"]
    tokens = [len(lm.tok_encode(prompt)) for prompt in place.prompts]
    assert told["calls"] == 4
    assert told["text"] == sum(tokens)
    assert told["visual"] == 0
    assert told["share_text"] == pytest.approx(0.2, abs=0.005)
    assert 0.2 < told["share_bytes"] < 0.4  # 32 generated tokens stay in every cache
    assert "Attention" in told["method"]
    assert str(lm.compression.tally).startswith(f"kept {told['share_text']:.1%} of {sum(tokens)}")


def test_keeping_everything_is_hf_itself(place):
    plain = evaluated(HFLM(pretrained=place.model, device="cpu"), place, NEVER)
    whole = evaluated(load(place, method="snapkv", keep=1.0), place, NEVER)
    assert answers_of(whole) == answers_of(plain)


def test_a_model_object_will_do(place, expected):
    model = AutoModelForCausalLM.from_pretrained(place.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(place.model)
    method = foveate.snapkv(keep=0.2, window=8)
    lm = FoveateLM(pretrained=model, tokenizer=tokenizer, method=method, storage="ragged")
    assert answers_of(evaluated(lm, place, expected)) == expected


def test_the_command_says_the_same(place, expected):
    words = ",".join(f"{name}={value}" for name, value in OPTIONS.items())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "foveate.integrations.lm_eval"),
            *("--model", "foveate", "--model_args", f"pretrained={place.model},{words}"),
            *("--tasks", TASK, "--include_path", str(place.task(expected)), "--device", "cpu"),
            *("--output_path", str(place.folder / "out"), "--log_samples"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "foveate: kept 19.9% of 667 text tokens of the prompts" in done.stderr
    (results,) = (place.folder / "out").glob("**/results_*.json")
    assert json.loads(results.read_text())["config"]["foveate"]["calls"] == 4
    (samples,) = (place.folder / "out").glob("**/samples_*.jsonl")
    said = [json.loads(line) for line in samples.read_text().splitlines()]
    said.sort(key=lambda sample: sample["doc_id"])
    assert [sample["resps"][0][0].strip() for sample in said] == expected


def test_tasks_of_the_guide_exist():
    page = (Path(__file__).resolve().parents[3] / "docs/harnesses.md").read_text()
    asked = {
        name for names in re.findall(r"--tasks (longbench\S*)", page) for name in names.split(",")
    }
    known = Path(lm_eval.__file__).parent / "tasks/longbench"
    texts = [file.read_text() for file in known.glob("*.yaml")]
    names = {name for text in texts for name in re.findall(r"^(?:task|group): (\S+)$", text, re.M)}
    assert asked
    assert asked <= names
