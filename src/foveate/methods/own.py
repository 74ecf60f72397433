"""Presets of one's own: functions in a file beside the work, named as `module:function`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from foveate.errors import MethodError, nearest
from foveate.method import Method
from foveate.methods import method as preset_named

__all__ = ["made"]


def made(name: str, keep: Any = None, **options: Any) -> Method:
    """Return the method that a preset makes; `module:function` is one of the user's own.

    Only for names that the user of this process wrote: the module is imported, from the current
    folder too. Names that come from elsewhere go to `foveate.method`, which knows presets alone.
    """
    if ":" not in name:
        return preset_named(name, keep=keep, **options)
    given = options if keep is None else {"keep": keep, **options}
    try:
        method = _function(name)(**given)
    except TypeError as error:
        raise MethodError(f"{name} cannot be called with {given}: {error}") from error
    if not isinstance(method, Method):
        raise MethodError(f"{name} returned {type(method).__name__}; return a foveate.Method")
    return method


def _function(name: str) -> Callable[..., Any]:
    """Return the function that a name such as `mine:unusual` is of."""
    module, _, function = name.partition(":")
    if not module or module.startswith("."):
        raise MethodError(f"{name!r} names no module; write MODULE:FUNCTION")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself needs
        bare = module.removesuffix(".py")
        cure = f"start where {module.replace('.', '/')}.py is, or install it"
        if bare != module:
            cure = f"leave out .py: {bare}:{function}"
        raise MethodError(f"there is no module {module!r} for {name!r}; {cure}") from None
    if not callable(getattr(found, function, None)):
        names = [key for key, value in vars(found).items() if callable(value)]
        raise MethodError(f"{module} has no function {function!r}; {nearest(function, names)}")
    preset: Callable[..., Any] = getattr(found, function)
    return preset
