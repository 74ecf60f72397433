"""Studies are values: everything they name exists, and every method of theirs can be made."""

from itertools import pairwise
from pathlib import Path

import pytest

import foveate
from foveate.errors import InputError
from foveate.eval.showing.tables import reference
from foveate.eval.studies import printed
from foveate.eval.studies.parts import measured
from foveate.eval.studies.single import Nth, Single
from foveate.eval.study import Printed, studies, study
from foveate.eval.tasks import task
from foveate.score import Attention
from samples import PROMPTS, kinds_of, observations

ROOT = Path(__file__).resolve().parents[2]
SEEN = observations(kinds_of(*PROMPTS["padded batch"]))
NAMES = [*studies()]


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_at_every_budget_is_a_method(name):
    one = study(name)
    told = {}
    for entry in one.entries:
        for keep in one.keeps:
            method = entry.method(keep)
            assert isinstance(method, foveate.Method)
            assert str(ROOT) not in repr(method)
            told[entry.label, keep] = repr(method)
    labels = [entry.label for entry in one.entries]
    assert len(set(labels)) == len(labels)
    assert all(len({told[label, keep] for keep in one.keeps}) == len(one.keeps) for label in labels)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_study_names_is_there(name):
    one = study(name)
    assert one.number >= (300 if name == "headline" else 200) and one.answers.endswith("?")
    assert all(task(word).name == word for word in one.tasks)
    labels = {entry.label for entry in one.entries}
    assert {reference(one.reference, label) for label in labels} <= labels
    assert {*one.picture} <= labels
    assert {label for places in one.curves.values() for label in places.values()} <= labels
    names = [table.name for table in (*one.layouts, *one.printed)]
    assert len({*names}) == len(names)
    for layout in one.layouts:
        assert {*layout.over} | {*layout.over.values()} | {*layout.entries} <= labels
        assert {*layout.keeps} <= {*one.keeps}
        assert {*layout.families} <= {word.rpartition("-")[0] for word in one.tasks}
        assert not {*layout.rows} & {*layout.columns}


@pytest.mark.parametrize("name", ["heads", "redundancy"])
def test_what_studies_need_is_in_the_package(name):
    table = Path(measured(name))
    assert table.is_file() and table.is_relative_to(Path(foveate.__file__).parent)


def test_every_preset_is_in_the_headline():
    rows = {entry.preset for entry in study("headline").entries}
    assert {info.name for info in foveate.methods()} - {"full", "mixkv"} <= rows


def test_an_unknown_study_is_refused():
    with pytest.raises(InputError, match=r"'headlin'.*did you mean 'headline'"):
        study("headlin")


def test_printed_tables_are_whole():
    tables = [value for value in vars(printed).values() if isinstance(value, Printed)]
    assert len(tables) == len(printed.__all__)
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert "another model, other tasks" in table.source and "arXiv" in table.source
        assert all(cell for row in table.rows for cell in row)


@pytest.mark.parametrize("preset", ["aircache", "snapkv", "h2o"])
def test_a_single_token_is_the_one_on_its_place(preset):
    given = foveate.method(preset, keep=0.5, scope="visual")
    orders = [given.rank(layer) for layer in SEEN]
    plans = {
        place: foveate.plan(Single(preset, {"scope": "visual"}).method(place), SEEN)
        for place in (1, 2, 3)
    }
    for number, ranking in enumerate(orders):
        B, H, T = ranking.scores.shape
        for b in range(B):
            visual = [t for t in range(T) if bool(SEEN[number].kinds.visual[b, t])]
            for h in range(H):
                best = sorted(visual, key=lambda t: (-float(ranking.scores[b, h, t]), t))
                for place, plan in plans.items():
                    kept = [t for t in plan.positions(number, b, h).tolist() if t in visual]
                    assert kept == [best[min(place, len(best)) - 1]]


def test_places_beyond_the_last_mean_the_last():
    plans = [
        foveate.plan(Single("snapkv", {"scope": "visual"}).method(place), SEEN)
        for place in (10_000, 20_000)
    ]
    for one, other in pairwise(plans):
        assert all(a.equal(b) for a, b in zip(one.keep, other.keep, strict=True))


@pytest.mark.parametrize("keep", [0.5, 0, True, "auto"])
def test_what_is_no_place_is_refused(keep):
    with pytest.raises(InputError, match="no place in a ranking"):
        Single("snapkv").method(keep)


def test_a_ranking_of_one_says_what_it_is_of():
    assert "place=7" in repr(Single("snapkv").method(7))
    assert isinstance(Nth(Attention(), 1).score, Attention)
    with pytest.raises(InputError, match="full cache ranks nothing"):
        Single("full").method(1)
