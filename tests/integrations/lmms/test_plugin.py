"""lmms-eval finds the models and the tasks, and its own command runs them."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lmms_tasks
import numpy as np
import pyarrow.parquet
import pytest
from lmms_eval.models import get_model, get_model_manifest, list_available_models
from PIL import Image

from foveate.integrations.lmms_eval import TASKS

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run(*words, **variables):
    """What a command prints on stdout; it must end well."""
    environment = {**os.environ, **OFFLINE, **variables}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["foveate", "foveate_wrap"])
def test_registered(name):
    assert name in list_available_models()
    assert get_model_manifest(name).chat_class_path.startswith("foveate.integrations.lmms_eval.")
    assert not get_model(name).is_simple


def test_the_folder_of_tasks_is_printed():
    folder = Path(run("foveate.integrations.lmms_eval").removesuffix("\n"))
    assert folder == TASKS
    assert {path.stem for path in folder.glob("*.yaml")} == set(lmms_tasks.BUILT_IN)


@pytest.mark.parametrize("name", lmms_tasks.BUILT_IN)
def test_data_are_the_samples_of_our_own_tasks(name):
    written = pyarrow.parquet.read_table(TASKS / f"{name}.parquet").to_pylist()
    samples = lmms_tasks.samples(name)
    assert len(written) == len(samples) == lmms_tasks.NUMBER
    for row, sample in zip(written, samples, strict=True):
        ((message,),) = sample.turns
        page, question = message.parts
        assert (row["id"], row["question"], row["answer"]) == (
            sample.id,
            question,
            *sample.answers,
        )
        picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        assert np.array_equal(np.asarray(picture), np.asarray(page))


def command(folder, **options):
    """The words behind `python -m lmms_eval` for one of our tasks, samples in that folder."""
    given = {"model": "foveate", "tasks": "foveate_lookup", "include_path": TASKS, **options}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [*words, "--log_samples", "--output_path", str(folder)]


def logged(folder):
    """The samples that a run has written, by number of the document."""
    (file,) = folder.rglob("*samples_foveate_lookup.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["doc_id"]: line for line in lines}


def test_command(tmp_path):
    words = command(tmp_path, model_args="method=snapkv,keep=0.1,device=cpu", limit=4)
    said = run("lmms_eval", "eval", *words)
    scores = re.findall(r"foveate_lookup *\|none *\| *0\|(\w+) *\|.*?\| *([\d.]+)\|", said)
    assert {name for name, _ in scores} == {"anls", "exact_match"}
    assert re.search(r"foveate: kept [\d.]+% of 1,024 visual tokens", said)
    assert "avg_foveate_share_visual" in said and "avg_foveate_bytes_stored_per_call" in said
    lines = logged(tmp_path)
    assert list(lines) == [0, 1, 2, 3]
    for line in lines.values():
        (counts,) = line["token_counts"]
        assert counts["visual_tokens"] == 256 and 0 < counts["kept_visual"] <= 0.1
        assert counts["cache_bytes"] < 0.2 * counts["full_cache_bytes"]
        assert counts["input_tokens"] > 256 and 0 < counts["output_tokens"] <= 32
    mean = sum(line["exact_match"] for line in lines.values()) / 4
    assert float(dict(scores)["exact_match"]) == mean


def test_two_processes_answer_as_one(tmp_path, evaluate):
    arguments = "method=snapkv,keep=0.1"
    words = command(tmp_path, model_args=arguments, limit=5, batch_size=2)
    start = "torch.distributed.run --standalone --nproc-per-node 2 -m lmms_eval"
    run(*start.split(), *words, ACCELERATE_USE_CPU="true")
    alone = evaluate("foveate", f"{arguments},device=cpu", limit=5)["samples"]["foveate_lookup"]
    lines = logged(tmp_path)
    assert sorted(lines) == [0, 1, 2, 3, 4]
    for sample in alone:
        line = lines[sample["doc_id"]]
        assert line["filtered_resps"] == sample["filtered_resps"][0]
        assert line["token_counts"][0]["kept_visual"] <= 0.1
