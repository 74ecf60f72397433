"""Words of the command line turned into a method."""

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from foveate import Method, methods
from foveate.errors import InputError
from foveate.eval.entry import Entry
from foveate.methods.own import made

T = TypeVar("T")


def parse_keep(text: str) -> float | int | str:
    """Return a share as float, a number of tokens as int, or the word "auto".

    >>> parse_keep("0.1"), parse_keep("64"), parse_keep("auto")
    (0.1, 64, 'auto')
    """
    if text == "auto":
        return text
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    raise InputError(
        f"--keep {text!r} is not a number; give a share of the tokens such as 0.1, whole tokens "
        "per head and layer such as 64, or auto (with --option mass=0.95)"
    )


def parse_option(text: str) -> tuple[str, Any]:
    """Return name and typed value of `name=value`.

    >>> parse_option("alpha=0.9"), parse_option("window=elite")
    (('alpha', 0.9), ('window', 'elite'))
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name.isidentifier() and equals and value):
        raise InputError(f"--option {text!r} is not of the form name=value, such as alpha=0.9")
    return name, _value(value)


def build_method(name: str, keep: str | None, options: Sequence[str]) -> Method:
    """Return the method that the words describe; without `keep`, with the method's own default."""
    share = None if keep is None else parse_keep(keep)
    return made(name, share, **parse_options(name, options))


def parse_options(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the options of a method by name, as typed values."""
    given: dict[str, Any] = {}
    for text in options:
        option, value = parse_option(text)
        word = text.partition("=")[2].strip()
        if word in words(name, option):  # such as "none", which is a word of some options
            value = word
        if option == "keep":
            raise InputError(f"--option {text!r} has an option of its own; give --keep {value}")
        if option == "name":
            raise InputError(f"--option {text!r} is no option of a method; give --method {value}")
        if option in given:
            raise InputError(f"--option {option} came twice; give it once")
        given[option] = value
    return given


def parse_entry(text: str) -> Entry:
    """Return the method with options that is written as a call, without its budget.

    >>> parse_entry("snapkv(window=16, pooling=none)").label
    "snapkv(window=16, pooling='none')"
    """
    name, bracket, rest = text.strip().partition("(")
    if not name or bool(bracket) != rest.endswith(")"):
        raise InputError(f"--entry {text!r} is not of the form snapkv or snapkv(window=16)")
    inside = rest.removesuffix(")").strip()
    parts = re.split(r",(?=\s*\w+\s*=)", inside) if inside else []  # lists have commas, too
    return Entry(name, parse_options(name, parts))


def several(option: str, text: str, kind: Callable[[str], T], example: str) -> tuple[T, ...]:
    """Return the values of an option that takes several, with commas between them.

    >>> several("--seeds", "1,2", int, "1,2")
    (1, 2)
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except InputError:
        raise
    except ValueError:
        raise InputError(
            f"{option} {text!r} is not understood; give numbers such as {example}"
        ) from None


def words(name: str, option: str) -> set[str]:
    """Return the words that an option of a preset, or of its host, may be.

    >>> sorted(words("lookm", "budget"))
    ['strict', 'union']
    """
    presets = name.split("+")
    allowed = [
        word
        for info in methods()
        if info.name in presets
        for known in info.options
        if known.name == option
        for word in known.allowed
    ]
    return {word.strip("'") for word in allowed if word.startswith("'")}


def _value(text: str) -> Any:
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
