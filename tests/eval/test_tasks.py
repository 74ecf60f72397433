"""The built-in tasks: what is asked stands on the page, where the facts say, in every size."""

from dataclasses import replace

import numpy as np
import pytest

from foveate.errors import InputError
from foveate.eval.asking.answering import conversation
from foveate.eval.generated import FIRST_SEED, INITIALS, SPAN, Documents
from foveate.eval.tasks import FAMILIES, task, tasks
from foveate.tiny.documents import HELD_OUT, document
from foveate.tiny.processor import Processor
from foveate.tiny.vocabulary import IMAGE

ALL = pytest.mark.parametrize("built_in", tasks(), ids=lambda task: task.name)


def written(source, sample):
    """The characters of all pages, one for each visual token, drawn again from the sample's id."""
    layout, seed = sample.id.split("-")
    drawn = document(
        int(seed),
        layout=layout,
        grid=source.grid,
        pages=source.pages,
        keys=source.keys,
        values=source.values,
        distractors=source.distractors,
        initials=INITIALS if source.skill == "count" else None,
        skills=tuple(dict.fromkeys(("lookup", source.skill))),
    )
    shown = [part for message in sample.turns[0] for part in message.parts if type(part) is not str]
    for mine, again in zip(shown, drawn.pages, strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(again))
    return "".join("".join(page) for page in drawn.lines)


def last(sample):
    return sample.turns[-1][-1].parts[-1]


@ALL
def test_the_evidence_holds_key_and_value(built_in):
    for sample in built_in.source.samples(4, 3):
        marks = written(built_in.source, sample)
        found = "".join(marks[cell] for cell in sample.facts["evidence"])
        question, answer = last(sample), sample.answers[0]
        asked = question[:-1]
        assert sample.facts["length"] == len(answer)
        if sample.facts["skill"] == "count":
            assert found == asked * int(answer)
        elif sample.facts["skill"] == "reverse":
            assert found.startswith(answer + asked)
        elif sample.facts["skill"] == "row":
            assert found == asked + answer.replace(" ", "")
        else:
            assert found == asked + answer


@ALL
def test_a_prompt_has_the_visual_tokens_of_the_name(built_in):
    assert built_in.name == f"{built_in.family}-{built_in.tokens}"
    sample = built_in.source.samples(1, 1)[0]
    ids = Processor().apply_chat_template(conversation(sample.turns[0]), tokenize=True)
    assert ids[0].count(IMAGE) == built_in.tokens
    rows, columns = built_in.source.grid
    assert max(sample.facts["evidence"]) < built_in.source.pages * rows * columns == built_in.tokens


def test_every_family_has_three_sizes():
    assert len(tasks()) == 3 * len(FAMILIES)
    assert len({task.name for task in tasks()}) == len(tasks())


def test_a_name_that_is_not_known_gets_near_ones():
    assert task("lookup-256").source == Documents()
    with pytest.raises(InputError, match=r"'lokup-256'.*did you mean 'lookup-256'"):
        task("lokup-256")


def test_a_larger_number_begins_with_the_same_samples():
    source = task("second-144").source
    few, more = source.samples(3, 5), source.samples(9, 5)
    assert len(more) == 9
    assert [sample.id for sample in few] == [sample.id for sample in more[:3]]
    assert last(few[2]) == last(more[2]) == last(more[-7])
    with pytest.raises(IndexError):
        few[3]


def test_seeds_share_no_document_and_training_has_none_of_them():
    source = task("several-144").source
    ids = [sample.id for seed in (0, 1, 2) for sample in source.samples(20, seed)]
    assert len(set(ids)) == 60
    seeds = [int(name.split("-")[1]) for name in ids]
    for number, seed in enumerate(seeds):
        first = FIRST_SEED + number // 20 * SPAN
        assert first <= seed < first + SPAN and seed in HELD_OUT


def test_tasks_share_no_document_so_that_their_scores_can_be_pooled():
    seeds = [sample.id.split("-")[1] for one in tasks() for sample in one.source.samples(4, 0)]
    assert len(seeds) == len(set(seeds)) == 4 * len(tasks())


def test_layouts_take_turns_and_can_be_chosen():
    source = replace(task("lookup-256").source, layouts=("receipt", "table"))
    layouts = [sample.facts["layout"] for sample in source.samples(6, 0)]
    assert layouts == ["receipt", "table"] * 3


def test_what_a_source_depends_on_is_in_its_repr():
    source = Documents(layouts=("rows",), values=(4, 6))
    assert eval(repr(source)) == source
    assert "values=(4, 6)" in repr(replace(task("lookup-256"), source=source))


def test_several_are_answered_rightly_before_the_last_is_asked():
    source = task("several-256").source
    for sample in source.samples(8, 2):
        (said,) = sample.turns
        roles = [message.role for message in said]
        assert roles == ["user", "assistant", "user", "assistant", "user"]
        marks = written(source, sample)
        asked = [message.parts[-1][:-1] for message in said[::2]]
        assert len(set(asked)) == 3
        assert said[0].parts[0].size == (256, 256)
        assert sum(len(message.parts) for message in said) == 6
        if sample.facts["layout"] == "rows":
            for key, answer in zip(asked, said[1::2], strict=False):
                assert key + answer.parts[0] in marks


def test_the_second_question_is_about_another_part_of_the_page():
    source = task("second-256").source
    for sample in source.samples(8, 2):
        marks = written(source, sample)
        (first,), (second,) = sample.turns
        key, evidence = first.parts[1][:-1], sample.facts["evidence"]
        rows = [i // 16 for i in range(256) if marks.startswith(key, i)]
        assert second.parts == (last(sample),) and len(first.parts) == 2
        assert max(abs(row - evidence[0] // 16) for row in rows) >= 8


def test_the_question_stands_on_both_sides_of_the_page():
    (message,) = task("before-144").source.samples(1, 0)[0].turns[0]
    assert message.parts[0] == message.parts[2]
    (message,) = Documents(asked="before").samples(1, 0)[0].turns[0]
    assert [type(part) is str for part in message.parts] == [True, False]


@pytest.mark.parametrize("name", ["pages2-144", "pages4-256"])
def test_needles_lie_on_all_pages(name):
    pages = task(name).source.pages
    samples = task(name).source.samples(24, 0)
    assert {sample.facts["page"] for sample in samples} == set(range(pages))


@pytest.mark.parametrize(
    ("number", "seed", "says"),
    [
        (None, 0, "drawn without end"),
        (0, 0, "number from 1 to 10,000"),
        (10_001, 0, "number from 1 to 10,000"),
        (1, -1, "seed -1 has no documents"),
        (1, 5000, "number from 0 to 133"),
    ],
)
def test_numbers_without_documents_are_refused(number, seed, says):
    with pytest.raises(InputError, match=says):
        Documents().samples(number, seed)


def test_the_last_seed_still_has_documents():
    assert int(Documents().samples(1, 133)[0].id.split("-")[1]) in HELD_OUT


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"skill": "lokup"}, "unknown skill 'lokup'; known are lookup, row"),
        ({"asked": "never"}, "unknown order 'never'; known are after"),
        ({"layouts": ("rows", "circle")}, "unknown layout 'circle'"),
        ({"layouts": ()}, "no layout"),
        ({"history": 0, "asked": "last"}, "history of 0"),
        ({"lane": 64}, "lane 64 came; give a number from 0 to 63"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        Documents(**options)


def test_pages_too_small_for_a_question_are_refused():
    with pytest.raises(InputError, match="no room for a row question on pages of 4 x 6 cells"):
        Documents("row", grid=(4, 6), layouts=("table",)).samples(1, 0)[0]
