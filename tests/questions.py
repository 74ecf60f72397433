"""Rows of tables with questions about small coloured images, and what tasks make of them."""

import io

from PIL import Image


def png(colour="red", size=(20, 10)):
    held = io.BytesIO()
    Image.new("RGB", size, colour).save(held, "PNG")
    return held.getvalue()


def row(**changed):
    return {"image": "red.png", "question": "What?", "answers": ["dog"]} | changed


def mile(kind="open-ended", **changed):
    sample = {
        "sample_id": 7,
        "task_instruction_id": 1,
        "task_instance": {
            "context": "First {image#1} then {image#2}: why?",
            "images_path": ["deep.png", "red.png"],
        },
        "response": "two dogs",
    }
    meta = {"question_type": kind, "task_instruction": ["Zero.", "Look."]}
    return {"meta_data": meta, "data": [sample | changed]}


def all_of(task):
    return task.source.samples(None, 0)
