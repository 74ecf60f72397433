"""Every kernel in Triton compiles for a Hopper GPU and fits it; no GPU is needed for that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SHARED_BYTES = 227 * 1024  # that one program can have on Hopper
SPILLED_BYTES = 256  # of a thread; a loop that does not fit its registers spills thousands


@pytest.mark.parametrize(
    ("kernel", "parts"),
    [
        ("ragged_attention", {"attend_units", "merge_units"}),
        ("column_stats", {"norm_rows", "add_columns"}),
        ("compact", {"copy_rows"}),
    ],
)
def test_compiles_for_hopper(kernel, parts, tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    program = Path(__file__).with_name("hopper.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), kernel],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["name"] for row in rows} == parts
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16", "float16"}
    assert {row["width"] for row in rows} == {64, 80, 128}
    for row in rows:
        assert row["code"] > 0, row
        assert row["shared"] <= SHARED_BYTES, row
        assert row["spilled"] <= SPILLED_BYTES, row
