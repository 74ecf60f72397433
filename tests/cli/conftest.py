"""The command line run inside the test, on an untrained model of the embedded kind."""

import sys
from dataclasses import dataclass

import pytest
import torch

from foveate import cli, tiny
from foveate.tiny.architecture import build
from foveate.tiny.documents import document
from foveate.tiny.processor import Processor


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `foveate` with words, as a shell would."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["foveate", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return Done(stop.value.code or 0, said.out, said.err)

    return run


@pytest.fixture
def untrained(monkeypatch):
    """Let the embedded model have three layers and weights of no training."""

    def load(device="cpu", dtype=None):
        torch.manual_seed(3)
        return build(layers=3, hidden=64).eval(), Processor()

    monkeypatch.setattr(tiny, "load", load)


@pytest.fixture
def page(tmp_path):
    """Write a small document as PNG, and return its file name."""
    path = tmp_path / "page.png"
    document(5, layout="rows", grid=(5, 7)).pages[0].save(path)
    return str(path)
