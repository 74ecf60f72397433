"""One JSON object a line: what was asked for by its sizes, never by its words unless told."""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import Any

__all__ = ["CONFIG", "Lines", "failure", "write"]

LOGGER = logging.getLogger("foveate.serve")


class Lines(logging.Formatter):
    """Writes a record as JSON; exceptions without their message, which may quote a prompt."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        told: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            told |= failure(record.exc_info[1], words=False)
        return json.dumps(told, default=str)


CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"lines": {"()": Lines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": level, "propagate": False}
        for name, level in (("foveate", "INFO"), ("uvicorn", "WARNING"), ("py.warnings", "WARNING"))
    },
}


def write(event: str, level: int = logging.INFO, **told: Any) -> None:
    """Log an event with its fields."""
    LOGGER.log(level, event, extra={"told": told})


def failure(error: BaseException, words: bool) -> dict[str, Any]:
    """Return what an exception was and where; its own words only where prompts may be logged."""
    frames = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    message = {"message": str(error)} if words else {}
    return {"error": type(error).__name__, **message, "frames": frames}
