"""The subject `peers`: another environment's numbers, or the reason why there are none."""

import json
import sys

import pytest
import torch

from foveate import bench
from foveate.bench import peer_worker, peers
from foveate.bench.shapes import SHAPES, configured, scaled
from foveate.errors import InputError

SUBJECT = bench.SUBJECTS["peers"]
SMALL = {"models": ("Llama-3-8B",), "by": 32, "rounds": 2, "batch": 2, "prompt": 2048, "steps": 64}
WORDS = {
    "library": "foveate", "model": configured(scaled(SHAPES["Llama-3-8B"], 32)), "keep": 0.25,
    "methods": ["snapkv", "adakv", "no such method"], "batch": 2, "prompt": 64, "steps": 4,
    "rounds": 2, "device": "cpu", "dtype": "float32", "clock": "wall", "seed": 1,
}  # fmt: skip


def numbers(stored):
    """Return what a worker could say of a method."""
    return {
        "prefill": {"full": 1.0, "compressed": 1.5},
        "step": {"full": [0.01, 0.02], "compressed": [0.005, 0.02]},
        "stored": {"full": 1000, "compressed": stored},
        "held": {"full": 1000, "compressed": stored + 10},
    }


@pytest.fixture
def interpreter(tmp_path):
    """Write a program that says something in place of an interpreter, and ends in some way."""

    def write(lines, code=0, error=""):
        path = tmp_path / "python"
        said = "\n".join(peer_worker.MARK + json.dumps(line) for line in lines)
        path.write_text(
            f"#!/bin/sh\ncat <<'END'\nnoise\n{said}\nEND\necho '{error}' >&2\nexit {code}"
        )
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def measured(monkeypatch):
    """Measure with some interpreter, and with numbers from nowhere for ours."""

    def measure(python, **options):
        real = peers._told

        def told(interpreter, library, model, setting):
            if library == peers.PEER:
                return real(interpreter, library, model, setting)
            return {"versions": {}, "methods": {name: numbers(100) for name in peers.METHODS}}

        monkeypatch.setattr(peers, "_told", told)
        setting = SUBJECT.setting(peer_python=python, **{**SMALL, **options})
        heard = []
        cases = json.loads(json.dumps(SUBJECT.measure(setting, heard.append)))
        assert len(heard) == SUBJECT.ticks(setting)
        return {"what": "peers", "setting": setting.to_dict(), "cases": cases}

    return measure


def test_the_worker_measures_and_says_what_fails(capsys):
    peer_worker.main(WORDS)
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith(peer_worker.MARK)]
    versions, *told = [json.loads(line.removeprefix(peer_worker.MARK)) for line in lines]
    assert set(versions["versions"]) == {"torch", "transformers", "foveate"}
    assert [one["method"] for one in told] == WORDS["methods"]
    shape = scaled(SHAPES["Llama-3-8B"], 32)
    full = 2 * 4 * shape.layers * 2 * shape.kv_heads * 64 * shape.width
    for one in told[:2]:
        assert one["stored"] == {"full": full, "compressed": full // 4}
        assert one["held"]["full"] == full and one["held"]["compressed"] > full // 4
        assert [len(times) for times in one["step"].values()] == [2, 2]
    assert told[2]["failed"].startswith("MethodError: ")


def test_bytes_are_counted_once_and_models_not_at_all():
    class Holder:
        __slots__ = ("part",)

    base, holder = torch.zeros(100), Holder()
    holder.part = [base[:10], base, {"again": (base.view(10, 10),)}, torch.nn.Linear(3, 3), None]
    assert peer_worker.nbytes(holder) == 400
    assert peer_worker.nbytes([holder, torch.zeros(5), holder]) == 420


def test_hidden_keys_are_found_on_their_layers():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    assert peer_worker.masks(model) == {}
    model[1].masked_key_indices = (torch.zeros(3),)
    assert list(peer_worker.masks(model)) == [model[1]]


def test_an_environment_without_the_library_is_a_row_that_says_so(measured):
    result = measured(sys.executable)
    rows = SUBJECT.table(result)["rows"]
    assert len(rows) == 2 * len(peers.METHODS)
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        assert ours[2:5] == ["foveate", "0.00 MiB, 10% of the full cache", "11%"]
        assert theirs[3].startswith("not installed: ModuleNotFoundError")
    assert all(len(row) == len(SUBJECT.table(result)["columns"]) for row in rows)


def test_no_environment_at_all_is_a_row_that_says_so(measured, monkeypatch):
    monkeypatch.delenv(peers.VARIABLE, raising=False)
    rows = SUBJECT.table(measured(None))["rows"]
    assert rows[1][3] == "not installed; --peer-python or FOVEATE_PEER_PYTHON names an environment"


def test_a_worker_that_crashes_leaves_what_it_said_before(measured, interpreter):
    lines = [{"versions": {"kvpress": "1"}}, {"method": "snapkv", **numbers(200)},
             {"method": "adakv", "failed": "RuntimeError: sizes"}]  # fmt: skip
    result = measured(interpreter(lines, code=139, error="Segmentation fault"))
    found = {name: x["kvpress"] for name, x in result["cases"]["Llama-3-8B"]["methods"].items()}
    assert found["snapkv"]["stored"] == 0.2 and found["snapkv"]["held"] == 0.21
    assert found["snapkv"]["step"] == {"median": 0.75, "low": 0.5, "high": 1.0, "count": 2}
    assert found["adakv"] == {"failed": "RuntimeError: sizes"}
    assert found["knorm"] == {"failed": "the process ended with 139: Segmentation fault"}
    assert result["cases"]["Llama-3-8B"]["versions"]["kvpress"] == {"kvpress": "1"}
    rows = {tuple(row[1:3]): row[3:] for row in SUBJECT.table(result)["rows"]}
    assert rows["SnapKV", "kvpress"][0] == "0.00 MiB, 20% of the full cache"
    assert rows["AdaKV on SnapKV", "kvpress"] == ["RuntimeError: sizes", "", "", "", ""]


def test_chart_leaves_out_what_is_missing(measured, interpreter):
    result = measured(interpreter([{"method": "knorm", **numbers(200)}]))
    held, step = SUBJECT.chart(result).panels
    assert [len(line.x) for line in held.lines] == [4, 1]
    assert held.lines[1].x == (0.21,) and held.lines[1].y == (3.0,)
    assert held.names == step.names and len(held.names) == 4
    (held, _) = SUBJECT.chart(measured(sys.executable)).panels
    assert [line.name for line in held.lines] == ["foveate"]


def test_the_environment_can_be_named_by_a_variable(monkeypatch):
    monkeypatch.setenv(peers.VARIABLE, sys.executable)
    setting = SUBJECT.setting()
    assert setting.python == sys.executable
    assert setting.to_dict()["python"] is True
    assert SUBJECT.setting(device="cuda").by == 1


def test_an_interpreter_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--peer-python .* cannot be run"):
        SUBJECT.setting(peer_python=str(tmp_path / "python"))
