"""The public names are the public names, and each outside system has one seam."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import foveate

SOURCE = Path(foveate.__file__).parent

NAMES = {
    "CacheError",
    "CacheReport",
    "CompressedCache",
    "FoveateError",
    "InputError",
    "LayerKV",
    "Method",
    "MethodError",
    "MethodInfo",
    "MissingExtra",
    "Observation",
    "Plan",
    "Session",
    "TokenKinds",
    "UnsupportedModel",
    "adakv",
    "aircache",
    "allocate",
    "apply",
    "cake",
    "column_stats",
    "compress",
    "elastic",
    "expected",
    "foveate",
    "full",
    "h2o",
    "infinipotv",
    "keydiff",
    "knorm",
    "lookm",
    "method",
    "methods",
    "mixkv",
    "plan",
    "prefixkv",
    "pyramidkv",
    "random",
    "recency",
    "roco",
    "snapkv",
    "sparsemm",
    "streaming",
    "tgvkv",
    "tova",
    "vlcache",
    "vnorm",
}


def test_public_names_are_pinned():
    assert set(foveate.__all__) == NAMES
    assert foveate.__all__ == sorted(foveate.__all__)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_exists_and_is_described(name):
    thing = getattr(foveate, name)
    assert inspect.isclass(thing) or inspect.isfunction(thing)
    assert inspect.getdoc(thing)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="foveat"):
        foveate.nothing_of_the_kind  # noqa: B018  # the access is the test


def test_methods_find_their_presets():
    for info in foveate.methods():
        assert foveate.method(info.name) == getattr(foveate, info.name)()


def test_version_is_the_package_s():
    from importlib.metadata import version

    assert foveate.__version__ == version("foveate")


def test_importing_does_not_import_transformers():
    script = "import foveate, sys; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# who calls generate, and chooses tokens as it does
ASKING = ("eval/asking/answering.py", "serve/engine/reading.py", "serve/engine/sampling.py")
# models that are timed, beside the native caches of transformers
MEASURED = ("bench/model.py", "bench/shapes.py", "bench/peer_worker.py")


def imported(path):
    """Return the top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("package", "seams"),
    [
        ("transformers", ("hf/", "tiny/", "cli/", *ASKING, "integrations/", *MEASURED)),
        ("triton", ("kernels/",)),
        ("rich", ("cli/", "tiny/", "integrations/")),
        ("typer", ("cli/", "integrations/")),
    ],
)
def test_outside_packages_are_imported_in_their_seams_only(package, seams):
    users = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if package in imported(p)}
    assert {user for user in users if not user.startswith(seams)} == set()


# what declared packages have as their own, and programs that have us as a part
BROUGHT = ("huggingface_hub", "tokenizers", "tqdm", "anyio", "pydantic", "starlette", "loguru")
BESIDE = ("accelerate", "jaxtyping", "lmms_eval", "triton", "vllm", "vlmeval")


def test_what_is_imported_is_declared():
    text = (SOURCE.parents[1] / "pyproject.toml").read_text().partition("[project.scripts]")[0]
    found = re.findall(r'"([a-z0-9-]+)(?:\[[a-z,]+\])?>=', text)
    declared = {name.replace("-", "_").replace("pillow", "PIL") for name in found}
    used = set().union(*map(imported, SOURCE.rglob("*.py")))
    known = {*sys.stdlib_module_names, *BROUGHT, *BESIDE, "foveate"}
    assert used - known <= declared


def test_environment_is_read_by_the_command_line_only():
    readers = [p for p in SOURCE.rglob("*.py") if "os.environ" in p.read_text()]
    allowed = (
        "cli/",
        "bench/gate.py",
        "bench/peers.py",
        "eval/running/ranks.py",
        "tiny/train",
        "tiny/",
    )
    names = {str(path.relative_to(SOURCE)) for path in readers}
    assert {name for name in names if not name.startswith(allowed)} == set()
