"""What a server may be asked for, by whom, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from foveate.errors import InputError

__all__ = ["PORTS", "Settings", "origin"]

PORTS = {"https": 443, "http": 80}
MOST_PIXELS = 80_000_000  # beyond, Pillow itself warns of bombs


@dataclass(frozen=True)
class Settings:
    """The limits of a server; what is in flight at once is bounded by `room_bytes`.

    `model` is the name that clients give. `method` and `options` (`keep` is one) are the engine's
    own method, so that a request can change some; `methods` are those that a request may name, None
    for all. Without `keys` everybody may ask; without `hosts` the server answers to any host name.
    `picture_hosts` are the only ones that pictures are fetched from, over https, or over http where
    an entry begins with http://.
    """

    model: str = "embedded"
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = ()
    picture_hosts: tuple[str, ...] = ()
    body_bytes: int = 32 << 20
    body_seconds: float = 30.0
    picture_bytes: int = 16 << 20
    picture_seconds: float = 10.0
    pixels: int = 20_000_000
    pictures: int = 16
    messages: int = 256
    characters: int = 1_000_000
    max_new_tokens: int = 4096
    room_bytes: int = 1 << 30
    seconds: float = 600.0
    retry_seconds: int = 1
    log_prompts: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise InputError(f"{name}={value} allows nothing; give a number above 0")
        if self.pixels > MOST_PIXELS:
            raise InputError(f"pixels={self.pixels} is too much; at most {MOST_PIXELS} can be read")
        if any(not key.strip() or not key.isascii() for key in self.keys):
            raise InputError("an API key is empty or not ASCII; give keys of letters and digits")
        for host in self.picture_hosts:
            origin(host)


def origin(entry: str) -> tuple[str, str, int]:
    """Return scheme, host and port of one of the `picture_hosts`.

    >>> origin("images.example.org"), origin("http://images.example.org:8080")
    (('https', 'images.example.org', 443), ('http', 'images.example.org', 8080))
    """
    parts = urlsplit(entry if "://" in entry else f"https://{entry}")
    bare = parts.path in ("", "/") and not parts.query and parts.username is None
    if parts.scheme not in PORTS or not parts.hostname or not bare or "*" in entry:
        raise InputError(
            f"--allow-host {entry!r} is not a host; give images.example.org, or "
            "http://images.example.org for one without TLS"
        )
    return parts.scheme, parts.hostname.lower(), parts.port or PORTS[parts.scheme]
