"""A report is plain data, prints itself, and says which layers it knows."""

import json

import pytest
import torch

import families
import foveate
import gold


@pytest.fixture(scope="module")
def told():
    """The report of a padded batch, two images and none, after three new tokens."""
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(3)
    with foveate.compress(model, foveate.aircache(keep=0.25)) as session:
        gold.generate(model, inputs, max_new_tokens=3)
    return session.report, inputs


def test_totals_are_sums_of_layers(told):
    report, _ = told
    assert report.bytes_stored == sum(layer.bytes_stored for layer in report.layers)
    assert report.bytes_stored < report.bytes_peak <= report.bytes_full
    assert report.kept_visual * len(report.layers) == sum(x.kept_visual for x in report.layers)
    assert {"window", "strength", "skewness", "budget"} <= set(report.layers[0].explain)


def test_it_survives_json(told, tmp_path):
    report, inputs = told
    again = json.loads(json.dumps(report.to_dict()))
    assert again["bytes_stored"] == report.bytes_stored
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["layers"] == again["layers"]
    for row in range(len(inputs["input_ids"])):
        assert saved["kept"]["1"][row][0] == report.kept(1, row, 0).tolist()


def test_kept_positions_are_ascending_and_hold_all_text(told):
    report, inputs = told
    text = (inputs["input_ids"] != families.IMAGE) & (inputs["attention_mask"] == 1)
    for row in range(len(text)):
        kept = report.kept(0, row, 1)
        assert torch.equal(kept, kept.unique())
        assert set(text[row].nonzero().flatten().tolist()) <= set(kept.tolist())


def test_unknown_layer_names_the_known_ones(told):
    with pytest.raises(foveate.InputError, match=r"layer 9 .*\[0, 1, 2"):
        told[0].kept(9)


def test_it_prints_bytes_and_tokens(told):
    line = str(told[0])
    assert f"{told[0].bytes_stored:,}" in line and "visual tokens per layer and head" in line
