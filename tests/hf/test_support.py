"""The table of supported models is what the scan measured, and the tested families are on it."""

import json
import sys
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import families

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import support_page  # noqa: E402

RESULT = json.loads(support_page.RESULT.read_text())
ROWS = {row["model_type"]: row for row in RESULT["families"]}


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_tested_family_is_supported(family):
    assert ROWS[family.model_type]["verdict"] == "supported"
    assert ROWS[family.model_type]["difference"] <= 1e-4


def test_page_is_written_from_the_result():
    assert support_page.PAGE.read_text() == support_page.page(RESULT)


def test_every_registered_family_has_a_row():
    if transformers.__version__ != RESULT["transformers"]:
        pytest.skip(f"the table is of transformers {RESULT['transformers']}")
    assert sorted(ROWS) == sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def test_every_row_but_a_supported_one_has_a_reason():
    for name, row in ROWS.items():
        assert row["verdict"] in support_page.VERDICTS, name
        assert row["verdict"] == "supported" or row["reason"], name
    unknown = sum(row["verdict"] == "unknown" for row in ROWS.values())
    assert unknown <= 5, "the scan lost families that it could run"


def test_a_row_can_be_measured_again():
    pytest.importorskip("resource", reason="the scan bounds memory the Unix way")
    from support_scan import scan

    if transformers.__version__ != RESULT["transformers"]:
        pytest.skip(f"the table is of transformers {RESULT['transformers']}")
    row = scan("paligemma")
    assert (row.verdict, row.layers) == (ROWS["paligemma"]["verdict"], ROWS["paligemma"]["layers"])
