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


def run(*words):
    """What a command prints on stdout; it must end well."""
    environment = {**os.environ, **OFFLINE}
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


def test_command(tmp_path):
    words = "--model foveate --model_args method=snapkv,keep=0.1,device=cpu --tasks foveate_lookup"
    words += f" --limit 4 --log_samples --output_path {tmp_path} --include_path {TASKS}"
    said = run("lmms_eval", "eval", *words.split())
    scores = re.findall(r"foveate_lookup *\|none *\| *0\|(\w+) *\|.*?\| *([\d.]+)\|", said)
    assert {name for name, _ in scores} == {"anls", "exact_match"}
    assert re.search(r"foveate: kept [\d.]+% of 1,024 visual tokens", said)
    assert "avg_foveate_share_visual" in said and "avg_foveate_bytes_stored_per_call" in said
    (file,) = tmp_path.rglob("*samples_foveate_lookup.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        (counts,) = line["token_counts"]
        assert counts["visual_tokens"] == 256 and 0 < counts["kept_visual"] <= 0.1
        assert counts["cache_bytes"] < 0.2 * counts["full_cache_bytes"]
        assert counts["input_tokens"] > 256 and 0 < counts["output_tokens"] <= 32
    mean = sum(line["exact_match"] for line in lines) / 4
    assert float(dict(scores)["exact_match"]) == mean
