"""The shipped model answers, alone and in company, and is as small as promised."""

import subprocess
import sys

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration, pipeline

from foveate.cli.models import Loaded
from foveate.eval.asking.answering import Answerer
from foveate.tiny import CHECKPOINT, document, load
from foveate.tiny.evaluate import Case, answers, examples, share
from foveate.tiny.layouts import LAYOUTS


@pytest.fixture(scope="module")
def tiny():
    return load()


@pytest.fixture(scope="module")
def answerer(tiny):
    return Answerer(Loaded("embedded", *tiny))


def test_it_answers_forty_fixed_questions(answerer):
    asked = [e for layout in LAYOUTS for e in examples(Case("lookup", layout, (16, 16)), 10, 1)]
    told = [t for start in (0, 20) for t in answers(answerer, asked[start : start + 20], None)]
    assert share(told) >= 0.9


def test_it_reads_whole_table_rows(answerer):
    asked = list(examples(Case("row", "table", (12, 12)), 12, 1))
    assert share(answers(answerer, asked, None)) >= 10 / 12


def test_a_padded_row_says_what_it_says_alone(answerer):
    drawn = document(1_000_001, grid=(8, 8), keys=(1, 3))
    asked = [(0, drawn, question) for question in drawn.questions[:4]]
    alone = [answers(answerer, [one], None)[0] for one in asked]
    assert answers(answerer, asked, None) == alone


def test_it_serves_a_stock_pipeline(tiny):
    model, processor = tiny
    drawn = document(1_000_002, grid=(8, 8))
    question = drawn.questions[0]
    parts = [{"type": "image", "image": drawn.pages[0]}, {"type": "text", "text": question.text}]
    answer = pipeline("image-text-to-text", model=model, processor=processor)
    chat = [{"role": "user", "content": parts}]
    said = answer(text=chat, generate_kwargs={"max_new_tokens": 9}, return_full_text=False)
    assert said[0]["generated_text"] == question.answer


def test_it_loads_in_other_precisions():
    model, _ = load(dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    assert not model.training


def test_the_stock_loader_reads_the_same_model(tiny):
    stock = Qwen3VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32)
    inputs = tiny[1](text="A?", images=None, return_tensors="pt")
    same = [model.eval()(input_ids=inputs["input_ids"]).logits for model in (stock, tiny[0])]
    torch.testing.assert_close(*same)
    tables = [model.model.language_model.rotary_emb.inv_freq for model in (stock, tiny[0])]
    assert torch.equal(*tables)


def test_the_checkpoint_is_small():
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 15e6


def test_importing_foveate_brings_no_training_code():
    code = (
        "import sys, foveate; from foveate.tiny import document; document(0);"
        "assert not {'transformers', 'foveate.tiny.train', 'foveate.tiny.fast'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
