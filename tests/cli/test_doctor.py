"""`foveate doctor` finds the troubles that installations have, and says the cure."""

import importlib.metadata
import json
import sys

import pytest
import torch

from foveate import tiny
from foveate.cli import checks, torchvision


@pytest.fixture
def versions(monkeypatch):
    """Pretend that packages have other versions, or are missing (None)."""

    def pretend(**given):
        real = importlib.metadata.version

        def version(name):
            if name not in given:
                return real(name)
            if given[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return given[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


def vision(monkeypatch, kind, detail):
    monkeypatch.setattr(torchvision, "state", lambda: torchvision.State(kind, detail))


def only(check):
    (found,) = check()
    return found


@pytest.mark.usefixtures("untrained")
def test_healthy_installation(run, monkeypatch):
    vision(monkeypatch, "missing", "not installed")
    done = run("doctor", "--json")
    found = json.loads(done.out)
    assert (done.code, found["healthy"]) == (0, True)
    names = [check["name"] for check in found["checks"]]
    for name in ("python", "torch", "transformers", "torchvision", "embedded model", "model cache"):
        assert name in names
    assert all(check["status"] in ("ok", "note", "broken") for check in found["checks"])


def test_extras_that_lack_a_package_are_named(versions):
    versions(uvicorn=None)
    have, _, without = only(checks._extras).found.partition("; not installed (optional): ")
    assert "serve" in without.split(", ") and "charts" in have.split(", ")


def test_broken_embedded_model_fails(run, monkeypatch):
    def fail():
        raise FileNotFoundError("no checkpoint")

    vision(monkeypatch, "missing", "not installed")
    monkeypatch.setattr(tiny, "load", fail)
    done = run("doctor")
    assert done.code == 1
    assert "broken: embedded model" in done.out
    assert "no checkpoint" in done.out


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("4.56.2", "broken"),
        ("4.57.6", "note"),
        ("5.19.0", "note"),
        ("5.23.0", "ok"),
        ("6.0.0", "broken"),
        ("6.0.0rc1", "broken"),
        (None, "broken"),
    ],
)
def test_range_of_transformers(versions, version, status):
    versions(transformers=version)
    found = only(checks._transformers)
    assert found.status == status
    assert bool(found.cure) == (status != "ok")


@pytest.mark.parametrize(("version", "status"), [("2.5.1", "broken"), ("2.6.0+cpu", "ok")])
def test_range_of_torch(monkeypatch, version, status):
    monkeypatch.setattr(torch, "__version__", version)
    assert only(checks._torch).status == status


def test_missing_torch(versions):
    versions(torch=None)
    assert only(checks._torch).status == "broken"


def test_broken_torchvision_beside_cpu_torch(versions, monkeypatch):
    versions(torch="2.13.0+cpu", torchvision="0.28.0")
    vision(monkeypatch, "broken", "RuntimeError: operator torchvision::nms does not exist")
    found = only(checks._torchvision)
    assert found.status == "broken"
    assert "0.28.0 beside torch 2.13.0+cpu" in found.found
    assert found.cure.startswith("pip uninstall torchvision")


@pytest.mark.parametrize(
    ("detail", "status"), [("0.28.0+cpu", "ok"), ("0.28.0", "note"), ("0.28.0+cu130", "note")]
)
def test_gpu_torchvision_beside_cpu_torch(versions, monkeypatch, detail, status):
    versions(torch="2.13.0+cpu", torchvision=detail)
    vision(monkeypatch, "works", detail)
    assert only(checks._torchvision).status == status


def package(folder, source):
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(source)


@pytest.mark.parametrize(
    ("source", "kind", "detail"),
    [
        ("__version__ = '0.28.0'", "works", "0.28.0"),
        ("raise RuntimeError('operator nms does not exist')", "broken", "nms does not exist"),
        ("import os; os._exit(9)", "broken", "exit code 9"),
        ("import absent_part", "broken", "absent_part"),
    ],
)
def test_torchvision_is_imported_elsewhere(tmp_path, monkeypatch, source, kind, detail):
    package(tmp_path, source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = torchvision.state()
    assert found.kind == kind
    assert detail in found.detail
    assert "torchvision" not in sys.modules


def test_missing_torchvision(tmp_path):
    empty = tmp_path / "python"
    empty.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    empty.chmod(0o755)
    assert torchvision.state(str(empty)).kind == "missing"


def test_hanging_torchvision_is_broken(tmp_path, monkeypatch):
    package(tmp_path, "import time; time.sleep(30)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "did not end" in torchvision.state(timeout=0.3).detail


def test_unwritable_folder(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", refuse)
    found = checks._writable("model cache", tmp_path / "not" / "yet", "set HF_HOME")
    assert (found.status, found.cure) == ("broken", "set HF_HOME")
    assert "Permission denied" in found.found


def test_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr(checks, "_has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = {check.name: check for check in checks._devices()}["gpu"]
    assert found.status == "note"
    assert "TORCH=gpu" in found.cure


def test_a_check_that_fails_is_a_finding(monkeypatch):
    def _strange():
        raise OSError("disk on fire")
        yield

    monkeypatch.setattr(checks, "CHECKS", (_strange,))
    (found,) = checks.run()
    assert (found.name, found.status) == ("strange", "broken")
    assert "disk on fire" in found.found
