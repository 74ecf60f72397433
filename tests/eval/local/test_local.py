"""Files become tasks: what is asked, how it is judged, and in which order."""

import base64
import pickle

import pytest
from PIL import Image

from foveate.errors import InputError
from foveate.eval.local import local_task
from questions import all_of, mile, png, row

TEN = ["dog"] * 10


def colours(parts):
    """Texts as they are, images by the colour of their first pixel."""
    told = []
    for part in parts:
        if isinstance(part, str):
            told.append(part)
        else:
            picture = part if isinstance(part, Image.Image) else Image.open(part)
            told.append(
                {(255, 0, 0): "R", (0, 128, 0): "G", (0, 0, 255): "B"}[picture.getpixel((0, 0))]
            )
    return told


def parts(task, index=0):
    ((message,),) = all_of(task)[index].turns
    assert message.role == "user"
    return colours(message.parts)


@pytest.mark.parametrize("name", ["data.json", "data.jsonl", "data.parquet"])
def test_every_kind_of_table_gives_the_same_samples(write, name):
    rows = [row(), row(image="green.png", question="Who?", answers=["cat", "7"]), row(), row()]
    task = local_task(write(rows, name))
    assert task.name == "data" and task.family == "local" and task.metric.name == "exact"
    assert [sample.id for sample in all_of(task)] == ["1", "2", "3", "4"]
    assert parts(task, 1) == ["G", "Who?"]
    assert all_of(task)[1].answers == ("cat", "7")
    assert task.metric.score("7", all_of(task)[1]) == 1


def test_an_object_may_hold_the_rows_under_data(write):
    assert len(all_of(local_task(write({"version": 1, "data": [row()]})))) == 1


def test_a_mark_of_byte_order_is_no_text(write):
    path = write([row()], "data.jsonl")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert parts(local_task(path)) == ["R", "What?"]


def test_a_folder_is_read_by_its_one_table(write, folder):
    write([{"file_name": "blue.png", "query": "Where?", "label": 3}], "metadata.jsonl")
    task = local_task(folder)
    assert task.name == folder.name
    assert parts(task) == ["B", "Where?"] and all_of(task)[0].answers == ("3",)


def test_shards_of_parquet_are_one_table(write, folder):
    for number in range(3):
        write([row(question=f"{number}?")] * 3, f"val-0000{number}-of-00003.parquet")
    task = local_task(folder)
    assert [parts(task, index)[1] for index in (0, 2, 3, 8)] == ["0?", "0?", "1?", "2?"]
    write([row()], "test-00000-of-00001.parquet")
    part = local_task(folder / "val")
    assert part.name == "val" and len(all_of(part)) == 9
    assert len(all_of(local_task(folder / "test"))) == 1


def test_images_come_as_paths_bytes_addresses_and_records(write, folder):
    address = "data:image/png;base64," + base64.b64encode(png("green")).decode()
    images = [
        "red.png",
        str(folder / "green.png"),
        "deep.png",
        address,
        {"bytes": None, "path": "blue.png"},
    ]
    told = [parts(local_task(write([row(image=image)])))[0] for image in images]
    assert told == ["R", "G", "B", "G", "B"]
    rows = [row(image=png("blue")), row(image=png("green"))]
    assert parts(local_task(write(rows, "bytes.parquet")), 1)[0] == "G"
    rows = [row(image={"bytes": png("blue"), "path": "gone.png"})]
    assert parts(local_task(write(rows, "hub.parquet")))[0] == "B"


def test_images_that_lie_in_files_stay_there(write, folder):
    ((message,),) = all_of(local_task(write([row()])))[0].turns
    assert message.parts[0] == folder / "red.png"


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("Which?", ["R", "G", "Which?"]),
        ("A <image> or <image>?", ["A ", "R", " or ", "G", "?"]),
        ("<ImageHere><ImageHere>Which?", ["R", "G", "Which?"]),
        ("{image#1} beside {table#1}", ["R", " beside ", "G"]),
        ("then <image>", ["R", "then ", "G"]),
    ],
)
def test_images_stand_in_their_places_or_first(write, question, told):
    task = local_task(write([row(image=["red.png", "green.png"], question=question)]))
    assert parts(task) == told


def test_a_prompt_goes_round_the_question(write):
    task = local_task(write([row()]), prompt="Look: {question} Say {it}.", max_new_tokens=5)
    assert parts(task) == ["R", "Look: What? Say {it}."]
    assert task.prompt == "Look: {question} Say {it}." and task.max_new_tokens == 5


@pytest.mark.parametrize(
    ("shape", "given", "text", "metric", "tokens", "said", "score"),
    [
        (
            "docvqa",
            {},
            "What?\nAnswer the question using a single word or phrase.",
            "anls",
            32,
            "dof",
            2 / 3,
        ),
        (
            "infovqa",
            {},
            "What?\nAnswer the question using a single word or phrase.",
            "anls",
            32,
            "Dog",
            1,
        ),
        (
            "chartqa",
            {"answers": None, "answer": "100", "type": "human_test"},
            "What?\nAnswer the question with a single word.",
            "relaxed",
            16,
            "104",
            1,
        ),
        (
            "textvqa",
            {"answers": TEN, "question": "what IS it?"},
            "What is it?\nAnswer the question using a single word or phrase.",
            "vqa",
            32,
            "The dog.",
            1,
        ),
        (
            "ocrbench",
            {"answers": None, "answer": ["DOG"], "dataset": "IIIT5K"},
            "What?",
            "substring",
            128,
            "a dog",
            1,
        ),
        (
            "textcaps",
            {"caption_str": ["a dog runs", "cat"], "question": None},
            "Provide a one-sentence caption for the provided image.",
            "rouge_l",
            64,
            "a dog",
            0.8,
        ),
    ],
)
def test_shapes_know_columns_prompt_and_metric(
    write, shape, given, text, metric, tokens, said, score
):
    columns = {name: value for name, value in row(**given).items() if value is not None}
    task = local_task(write([columns]), shape=shape)
    assert parts(task) == ["R", text]
    assert (task.family, task.metric.name, task.max_new_tokens) == (shape, metric, tokens)
    assert task.metric.score(said, all_of(task)[0]) == pytest.approx(score)
    assert task.metric.score("zzzz", all_of(task)[0]) == 0


