"""What would give wrong numbers in lm-eval is refused, and a crash is a crash."""

import inspect
from dataclasses import dataclass, replace

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import foveate
from foveate.errors import InputError, MethodError
from foveate.integrations import lm_eval as plugin
from foveate.integrations.lm_eval import FoveateLM

from .conftest import TASK


def load(place, **options):
    return FoveateLM(pretrained=place.model, device="cpu", **options)


def request(context, continuation):
    return Instance("loglikelihood", {}, (context, continuation), 0, ("choices", 0, 1))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "snapkv", "kepp": 0.1}, "'kepp'; did you mean 'keep'"),
        ({"method": "snapkv", "pretraned": "x"}, "did you mean 'pretrained'"),
        ({"method": "snapkv", "keep": 2.0}, "more than everything"),
        ({"method": "snapkv", "storage": "moist"}, "moist"),
        ({"method": "snapvk"}, "did you mean 'snapkv'"),
        ({"keep": 0.1}, "no method came"),
        ({"method": "aircache"}, "keeps all text"),
        ({"method": "h2o", "scope": "visual"}, "keeps all text"),
        ({"method": "lookm"}, "keeps all text"),
    ],
)
def test_arguments(place, options, message):
    with pytest.raises(InputError, match=message):
        load(place, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "aircache", "scope": "unified"},
        {"method": "lookm", "budget": "strict"},
        {"method": "full"},
        {"method": "mixkv+adakv", "keep": 64, "alpha": 0.5},
    ],
)
def test_methods_of_all_tokens_are_taken(place, options):
    assert load(place, **options).compression.tally.calls == 0


def test_likelihoods(place):
    asked = [request("word1 word2", " word3")]
    with pytest.raises(InputError, match="choices asks for likelihoods"):
        load(place, method="snapkv").loglikelihood(asked)
    with pytest.raises(InputError, match="asks for likelihoods"):
        load(place, method="snapkv").loglikelihood_rolling(asked)
    plain = HFLM(pretrained=place.model, device="cpu").loglikelihood(asked)
    assert load(place, method="snapkv", keep=1.0).loglikelihood(asked) == plain


@dataclass(frozen=True)
class Broken:
    """A score that fails."""

    def rows(self, kinds):
        return None

    def __call__(self, observation, tiers):
        raise ZeroDivisionError("this score is broken")


def test_a_crash_stops_the_run(place):
    method = replace(foveate.knorm(keep=0.2), score=Broken())
    manager = place.manager(["no", "such", "thing", "here"])
    with pytest.raises(ZeroDivisionError, match="this score is broken"):
        simple_evaluate(load(place, method=method), tasks=[TASK], task_manager=manager)


def test_the_command_reports_bad_input(place, monkeypatch, capsys):
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: load(place, method="aircache"))
    with pytest.raises(SystemExit) as stop:
        plugin.main()
    assert stop.value.code == 2
    assert "keeps all text" in capsys.readouterr().err


def test_no_argument_has_two_meanings():
    own = {*inspect.signature(HFLM.__init__).parameters, *plugin.LOADING}
    options = {option.name for info in foveate.methods() for option in info.options}
    assert not own & (options | {"keep", "method", "storage", "stream", "quantized"})


def test_bad_options_of_a_method_are_method_errors(place):
    with pytest.raises(MethodError, match="window"):
        load(place, method="snapkv", window=-3)
