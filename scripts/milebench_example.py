"""Writes examples/milebench: questions about pages, in the form of MileBench's files."""

import json
import sys
from pathlib import Path

from foveate.eval import tasks

FOLDER = Path(__file__).resolve().parent.parent / "examples/milebench"
NAME = "PagesNeedleInAHaystack"
SEED = 20  # of documents that no training has seen
SAMPLES = {"pages4-256": 6, "pages2-144": 2}


def main(folder: Path = FOLDER) -> int:
    """Write the table and its pictures; return the exit code."""
    home = folder / NAME
    (home / "images").mkdir(parents=True, exist_ok=True)
    data = []
    for task, number in SAMPLES.items():
        for sample in tasks.task(task).source.samples(number, SEED):
            (turn,) = sample.turns
            *pages, question = turn[-1].parts
            names = [f"{sample.id}-{page}.png" for page in range(1, len(pages) + 1)]
            for name, page in zip(names, pages, strict=True):
                page.quantize(256).save(home / "images" / name, optimize=True)
            data.append(row(len(data) + 1, names, str(question), sample.answers[0]))
    about = {"dataset": NAME, "num_sample": len(data), "question_type": "open-ended"}
    document = {"meta_data": {**about, "task_instruction": [""]}, "data": data}
    (home / f"{NAME}.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def row(number: int, names: list[str], question: str, answer: str) -> dict:
    """Return one sample as MileBench writes it."""
    places = "".join(f"{{image#{place}}}" for place in range(1, len(names) + 1))
    return {
        "sample_id": number,
        "task_instruction_id": 0,
        "task_instance": {"context": places + question, "images_path": names},
        "response": answer,
    }


if __name__ == "__main__":
    sys.exit(main())
