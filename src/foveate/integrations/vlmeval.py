"""VLMEvalKit with a compressed cache: one of its own models, or any of Hugging Face.

`python -m foveate.integrations.vlmeval ARGUMENTS run.py ...` is VLMEvalKit's own program, with one
more model, under the name that stands behind `--model`.
"""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from foveate.cli import console
from foveate.cli.answers import prepare_chats
from foveate.cli.images import open_image
from foveate.cli.models import load
from foveate.cli.options import parse_option
from foveate.errors import CacheError, InputError, MissingExtra, nearest
from foveate.integrations.compression import Compression, take_apart

__all__ = ["main", "register"]

LOADING = ("pretrained", "device", "dtype", "attn", "max_new_tokens")
USAGE = (
    "python -m foveate.integrations.vlmeval base=MODEL,method=aircache,keep=0.1 run.py --data SET "
    "--model NAME"
)


def register(name: str, **arguments: Any) -> Compression:
    """Put a compressed model among VLMEvalKit's, and return what its caches are going to hold.

    `base` is the name of a model of VLMEvalKit, whose prompts, image sizes and decoding stay as
    they are; further arguments are that model's. Without it, `pretrained` is any model of Hugging
    Face behind its own chat template, with `device`, `dtype`, `attn` and `max_new_tokens`, and
    VLMEvalKit words the questions. Besides: `method`, `keep` and the options of the method,
    `storage`, `stream` and `quantized`.
    """
    known, kind = _kit()
    if name in known:
        raise InputError(f"VLMEvalKit has a model {name} already; give another name to --model")
    base = arguments.pop("base", None)
    if base is None:
        compression, rest = take_apart(arguments, LOADING)
        made: type = type("FoveateVLM", (_Plain, kind), {})
    else:
        stock = known.get(base)
        if not isinstance(stock, partial) or not isinstance(stock.func, type):
            raise InputError(f"base={base} is no model of VLMEvalKit; {nearest(base, known)}")
        compression, given = take_apart(arguments, _parameters(stock.func))
        rest = {**stock.keywords, **{k: _typed(k, v) for k, v in given.items()}}
        made = type(f"Compressed{stock.func.__name__}", (_Compressed, stock.func), {})
    known[name] = partial(_make, made, compression, rest)
    return compression


def _make(
    kind: type, compression: Compression, arguments: Mapping[str, Any], use_vllm: bool = False
) -> Any:
    """Return the model; VLMEvalKit says `use_vllm` to models with certain names."""
    if use_vllm or arguments.get("use_vllm"):
        raise InputError(
            "vLLM keeps a cache of its own; leave --use-vllm out, and for a base that asks for it "
            "add use_vllm=false"
        )
    made: Any = kind(**arguments)
    if not hasattr(getattr(made, "model", None), "generate"):
        raise InputError(
            f"{kind.__bases__[1].__name__} has no model of transformers; take one that has"
        )
    compression.check(made.model)
    made.compression = compression
    return made


class _Compressed:
    """Put in front of a model of VLMEvalKit: whatever it generates has a compressed cache."""

    compression: Compression
    model: Any

    def generate_inner(self, message: Any, dataset: str | None = None) -> str:
        return self._counted(super().generate_inner, message, dataset)  # type: ignore[misc]

    def chat_inner(self, message: Any, dataset: str | None = None) -> str:
        return self._counted(super().chat_inner, message, dataset)  # type: ignore[misc]

    def _counted(self, ask: Callable[..., str], message: Any, dataset: str | None) -> str:
        with self.compression.on(self.model) as session:
            said = ask(message, dataset)
        if not session.reports:
            raise CacheError(
                f"{type(self).__bases__[1].__name__} answered without calling generate of its "
                f"{type(self.model).__name__}, so nothing was compressed; take another base, or "
                "pretrained="
            )
        return said


class _Plain:
    """A model of Hugging Face, asked as VLMEvalKit words its questions."""

    INTERLEAVE = True
    compression: Compression

    def __init__(
        self,
        pretrained: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        attn: str | None = None,
        max_new_tokens: int | str = 512,
    ) -> None:
        self.loaded = load(pretrained, dtype, device, attn)
        self.model = self.loaded.model
        self.max_new_tokens = int(max_new_tokens)

    def generate_inner(
        self, message: Sequence[Mapping[str, str]], dataset: str | None = None
    ) -> str:
        chat = [{"role": "user", "content": [_part(**part) for part in message]}]
        inputs = prepare_chats(self.loaded, [chat])
        with self.compression.on(self.model):
            ids = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return str(self.loaded.processor.decode(new, skip_special_tokens=True)).strip()


def _part(type: str, value: str, **more: Any) -> dict[str, Any]:
    if type == "text":
        return {"type": "text", "text": value}
    return {"type": "image", "image": open_image(value)}


def _kit() -> tuple[dict[str, Any], type]:
    try:
        from vlmeval.config import supported_VLM
        from vlmeval.vlm.base import BaseModel
    except ImportError as error:
        raise MissingExtra(
            f"{error}; install VLMEvalKit from its repository: pip install -e . in its folder"
        ) from error
    return supported_VLM, BaseModel


def _parameters(stock: Callable[..., Any]) -> set[str]:
    return {
        name
        for name, parameter in inspect.signature(stock).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def _typed(name: str, value: Any) -> Any:
    return parse_option(f"{name}={value}")[1] if isinstance(value, str) else value


def _words(text: str) -> dict[str, str]:
    """Return the arguments in a list such as `method=aircache,keep=0.1`."""
    pairs = [word.partition("=") for word in text.split(",")]
    for name, equals, value in pairs:
        if not (name.isidentifier() and equals and value):
            raise InputError(f"{text!r} is not of the form name=value,name=value: {USAGE}")
    return {name: value for name, _, value in pairs}


def run(words: Sequence[str]) -> None:
    """Run a program of VLMEvalKit with one more model."""
    if len(words) < 2 or not Path(words[1]).is_file():
        raise InputError(f"the program of VLMEvalKit is missing: {USAGE}")
    given, script, *others = words
    names = [after for word, after in pairwise(others) if word == "--model"]
    if len(names) != 1:
        raise InputError(f"--model came {len(names)} times; give one name, a new one: {USAGE}")
    sys.path.insert(0, str(Path(script).resolve().parent))
    compression = register(names[0], **_words(given))
    sys.argv = [script, *others]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        console.err().print(f"foveate: {names[0]} {compression.tally}", soft_wrap=True)


def main() -> None:
    """Run the command."""
    console.program(run, sys.argv[1:])


if __name__ == "__main__":
    main()
