"""What a server may be asked for, by whom, and how much of it."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from foveate.errors import InputError

__all__ = ["PORTS", "Settings", "origin"]

PORTS = {"https": 443, "http": 80}
NAME = frozenset(string.ascii_letters + string.digits + "-._:")  # signs of a host and its port
SEVERAL = ("methods", "keys", "hosts", "picture_hosts")
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
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise InputError(f"{name}={value} allows nothing; give a number above 0")
            if isinstance(value, str) and name in SEVERAL:
                raise InputError(
                    f"{name} is one text; give a tuple of texts, else each sign is one"
                )
        if self.pixels > MOST_PIXELS:
            raise InputError(f"pixels={self.pixels} is too much; at most {MOST_PIXELS} can be read")
        if any(not key.strip() or not key.isascii() for key in self.keys):
            raise InputError("an API key is empty or not ASCII; give keys of letters and digits")
        for host in self.hosts:
            if not host or host.count(":") == 1 or set(host) - NAME:
                raise InputError(
                    f"--server-name {host!r} is not a host name; give it without scheme, port and "
                    "wildcard, such as server.example.org"
                )
        for host in self.picture_hosts:
            origin(host)


def origin(entry: str) -> tuple[str, str, int]:
    """Return scheme, host and port of one of the `picture_hosts`.

    >>> origin("images.example.org"), origin("http://images.example.org:8080")
    (('https', 'images.example.org', 443), ('http', 'images.example.org', 8080))
    """
    scheme, _, host = entry.partition("://") if "://" in entry else ("https", "", entry)
    try:
        parts = urlsplit(f"{scheme}://{host}")
        port = parts.port or PORTS[parts.scheme]
        bare = parts.netloc.lower() == host.removesuffix("/").lower()
    except (ValueError, KeyError):
        bare = False
    if not bare or not parts.hostname or set(host) - NAME - set("[]/"):
        raise InputError(
            f"--allow-host {entry!r} is not a host; give images.example.org, or "
            "http://images.example.org for one without TLS"
        )
    return parts.scheme, parts.hostname.lower(), port
