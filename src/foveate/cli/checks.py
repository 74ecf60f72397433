"""What can be wrong with an installation: one function per trouble, each with its cure."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foveate.cli import torchvision

TORCH, TRANSFORMERS, PREFERRED = (2, 6), ((4, 57), (6, 0)), (5, 20)


@dataclass(frozen=True)
class Check:
    """One finding; `note` works but is worth knowing, `broken` needs the cure."""

    name: str
    status: Literal["ok", "note", "broken"]
    found: str
    cure: str = ""


def run() -> Iterator[Check]:
    """Yield every finding, in an order in which earlier ones explain later ones."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:
            name = check.__name__.strip("_").replace("_", " ")
            yield Check(name, "broken", f"{type(error).__name__}: {error}", "mend what this names")


def numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version.

    >>> numbers("2.13.0+cpu"), numbers("6.0rc1")
    ((2, 13), (6, 0))
    """
    parts = version.split("+")[0].split(".")[:2]
    digits = [
        "".join(c for c in part[:3] if c.isdigit()) if part[:1].isdigit() else "0" for part in parts
    ]
    return int(digits[0]), int(digits[1] if len(digits) > 1 else 0)


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Check]:
    old = numbers(platform.python_version()) < (3, 10)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check(
        "python", "broken" if old else "ok", found, "use Python 3.10 or newer" if old else ""
    )


def _torch() -> Iterator[Check]:
    version = _installed("torch")
    if version is None:
        yield Check("torch", "broken", "not installed", "run ./setup.sh, or pip install torch")
        return
    import torch

    old = numbers(torch.__version__) < TORCH
    cure = "pip install --upgrade 'torch>=2.6'" if old else ""
    yield Check("torch", "broken" if old else "ok", str(torch.__version__), cure)


def _transformers() -> Iterator[Check]:
    version = _installed("transformers")
    if version is None:
        cure = "run ./setup.sh, or pip install 'transformers>=4.57,<6'"
        yield Check("transformers", "broken", "not installed", cure)
    elif not TRANSFORMERS[0] <= numbers(version) < TRANSFORMERS[1]:
        cure = "pip install 'transformers>=4.57,<6'"
        yield Check("transformers", "broken", f"{version}; 4.57 up to below 6 is supported", cure)
    elif numbers(version) < PREFERRED:
        cure = "5.20 or newer mends mistakes with several images per prompt under beam search"
        yield Check("transformers", "note", version, cure)
    else:
        yield Check("transformers", "ok", version)


def _torchvision() -> Iterator[Check]:
    torch_version = _installed("torch") or "?"
    found, version = torchvision.state(), _installed("torchvision")
    cure = found.cure(torch_version)
    if found.kind == "broken":
        both = f"{version or 'unknown version'} beside torch {torch_version}: {found.detail}"
        yield Check("torchvision", "broken", both, cure)
    elif found.kind == "missing":
        what = "not installed; the embedded model and many others work without it"
        yield Check("torchvision", "note", what, cure)
    elif torch_version.endswith("+cpu") and not found.detail.endswith("+cpu"):
        what = f"{found.detail}, a GPU build, beside torch {torch_version}"
        yield Check(
            "torchvision", "note", what, "it imports here; if images fail, " + _remove(cure)
        )
    else:
        yield Check("torchvision", "ok", found.detail)


def _remove(cure: str) -> str:
    return cure or "pip uninstall torchvision"


def _processors() -> Iterator[Check]:
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except (ImportError, RuntimeError, AttributeError) as error:
        cure = "mend torchvision first (see above), then transformers"
        yield Check("image processors", "broken", str(error).splitlines()[0], cure)
    else:
        names = f"{AutoProcessor.__name__} and {AutoModelForImageTextToText.__name__} import"
        yield Check("image processors", "ok", names)


def _devices() -> Iterator[Check]:
    import torch

    yield Check(
        "cpu", "ok", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    )
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield Check(f"cuda:{index}", "ok", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "available")
    if not torch.cuda.is_available() and _has_nvidia_gpu():
        cure = "make a new .venv with TORCH=gpu ./setup.sh, or check the driver"
        yield Check(
            "gpu", "note", f"one is here, but torch {torch.__version__} cannot use it", cure
        )


def _has_nvidia_gpu() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.startswith("GPU")


def _attention() -> Iterator[Check]:
    import torch
    from transformers.utils import import_utils

    query = torch.zeros(1, 1, 2, 8)
    torch.nn.functional.scaled_dot_product_attention(query, query, query)
    yield Check("attention: sdpa, eager", "ok", "available")
    name, version = "attention: flash_attention_2", _installed("flash-attn")
    if import_utils.is_flash_attn_2_available():
        yield Check(name, "ok", f"flash-attn {version}")
    elif version:
        cure = "it needs a GPU and a build that matches torch; --attn sdpa always works"
        yield Check(name, "note", f"flash-attn {version} is installed, but cannot be used", cure)
    else:
        yield Check(name, "ok", "not installed (optional; sdpa serves)")
    has_flex = import_utils.is_torch_flex_attn_available()
    flex = "available" if has_flex else "not available (optional)"
    yield Check("attention: flex_attention", "ok", flex)


def _extras() -> Iterator[Check]:
    """Yield which extras have all that they need."""
    told = importlib.metadata.metadata("foveate").get_all("Provides-Extra") or []
    pattern = re.compile(r"""([\w.-]+).*; extra == ["']([\w-]+)["']""")
    found = map(pattern.match, importlib.metadata.requires("foveate") or [])
    lacking = [one[2] for one in found if one and _installed(one[1]) is None]
    have = ", ".join(extra for extra in told if extra not in lacking) or "none"
    without = ", ".join(dict.fromkeys(lacking))
    yield Check("extras", "ok", f"{have}{without and f'; not installed (optional): {without}'}")


def _write_access() -> Iterator[Check]:
    from huggingface_hub.constants import HF_HUB_CACHE

    yield _writable(
        "temporary folder", Path(tempfile.gettempdir()), "set TMPDIR to a folder of yours"
    )
    yield _writable("model cache", Path(HF_HUB_CACHE), "set HF_HOME to a folder of yours")
    here = _writable(
        "current folder", Path.cwd(), "change to a folder of yours before you save files"
    )
    yield Check(here.name, "note" if here.status == "broken" else "ok", here.found, here.cure)


def _writable(name: str, folder: Path, cure: str) -> Check:
    """Return whether a file can be made in the folder, or in the parent it would be made in."""
    place = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            return Check(name, "ok", str(folder))
    except OSError as error:
        return Check(
            name, "broken", f"{folder} cannot be written to: {error.strerror or error}", cure
        )


def _embedded_model() -> Iterator[Check]:
    from foveate import tiny

    try:
        model, _ = tiny.load()
    except Exception as error:
        cure = "mend the troubles above; else install foveate again (its checkpoint is part of it)"
        yield Check("embedded model", "broken", f"{type(error).__name__}: {error}", cure)
    else:
        yield Check("embedded model", "ok", f"{model.num_parameters() / 1e6:.1f} M parameters")


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _torch,
    _transformers,
    _torchvision,
    _processors,
    _devices,
    _attention,
    _extras,
    _write_access,
    _embedded_model,
)
