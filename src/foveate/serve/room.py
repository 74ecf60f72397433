"""How many bytes of requests may be in the server at once, so that no crowd fills the memory."""

from __future__ import annotations

from foveate.serve.engine.asking import Busy
from foveate.serve.problems import Problem

__all__ = ["Room", "Share"]


class Room:
    """Bytes that all requests in flight share."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0

    def share(self) -> Share:
        """Return the empty share of a new request."""
        return Share(self)


class Share:
    """What one request holds of the room; only the event loop's thread may touch it."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.taken = 0

    def take(self, count: int) -> None:
        """Hold more bytes; raise `Busy`, or the problem of a request that can never have them."""
        if self.taken + count > self._room.capacity:
            raise Problem(
                413,
                f"the request and its answer take {self.taken + count:,} bytes, and there are "
                f"{self._room.capacity:,} for all; send fewer or smaller pictures",
                code="request_too_large",
            )
        if self._room.taken + count > self._room.capacity:
            raise Busy(
                f"requests that are being answered hold {self._room.taken:,} of "
                f"{self._room.capacity:,} bytes, and this one needs {count:,} more; ask again later"
            )
        self._room.taken += count
        self.taken += count

    def free(self) -> None:
        """Give everything back."""
        self._room.taken -= self.taken
        self.taken = 0
