"""A data set with bad rows, and what `generate` says to the good ones; Ray, where it is there."""

import io
import logging
import os
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest

import foveate
from foveate import tiny
from foveate.tiny.documents import document

if find_spec("ray") is None:  # make test-ray has an environment with it
    collect_ignore = ["test_data.py", "test_serve.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import ray.data
        import ray.serve
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
METHOD, KEEP, TOKENS = "snapkv", 0.3, 8


@dataclass(frozen=True)
class Rows:
    """Columns of pages and questions, and what is said and kept of them one by one."""

    columns: dict[str, list]
    said: list[str]
    kept: list[float]


@pytest.fixture(scope="session")
def cluster():
    """Ray on this machine alone; its own warnings are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=3,
            include_dashboard=False,
            object_store_memory=150_000_000,
            logging_level=logging.ERROR,
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def loaded():
    return tiny.load()


def pages(number):
    return [document(seed, layout="rows", grid=(6 + seed % 3, 7)) for seed in range(3, 3 + number)]


def png(picture):
    held = io.BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()


def ask(loaded, pictures, text):
    """Return what a user gets, one prompt and one cache: the answer, and the share kept."""
    model, processor = loaded
    content = [{"type": "image", "image": picture} for picture in pictures]
    chat = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with foveate.compress(model, METHOD, keep=KEEP) as session:
        output = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    said = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return said.strip(), session.report.kept_visual / session.report.total_visual


@pytest.fixture(scope="session")
def rows(loaded) -> Rows:
    """Eight pages of several sizes, so that prompts differ in length."""
    made = pages(8)
    questions = [page.questions[0].text for page in made]
    pictures = [page.pages[0] for page in made]
    told = [ask(loaded, [one], text) for one, text in zip(pictures, questions, strict=True)]
    columns = {"id": list(range(8)), "image": list(map(png, pictures)), "question": questions}
    return Rows(columns, *map(list, zip(*told, strict=True)))


def batch(columns):
    """Columns as Ray gives them."""
    made = {}
    for name, cells in columns.items():
        made[name] = np.empty(len(cells), dtype=object)
        made[name][:] = cells
    return made
