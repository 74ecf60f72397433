"""The example for several processes: they share the rows, and one of them tells."""

import subprocess
import sys
from pathlib import Path

from launching import environment, launched

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "many_processes.py"
LIMIT = 180  # seconds


def test_two_processes_say_once_what_one_says():
    with launched(EXAMPLE) as process:
        alone = subprocess.run(
            [sys.executable, EXAMPLE], env=environment(), capture_output=True, text=True
        )
        said = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0, said[-3000:]
    assert len(alone.stdout.splitlines()) == 10 and alone.stdout in said
    assert said.count("?") == 10
