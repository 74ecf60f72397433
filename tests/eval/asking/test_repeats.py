"""Prompts that come for one method after the other are worth what they are worth alone."""

import pytest

import foveate
from foveate import tiny
from foveate.cli.models import Loaded
from foveate.eval.asking.answering import Answerer
from foveate.eval.tasks import task


@pytest.mark.parametrize("name", ["lookup-256", "pages2-144", "second-144", "several-144"])
def test_answers_are_those_of_an_answerer_that_remembers_nothing(name):
    asked, loaded = task(name), Loaded("embedded", *tiny.load())
    samples = asked.source.samples(3, 3)[:]
    methods = [None, foveate.snapkv(keep=0.2), foveate.aircache(keep=0.1), foveate.snapkv(keep=0.2)]
    answerer, forgetful = Answerer(loaded), Answerer(loaded, repeats=False)
    for method in methods:
        found = answerer.answers(asked, samples, method)
        for one, other in zip(found, forgetful.answers(asked, samples, method), strict=True):
            assert (one.said, one.kept, one.bytes_stored, one.prompt) == (
                other.said, other.kept, other.bytes_stored, other.prompt,
            )  # fmt: skip
    assert (answerer.encoded.reused, answerer.replayed.reused) == (3, 2)
    assert (forgetful.encoded.reused, forgetful.replayed.reused) == (0, 0)
