"""Writes the data of the example tasks for lmms-eval; run it with the Python of .venv-lmms."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pictures

from foveate.eval.task import Sample
from foveate.eval.tasks import task
from foveate.integrations.lmms_eval import TASKS

NUMBER = 40
SEED = 1
BUILT_IN = {"foveate_lookup": "lookup-256", "foveate_row": "row-256"}
FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "question": Value("string"),
        "answer": Value("string"),
    }
)


def samples(name: str) -> Sequence[Sample]:
    """Return the samples of our own that an example task is made of."""
    return task(BUILT_IN[name]).source.samples(NUMBER, SEED)


def rows(name: str) -> list[dict[str, Any]]:
    """Return what is written for an example task."""
    found = []
    for sample in samples(name):
        ((message,),) = sample.turns
        page, question = message.parts
        assert isinstance(page, Pictures.Image)
        image = {"bytes": png(page), "path": None}
        found.append(
            {"id": sample.id, "image": image, "question": question, "answer": sample.answers[0]}
        )
    return found


def png(page: Pictures.Image) -> bytes:
    """Return a page as PNG, with a palette of exactly its colours if there are few enough."""
    pixels = np.asarray(page)
    colours, places = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) <= 256:
        page = Pictures.fromarray(places.reshape(pixels.shape[:2]).astype(np.uint8), "L")
        page.putpalette(colours.tobytes())
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    for name in BUILT_IN:
        Dataset.from_list(rows(name), features=FEATURES).to_parquet(TASKS / f"{name}.parquet")
