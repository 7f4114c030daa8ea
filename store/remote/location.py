"""Where a cache lies, and which state of it: s3://bucket/msrvtt.zarr@sha256:..., a folder, a tag.

A location never holds a password: credentials come through the chains that the libraries have (environment,
configuration files, agents), so whatever is printed or stored of a location is free of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from store.durable import is_sha256
from store.errors import InputError
from store.untrusted import is_path_name, shown

FILE = "file"
PROTOCOLS = {
    "s3": "s3",
    "gs": "gs",
    "hf": "hf",
    "sftp": "sftp",
    "http": "http",
    "https": "http",
    "file": FILE,
}
"""How a URL begins -> the module of `store.remote.protocols` that speaks it."""

BUCKETS = ("s3", "gs")
"""Protocols whose host is a bucket, which has no port."""
NO_CREDENTIALS = (
    "credentials come from the environment or the configuration of the protocol's library (docs/sharing.md), "
    "never from a URL"
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PIN = re.compile(r"(.*[^@])@(sha256:[0-9a-f]{64}|[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})", re.DOTALL)
_SHORT_DIGEST = re.compile(r"@sha256:[^/@]*$")
_USER = re.compile(r"(://)[^/\s'\"]*@")
_PASSWORD = re.compile(
    r"(://)(?!\[)[^/\s@'\"]{0,100}:(?:[^\s'\"]{0,500}@(?=[^\s'\"@]*/)|(?!\d*/)[^\s'\"]{0,500}@)"
)
"""user:password@ where the password may hold '/' and '@'. In http://host:9000/x.zarr@v1 the ':' stands before
a port and the '@' before a pin, which has no '/' behind it: nothing of that is taken for a password."""
_QUERY = re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\"]*")


@dataclass(frozen=True, repr=False)
class Location:
    """protocol: a module of `store.remote.protocols`. url: of the cache, a folder's is its absolute path.

    pin: "" for the latest state, "sha256:<hex>" or a tag. As text it names no user.
    """

    protocol: str
    url: str
    pin: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """A location from `URL`, `URL@sha256:<hex>`, `URL@tag`, or a folder instead of the URL.

        A folder that exists under the whole name is that folder, '@' or not. Raises InputError for an unknown
        protocol, a URL that holds a password or a query, one that names no place.
        """
        found = _SCHEME.fullmatch(text)
        if found is None or found[1].lower() == FILE:
            return cls._of_folder(found[2] if found else text)
        protocol = PROTOCOLS.get(found[1].lower())
        if protocol is None:
            raise InputError(
                f"{found[1]}:// is not spoken here; there is "
                f"{', '.join(f'{name}://' for name in PROTOCOLS)}, or a folder's name"
            )
        scheme = f"{found[1].lower()}://"
        url, pin = _without_pin(scheme + found[2], at_least=len(scheme))
        _require_open(url)
        return cls(protocol, url.rstrip("/"), pin)

    @classmethod
    def _of_folder(cls, text: str) -> Location:
        path, pin = (text, "") if Path(text).exists() else _without_pin(text)
        if not path:
            raise InputError("a location is a folder's name or a URL, not nothing")
        return cls(FILE, str(Path(path).expanduser().absolute()), pin)

    @property
    def digest(self) -> str | None:
        """The digest of the root's manifest that the location is pinned to."""
        return self.pin.removeprefix("sha256:") if self.pin.startswith("sha256:") else None

    @property
    def tag(self) -> str | None:
        return self.pin if self.pin and self.digest is None else None

    @property
    def name(self) -> str:
        """The last word of the URL."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    def pinned(self, digest: str) -> Location:
        """The same place, at one state; raises InputError for what is no digest."""
        if not is_sha256(digest):
            raise InputError(f"a cache is pinned to 64 hexadecimal digits, not to {shown(digest)}")
        return replace(self, pin=f"sha256:{digest}")

    def __str__(self) -> str:
        return redacted(self.url) + (f"@{self.pin}" if self.pin else "")

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"


def _without_pin(text: str, at_least: int = 0) -> tuple[str, str]:
    """The text without its pin, and the pin; an '@' before the last word is a user's or a folder's."""
    found = _PIN.fullmatch(text)
    if found is None and _SHORT_DIGEST.search(text):
        raise InputError("a state is pinned to @sha256: and 64 hexadecimal digits, which push and info tell")
    # s3://bucket@v1 has its pin behind the bucket, sftp://user@host names a user.
    if found is None or ("/" not in found[1][at_least:] and text.startswith(("sftp:", "http"))):
        return text, ""
    return found[1], found[2]


def _require_open(url: str) -> None:
    """Raise InputError for a URL that holds a secret or no place.

    The error repeats nothing of the URL but its protocol: where a secret in it ends is a guess.
    """
    protocol, _, behind = url.partition("://")
    try:
        parts = urlsplit(url)
        sound = parts.port is not None or ":" not in parts.netloc.rpartition("]")[2]
    except ValueError:
        sound = False
    if not sound or ":" in behind.rpartition("@")[0] or (":" in parts.netloc and protocol in BUCKETS):
        raise InputError(
            f"{protocol}:// was given with what may be a secret in it (a ':' that no port follows, or one "
            f"before an '@'); {NO_CREDENTIALS}"
        )
    if parts.username and protocol != "sftp":
        raise InputError(f"{protocol}:// was given with a user or a secret in it; {NO_CREDENTIALS}")
    if not parts.hostname:
        raise InputError(f"{protocol}:// names no place; say URL as protocol://host/path")
    if parts.query or parts.fragment:
        raise InputError(
            f"{protocol}:// was given with a query behind it; a cache is many objects below one URL"
        )
    if protocol == "hf" and not re.fullmatch(r"hf://datasets/[^/@]+/[^/@]+(/.*)?", url):
        raise InputError("a cache on the hub is hf://datasets/OWNER/NAME, or a folder in it")


def is_tag(name: object) -> bool:
    """Whether `name` can be a tag: a plain name that is no digest."""
    return is_path_name(name) and isinstance(name, str) and not is_sha256(name)


def redacted(text: object) -> str:
    """`text`, perhaps a library's message, without users, passwords and queries of the URLs in it."""
    found = str(text)
    for pattern in (_QUERY, _PASSWORD, _USER):
        found = pattern.sub(r"\1", found)
    return found