def test_what_is_given_goes_before_what_the_shape_knows(write):
    task = local_task(
        write([row()]), shape="docvqa", metric="exact", prompt="{question}", name="mine"
    )
    assert (task.name, task.metric.name, parts(task)) == ("mine", "exact", ["R", "What?"])


def test_plain_columns_are_facts(write):
    task = local_task(write([row(type="human", level=2, boxes=[1], hint=None)]))
    assert all_of(task)[0].facts == {"type": "human", "level": 2}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bbox": [0.5, 0.5, 1, 1]}, "[0.75, 0.75]"),
        ({"bbox": [10, 5, 20, 10]}, "[15, 7]"),
        ({"bbox": [10, 5, 10, 5]}, "(0.75, 0.75)"),
        ({"bbox": [100, 50, 200, 100], "image_width": 200, "image_height": 100}, "(150, 75)"),
    ],
)
def test_screens_are_judged_by_their_size(write, given, said):
    screen = {"image": "red.png", "instruction": "open it", "data_type": "icon"} | given
    task = local_task(write([screen]), shape="screenspot")
    (sample,) = all_of(task)
    assert parts(task)[1].endswith("Instruction: open it")
    assert sample.answers == () and sample.facts["data_type"] == "icon"
    assert task.metric.score(said, sample) == 1
    assert task.metric.score("(0.1, 0.1)", sample) == 0


def test_milebench_puts_images_in_place(write):
    task = local_task(write(mile(), "Slides.json"), shape="milebench")
    assert parts(task) == ["Look.\nFirst ", "B", " then ", "R", ": why?"]
    assert (task.metric.name, task.max_new_tokens) == ("milebench_rouge_l", 512)
    assert all_of(task)[0].facts == {"sample_id": 7, "question_type": "open-ended"}
    assert task.metric.score("dogs", all_of(task)[0]) == pytest.approx(2 / 3)


def test_milebench_lists_options(write):
    given = {
        "context": "<ImageHere> Which?",
        "images_path": ["deep.png"],
        "choice_list": ["a cat", "two dogs"],
    }
    task = local_task(write(mile("multi-choice", task_instance=given)), shape="milebench")
    assert parts(task)[-1] == " Which?\nChoice list: \nA. a cat\nB. two dogs\nYour answer is: "
    assert [task.metric.score(said, all_of(task)[0]) for said in ("B", "two dogs", "A", "")] == [
        1,
        1,
        0,
        0,
    ]
    bare = local_task(
        write(mile("multi-choice", task_instance=given), "GPR1200.json"), shape="milebench"
    )
    assert "\na cat\ntwo dogs\n" in parts(bare)[-1]


@pytest.mark.parametrize(
    ("name", "metric"),
    [("TextNeedleInAHaystack.json", "milebench_word"), ("MMCoQA.json", "milebench_part")],
)
def test_milebench_judges_some_data_sets_by_name(write, name, metric):
    assert local_task(write(mile(), name), shape="milebench").metric.name == metric


def test_more_samples_begin_with_the_same(write):
    task = local_task(write([row(question=f"{number}?") for number in range(30)]))

    def ids(number, seed):
        return [sample.id for sample in task.source.samples(number, seed)]

    assert ids(5, 0) == ["1", "2", "3", "4", "5"]
    assert ids(9, 3)[:5] == ids(5, 3) != ids(5, 4)
    assert sorted(ids(None, 3), key=int) == ids(None, 0) == ids(99, 0)
    assert [sample.id for sample in task.source.samples(9, 3)[2:4]] == ids(4, 3)[2:]


def test_a_task_says_what_its_samples_depend_on(write, folder):
    first = local_task(write([row()]))
    same = local_task(write([row()]))
    other = local_task(write([row(question="Why?")]))
    assert repr(first) == repr(same) != repr(other)
    assert str(folder) not in repr(first) and "data.json" in repr(first)
    assert repr(local_task(write([row()]), metric="anls")) != repr(first)
    assert repr(local_task(write([row()]), prompt="{question}!")) != repr(first)


def test_a_task_goes_to_other_processes_without_its_rows(write):
    task = local_task(write([row(question="x" * 100_000)], "data.parquet"))
    assert len(all_of(task)) == 1
    sent = pickle.dumps(task)
    assert len(sent) < 10_000
    assert parts(pickle.loads(sent)) == parts(task)


def test_rows_are_looked_through_once(write, folder):
    task = local_task(write([row()]))
    all_of(task)
    (folder / "red.png").write_bytes(b"broken now")
    assert len(all_of(task)) == 1
    with pytest.raises(InputError, match="not an image"):
        all_of(local_task(write([row()])))
