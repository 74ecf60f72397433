"""`foveate calibrate`: tables of redundancies and of layer sizes."""

import json

import pytest

from foveate import method, tiny
from foveate.calibration.pages import generated
from foveate.calibration.tables import load_table
from foveate.cli import models
from foveate.cli.answers import prepare
from foveate.hf.prefill import kept_shares


@pytest.mark.usefixtures("untrained")
def test_redundancy(run, tmp_path):
    out = tmp_path / "redundancy.json"
    done = run("calibrate", "redundancy", "--pages", 3, "--out", out, "--json")
    found = json.loads(done.out)
    table = load_table(out, "redundancy")
    table.check(None, 3, 2, 1)
    assert found["redundancy"] == [list(row) for row in table.values]
    assert (found["pages"], found["seed"]) == (3, 0)
    assert "keep" not in found
    again = run("calibrate", "redundancy", "--pages", 3, "--out", out)
    assert "over 3 pages" in again.out and str(out) in again.out


def test_sizes(run, tmp_path):
    out = tmp_path / "sizes.json"
    done = run("calibrate", "sizes", "--keep", "0.25", "--pages", 2, "--out", out, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    table = load_table(out, "sizes")
    assert table.keep == found["keep"] == 0.25
    assert found["shares"] == list(table.per_layer)
    assert sum(found["shares"]) / 6 == pytest.approx(0.25, abs=0.002)
    assert max(found["shares"]) > 1.1 * min(found["shares"])
    model, processor = tiny.load()
    page = generated(0, seed=0)
    inputs = prepare(models.Loaded("embedded", model, processor), [page.image], page.prompts[0])
    again = kept_shares(model, inputs, method("prefixkv", keep=0.25, sizes=str(out)))
    assert again.tolist() == pytest.approx(found["shares"], abs=0.01)
    assert "kept share" in run("calibrate", "sizes", "--pages", 1, "--out", out).out


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("colours",), "'redundancy', 'sizes'"),
        (("redundancy", "--keep", "0.1"), "which has no budget"),
        (("redundancy", "--out", "none/r.json"), "there is no folder none"),
        (("sizes", "--keep", "much"), "is not a number"),
    ],
)
def test_calibrations_that_cannot_be_made(run, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    done = run("calibrate", *options)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
