"""Any web server that keeps to ranges (RFC 9110, 14.2), read-only, through fsspec and aiohttp.

A redirect may lead to another path of the same host and port, or from http to https of that host, both at
their own ports; anywhere else is refused, lest a server makes us ask what only we can reach. A name and a
password come from ~/.netrc.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from store.errors import RemoteError
from store.remote.location import Location, redacted
from store.remote.protocols.base import CONNECT_S, SILENCE_S, Endpoint, Versioned, required

PARTIAL, WHOLE, NO_SUCH_RANGE = 206, 200, 416


class HttpEndpoint(Endpoint):
    """Objects below http(s)://host/path."""

    chained = True
    writable = False

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        aiohttp = required("aiohttp", "http")
        from fsspec.implementations.http import HTTPFileSystem

        watch = aiohttp.TraceConfig()
        watch.on_request_redirect.append(_refuse_another_host)
        self._fs = HTTPFileSystem(
            skip_instance_cache=True,
            client_kwargs={
                "trace_configs": [watch],
                "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
                "auto_decompress": False,
                "trust_env": True,
            },
        )

    def read(self, path: str, start: int, length: int) -> bytes:
        return self.read_versioned_range(path, start, length).content

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        from fsspec.asyn import sync

        return sync(self._fs.loop, self._read, path, start, length) if length else Versioned(b"", "")

    async def _read(self, path: str, start: int, length: int) -> Versioned:
        session = await self._fs.set_session()
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        async with session.get(f"{self.location.url}/{quote(path)}", headers=headers) as answer:
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified", "")
            if answer.status == NO_SUCH_RANGE:
                return Versioned(b"", version)
            if answer.status == 404:
                raise FileNotFoundError(f"status 404 for {path}")
            answer.raise_for_status()
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise RemoteError(f"{path} at {self.location}: the server sends it encoded; switch that off")
            if answer.status == WHOLE and start:
                raise RemoteError(
                    f"{self.location} gives whole objects only, no ranges of them; serve it with a server "
                    "that keeps to the header Range"
                )
            found = bytearray()
            while len(found) < length and (block := await answer.content.read(length - len(found))):
                found += block
            if len(found) < length:
                await answer.content.read(1)  # raises if the connection broke before the told length
            return Versioned(bytes(found), version)


async def _refuse_another_host(session: Any, context: Any, asked: Any) -> None:
    """Raise RemoteError for a redirect that may not be followed; `asked` is what aiohttp tells of it."""
    headers = asked.response.headers
    told = headers.get("Location") or headers.get("URI")  # of which aiohttp follows the first that there is
    if told is None:
        return
    target = type(asked.url)(told)
    if not target.scheme:
        target = asked.url.join(target)
    before, after = _origin(asked.url), _origin(target)
    host = asked.url.host
    if after != before and (before, after) != (("http", host, 80), ("https", host, 443)):
        raise RemoteError(
            f"{redacted(asked.url)} sends us to {redacted(target)}; a redirect to another host, port or "
            "protocol is not followed: pull from there, if you trust it"
        )


def _origin(url: Any) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


ENDPOINT = HttpEndpoint
