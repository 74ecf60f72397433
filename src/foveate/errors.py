"""The exceptions of Foveate: each message says what came, what is allowed, and what to do.

FoveateError
├── InputError (ValueError)                 what was given cannot be used: an image, an option
│   └── MethodError                         the method cannot exist, or does not fit the prompt
├── UnsupportedModel (NotImplementedError)  this model, back-end or generate mode has no seam
├── CacheError (RuntimeError)               a use of a cache or context that would corrupt it
└── MissingExtra (ImportError)              a package is needed; the message has the install line
"""

import difflib
from collections.abc import Iterable


class FoveateError(Exception):
    """The root of every error that Foveate raises on purpose."""


class InputError(FoveateError, ValueError):
    """What was given cannot be used."""


class MethodError(InputError):
    """The method asked for cannot exist, or does not fit the prompt."""


class UnsupportedModel(FoveateError, NotImplementedError):
    """This model, attention back-end or generate mode cannot be compressed."""


class CacheError(FoveateError, RuntimeError):
    """A cache or a context is used in a way that would corrupt it."""


class OutsidePass(CacheError):
    """A cache was updated outside a forward pass of its model."""


class MissingExtra(FoveateError, ImportError):
    """An optional package is needed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known names, or lists them all if none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(word) for word in close) + "?"
    return "known: " + ", ".join(known)
