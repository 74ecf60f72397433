"""Fetches a picture from an allowed host, from public addresses only, and follows no redirect."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

import anyio
import httpx
from anyio.to_thread import run_sync

from foveate.serve.problems import Problem
from foveate.serve.room import Share
from foveate.serve.settings import PORTS, origin

__all__ = ["Remote", "is_public"]

LONGEST = 8192  # signs of an address
NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: str) -> bool:
    """Return whether an address is one of the open internet, also behind IPv6 forms of IPv4.

    >>> is_public("8.8.8.8"), is_public("::ffff:127.0.0.1"), is_public("169.254.169.254")
    (True, False, False)
    """
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found.is_site_local:  # no longer in use, and yet no address outside
            return False
        if found in NAT64:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
    return found.is_global and not (found.is_multicast or found.is_reserved)


def resolved(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[0]) for *_, place in found]


class Remote:
    """A client that speaks to the address it has checked, so that no name can change under it."""

    def __init__(self, hosts: Iterable[str], most_bytes: int, seconds: float) -> None:
        self._allowed = frozenset(map(origin, hosts))
        self._most, self._seconds = most_bytes, seconds
        self._tls = httpx.create_ssl_context(trust_env=False) if self._allowed else True

    async def fetch(self, url: str, place: str, share: Share) -> bytes:
        """Return the bytes at this address, or raise a problem that says nothing of the network."""
        parts = self._checked(url, place)
        try:
            with anyio.fail_after(self._seconds):
                return await self._got(parts, place, share)
        except (httpx.InvalidURL, UnicodeError):
            raise _problem("the picture's address is malformed", place) from None
        except (httpx.HTTPError, OSError, TimeoutError):
            raise _problem(
                f"the picture could not be fetched from {parts.hostname} in {self._seconds:g} s",
                place,
            ) from None

    def _checked(self, url: str, place: str) -> SplitResult:
        if len(url) > LONGEST:  # `urlsplit` would remember it
            raise _problem("the picture's address is malformed: it is too long", place)
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS[parts.scheme]
        except ValueError:
            raise _problem("the picture's address is malformed", place) from None
        wanted = (parts.scheme, (parts.hostname or "").lower(), port)
        if wanted not in self._allowed or parts.username is not None or parts.password is not None:
            raise _problem(
                "pictures are not fetched from there; send the picture itself as "
                "data:image/png;base64,..., or ask the server's operator to allow its host",
                place,
            )
        return parts

    async def _got(self, parts: SplitResult, place: str, share: Share) -> bytes:
        host = parts.hostname or ""
        port = parts.port or PORTS[parts.scheme]
        addresses = await run_sync(resolved, host, port, abandon_on_cancel=True)
        if not addresses or not all(map(is_public, addresses)):
            raise _problem(f"{host} has an address that is not public; it is not asked", place)
        target = httpx.URL(parts.geturl()).copy_with(host=addresses[0])
        named = host if port == PORTS[parts.scheme] else f"{host}:{port}"
        async with (
            httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as client,
            client.stream(
                "GET",
                target,
                headers={"host": named, "accept": "image/*", "accept-encoding": "identity"},
                extensions={"sni_hostname": host},
                follow_redirects=False,
            ) as response,
        ):
            if response.status_code != 200:
                status = response.status_code
                cure = "a picture that is there, without a redirect"
                raise _problem(f"{host} answered with status {status}; give {cure}", place)
            return await self._body(response, place, share)

    async def _body(self, response: httpx.Response, place: str, share: Share) -> bytes:
        """Read no more than is allowed, whatever the host said about it."""
        data = bytearray()
        async for chunk in response.aiter_raw():
            share.take(len(chunk))
            data += chunk
            if len(data) > self._most:
                raise Problem(
                    413,
                    f"the picture has more than {self._most:,} bytes; make it smaller",
                    param=place,
                    code="image_too_large",
                )
        return bytes(data)


def _problem(message: str, place: str) -> Problem:
    return Problem(400, message, param=place, code="invalid_image_url")
