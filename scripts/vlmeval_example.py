"""Writes examples/vlmevalkit: questions about pages, as VLMEvalKit reads data sets of one's own."""

import base64
import csv
import io
import sys
from pathlib import Path

from foveate.eval.tasks import task

FOLDER = Path(__file__).resolve().parent.parent / "examples/vlmevalkit"
NAME = "PagesOpenEnded"  # what is not called so is taken for multiple choice
SEED = 21  # of documents that no training has seen
SAMPLES = {"lookup-256": 5, "row-256": 3}


def main(folder: Path = FOLDER) -> int:
    """Write the table; return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{NAME}.tsv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("index", "image", "question", "answer"))
        samples = (one for name, n in SAMPLES.items() for one in task(name).source.samples(n, SEED))
        for index, sample in enumerate(samples):
            page, question = sample.turns[-1][-1].parts
            picture = io.BytesIO()
            page.quantize(256).save(picture, "PNG", optimize=True)
            image = base64.b64encode(picture.getvalue()).decode()
            table.writerow((index, image, question, sample.answers[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
