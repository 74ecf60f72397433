"""setup.sh decides by what it finds: a GPU, an installed torch, a CPU wheel, or none of these."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="setup.sh needs bash")

# Stands for every interpreter: notes its arguments, and acts out what setup.sh asks of it.
FAKE_PYTHON = """#!/bin/bash
echo "$*" >>"$LOG"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip install "*--dry-run*)
        while [ "$1" != --report ]; do shift; done
        case "$*" in *--extra-index-url*) cp "$CPU_REPORT" "$2" ;; *) cp "$REPORT" "$2" ;; esac ;;
    "-m pip install "*--editable*) touch .venv/bin/foveate; chmod +x .venv/bin/foveate ;;
    "-m pip install "*torch[=\\>]*) touch .venv/torch ;;
    "-c import torch; print"*) echo torch==2.13.0+cpu ;;
    "-c import torch") [ -f .venv/torch ] ;;
    "-c import pip"*) exit "${OLD_PIP:-0}" ;;
    "--version") echo "Python 3.11" ;;
    "- "*) exec "$REAL_PYTHON" "$@" ;;
esac
"""
GPU_BUILD = {"torch": "2.13.0", "nvidia-cublas": "13.1", "triton": "3.7"}
CPU_BUILD = {"torch": "2.13.0+cpu", "sympy": "1.14"}
NEUTRAL_BUILD = {"torch": "2.13.0", "sympy": "1.14"}


class Place:
    """A checkout of its own with a false interpreter."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("setup.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        self.program("python3", FAKE_PYTHON)
        self.program("nvidia-smi", "#!/bin/bash\nexit 9\n")

    def program(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def report(self, name, packages):
        items = [{"metadata": {"name": k, "version": v}} for k, v in packages.items()]
        (self.folder / name).write_text(json.dumps({"install": items}))
        return str(self.folder / name)

    def run(self, offers=CPU_BUILD, **variables):
        self.log.write_text("")
        reports = {
            "REPORT": self.report("report.json", offers),
            "CPU_REPORT": self.report("cpu.json", CPU_BUILD),
        }
        keep = {k: v for k, v in os.environ.items() if k not in ("TORCH", "PYTHON", "VENV")}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        fakes = {"PATH": path, "LOG": str(self.log), "REAL_PYTHON": sys.executable}
        return subprocess.run(
            ["./setup.sh"],
            cwd=self.folder,
            env={**keep, **fakes, **reports, **variables},
            capture_output=True,
            text=True,
        )

    def calls(self, *words):
        lines = self.log.read_text().splitlines()
        return [line for line in lines if all(word in line for word in words)]

    def installed(self):
        return [line for line in self.calls("pip install") if "--dry-run" not in line]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_cpu_wheel_is_taken_without_a_gpu(place):
    assert place.run().returncode == 0
    torch, foveate = place.installed()
    assert torch.endswith("torch==2.13.0")
    assert "-c .venv/constraints.txt --editable . --group dev" in foveate
    assert (place.folder / ".venv" / "constraints.txt").read_text() == "torch==2.13.0+cpu\n"


def test_build_without_gpu_libraries_is_taken(place):
    assert place.run(offers=NEUTRAL_BUILD).returncode == 0


def test_second_run_does_nothing(place):
    place.run()
    again = place.run()
    assert again.returncode == 0
    assert (again.stdout, again.stderr, place.calls()) == ("", "", [])


def test_changed_project_is_installed_again_and_torch_is_kept(place):
    place.run()
    with (place.folder / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    again = place.run(offers=GPU_BUILD)
    assert "keeping the torch" in again.stdout
    assert len(place.installed()) == 1


def test_moved_checkout_is_installed_again(place, tmp_path_factory):
    place.run()
    moved = tmp_path_factory.mktemp("moved") / "checkout"
    place.folder.rename(moved)
    place.folder, place.log, place.bin = moved, moved / "log", moved / "bin"
    assert place.run().returncode == 0
    assert place.calls("--editable")


def test_gpu_gets_the_normal_build(place):
    place.program("nvidia-smi", "#!/bin/bash\necho 'GPU 0: something'\n")
    assert place.run(offers=GPU_BUILD).returncode == 0
    assert place.installed()[0].endswith("torch>=2.6")
    assert not place.calls("--dry-run")


@pytest.mark.parametrize("choice", ["gpu", "any"])
def test_the_normal_build_can_be_asked_for(place, choice):
    assert place.run(offers=GPU_BUILD, TORCH=choice).returncode == 0
    assert place.installed()[0].endswith("torch>=2.6")


def test_gigabytes_are_never_pulled_silently(place):
    done = place.run(offers=GPU_BUILD)
    assert done.returncode == 1
    assert place.installed() == []
    for cure in ("TORCH_CPU_INDEX", "TORCH=any", "Nothing was installed"):
        assert cure in done.stderr


def test_cpu_index_is_tried_once_and_fast(place):
    done = place.run(offers=GPU_BUILD, TORCH_CPU_INDEX="https://cpu.test/whl")
    assert done.returncode == 0
    assert len(place.calls("--dry-run", "--retries 0 --timeout 5", "https://cpu.test/whl")) == 1
    assert place.installed()[0].endswith("https://cpu.test/whl torch==2.13.0")


def test_torchvision_is_never_installed(place):
    place.run()
    assert not place.calls("torchvision")
    assert "torchvision" not in (ROOT / "pyproject.toml").read_text().split("[tool.")[0]


def test_old_pip_is_updated_first(place):
    place.run(OLD_PIP="1")
    assert "pip>=25.1" in place.installed()[0]


def test_old_python_is_refused_with_advice(place):
    place.program("old", "#!/bin/bash\nexit 1\n")
    done = place.run(PYTHON="old")
    assert done.returncode == 1
    assert "PYTHON=" in done.stderr


def test_a_failed_installation_is_tried_again(place):
    broken = FAKE_PYTHON.replace("*--editable*) touch .venv/bin/foveate", "*--editable*) exit 1")
    place.program("python3", broken)
    assert place.run().returncode == 1
    shutil.rmtree(place.folder / ".venv")
    place.program("python3", FAKE_PYTHON)
    assert place.run().returncode == 0
    assert place.calls("--editable")
