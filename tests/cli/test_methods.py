"""`foveate methods` says what the library says."""

import json
from dataclasses import asdict

import foveate
from foveate.methods.paper import describe


def test_json_is_the_library_s_list(run):
    found = json.loads(run("methods", "--json").out)["methods"]
    assert found == json.loads(json.dumps([asdict(info) for info in foveate.methods()]))


def test_every_method_is_listed(run):
    out = run("methods").out
    assert all(f"{info.name}  {info.about}" in out for info in foveate.methods())


def test_one_method_shows_its_options(run):
    out = run("methods", "aircache").out
    assert all(f"{option.name} = " in out for option in describe(foveate.aircache).options)
    assert "streaming" not in out


def test_a_host_is_shown_with_the_method_on_it(run):
    out = run("methods", "mixkv+adakv").out
    assert "and host options" in out and "importance = " in out and "normalize = " in out


def test_unknown_method_names_the_nearest(run):
    done = run("methods", "aircach")
    assert (done.code, done.out) == (2, "")
    assert "'aircache'" in done.err
