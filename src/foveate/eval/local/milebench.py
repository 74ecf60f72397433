"""Files of MileBench as rows: what is said around a question, and which metric judges it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foveate.errors import InputError

__all__ = ["metric_name", "rows"]


def rows(document: Any, file: Path) -> list[dict[str, Any]]:
    """Return a row for each sample: its images, its whole text, its answer and its options.

    Differs from MileBench: long contexts are not cut off from the left.
    """
    meta, samples = _parts(document, file)
    made = []
    for number, sample in enumerate(samples, 1):
        try:
            task = sample["task_instance"]
            instruction = meta["task_instruction"][sample["task_instruction_id"]]
            row = {
                "images": list(task["images_path"]),
                "question": f"{instruction}\n{task['context']}" if instruction else task["context"],
                "answer": str(sample["response"]),
                "sample_id": sample.get("sample_id", number),
                "question_type": meta.get("question_type"),
            }
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"{file}, row {number}: no sample of MileBench ({error!r}); it needs response, "
                "task_instruction_id, and a task_instance of context and images_path"
            ) from error
        options = task.get("choice_list")
        if options:
            row |= {"options": options, "question": row["question"] + _choices(options, file.stem)}
        made.append(row)
    return made


def _parts(document: Any, file: Path) -> tuple[dict[str, Any], list[Any]]:
    if isinstance(document, dict):
        meta, samples = document.get("meta_data"), document.get("data")
        if isinstance(meta, dict) and isinstance(samples, list) and "task_instruction" in meta:
            return meta, samples
    raise InputError(
        f"{file} is no file of MileBench; it needs meta_data with task_instruction and "
        "question_type, and data with the samples"
    )


def _choices(options: list[str], name: str) -> str:
    """The options as MileBench lists them, in GPR1200 (a hundred images) without letters."""
    letters = ["" if "GPR1200" in name else f"{chr(ord('A') + n)}. " for n in range(len(options))]
    lines = [letter + str(option) for letter, option in zip(letters, options, strict=True)]
    return "\nChoice list: \n" + "\n".join(lines) + "\nYour answer is: "


def metric_name(name: str, kind: Any) -> str:
    """Return the name of the metric that MileBench has for a data set and its question type."""
    if "NeedleInAHaystack" in name:
        return "milebench_word"
    if "MMCoQA" in name:
        return "milebench_part"
    known = {"open-ended": "milebench_rouge_l", "multi-choice": "milebench_options"}
    if kind not in known:
        raise InputError(
            f"{name} has question_type {kind!r}; MileBench knows {' and '.join(known)}: correct "
            "it, or give a metric"
        )
    return known[kind]
