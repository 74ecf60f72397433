"""A server for vision-language models that holds compressed caches of many requests at once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveate.errors import MissingExtra

if TYPE_CHECKING:
    from foveate.serve.app import create_app
    from foveate.serve.engine import Engine
    from foveate.serve.settings import Settings

__all__ = ["Engine", "Settings", "create_app"]
PLACES = {
    "Engine": "foveate.serve.engine",
    "Settings": "foveate.serve.settings",
    "create_app": "foveate.serve.app",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for; the server's packages are an extra."""
    if name not in PLACES:
        raise AttributeError(f"module 'foveate.serve' has no attribute {name!r}")
    try:
        return getattr(import_module(PLACES[name]), name)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{error}; the server needs: pip install 'foveate[serve]'") from error
