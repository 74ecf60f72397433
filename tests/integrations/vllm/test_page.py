"""The programs of docs/vllm.md run, and the page's answer is read through vLLM."""

import os
import subprocess
import sys
from pathlib import Path

from doc_blocks import blocks

from foveate import tiny

PAGE = Path(__file__).resolve().parents[3] / "docs" / "vllm.md"


def test_what_was_read_with_transformers_is_answered_by_vllm(tmp_path):
    programs = [block.text for block in blocks(PAGE) if block.language == "python"]
    compiled = "enable_prefix_caching=False"
    assert compiled in programs[1]
    programs[1] = programs[1].replace(compiled, f"{compiled}, enforce_eager=True")
    shown = []
    for name, text in zip(("read.py", "decode.py"), programs, strict=False):
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            [sys.executable, name], cwd=tmp_path, env=dict(os.environ), capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        shown.append(done.stdout.splitlines())
    kept, whole = (int(word) for word in shown[0][-1].split()[:3:2])
    assert kept < whole / 2
    assert tiny.document(seed=7).questions[0].answer in shown[1]  # among what vLLM logs
