"""What was kept and answered, to look at: one page for any browser, or a picture in a notebook."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveate.report.comparison import Comparison, collect
    from foveate.report.document import page, write

__all__ = ["Comparison", "collect", "page", "write"]

PLACES = {"Comparison": "comparison", "collect": "comparison", "page": "document"}
PLACES |= {"write": "document"}


def __getattr__(name: str) -> Any:
    """Import what needs a model when it is first asked for."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
