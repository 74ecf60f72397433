"""Pages in files are answered and judged as those in Parquet are."""

import io

import pytest

from foveate.cli.models import load
from foveate.eval.asking.answering import Answerer
from foveate.eval.local import local_task
from foveate.tiny.documents import document
from questions import all_of


@pytest.fixture(scope="module")
def answerer():
    return Answerer(load())


def test_the_model_answers_from_files_as_from_bytes(write, folder, answerer):
    paths, records = [], []
    for seed in range(4):
        drawn = document(3_000_000 + seed, grid=(9, 9), values=(1, 3))
        asked = drawn.questions[0]
        row = {"questionId": seed, "question": asked.text, "answers": [asked.answer]}
        held = io.BytesIO()
        drawn.pages[0].save(held, "PNG")
        (folder / f"{seed}.png").write_bytes(held.getvalue())
        paths.append(row | {"image": f"{seed}.png"})
        records.append(row | {"image": {"bytes": held.getvalue(), "path": None}})
    prompts = []
    for rows, name in ((paths, "pages.jsonl"), (records, "pages.parquet")):
        task = local_task(write(rows, name), shape="docvqa", prompt="{question}")
        told = answerer.answers(task, all_of(task), None)
        scores = [task.metric.score(one.said, s) for one, s in zip(told, all_of(task), strict=True)]
        assert scores == [1.0] * 4
        prompts.append([one.prompt for one in told])
    assert prompts[0] == prompts[1] and len(set(prompts[0])) == 4
