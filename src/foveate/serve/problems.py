"""Everything that can go wrong, as the errors that OpenAI's clients understand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from foveate.errors import FoveateError, InputError
from foveate.serve.engine.asking import Busy, TooLarge

__all__ = ["Problem", "of"]

KINDS = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
FINAL = {"x-should-retry": "false"}  # OpenAI's clients try 408, 409 and 5xx again unless told


class Problem(Exception):
    """An error with a status, and the words that a client may see."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code = param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the error as OpenAI's clients read it."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """Return the answer to the client."""
        return JSONResponse(self.body(), self.status, self.headers)


def of(error: BaseException, retry_seconds: int = 1) -> Problem:
    """Return the problem behind an error; what is not ours tells the client nothing of itself."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Busy):
        wait = {"retry-after": str(retry_seconds)}
        return Problem(429, str(error), code="queue_full", headers=wait)
    if isinstance(error, TooLarge):
        return Problem(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, InputError) or (
        isinstance(error, FoveateError) and isinstance(error, NotImplementedError)
    ):
        return Problem(400, str(error), code="invalid_value")
    return Problem(
        500,
        "the server failed at this request; its log says why, under the id in x-request-id",
        code="internal_error",
        headers=FINAL,
    )
