"""What a protocol has to offer: objects below one URL, read in pieces, written whole, created once.

Paths are plain and relative to the URL. Nothing here tries twice, and errors are the libraries' own:
`store.remote.persistence` decides what is worth another try and says it in one line.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from store.errors import InputError, MissingFileError
from store.remote.location import Location

CONNECT_S, SILENCE_S = 10.0, 30.0
"""How long a server may take to answer a connection, and how long it may say nothing while it sends."""


@dataclass(frozen=True)
class Upload:
    """One object to be written: where to, and the local file that holds it."""

    path: str
    file: Path
    bytes: int


@dataclass(frozen=True)
class Versioned:
    """Bytes of an object with what its server calls this version of it."""

    content: bytes
    version: str


class Endpoint(ABC):
    """The objects below `location`; threads may use one at once.

    uploads_together: how many objects `put` likes to get at once. chained: see `store.remote.states`.
    writable: whether it has more than the reading half.
    """

    uploads_together = 1
    writable = True
    chained = False

    def __init__(self, location: Location) -> None:
        self.location = location

    @abstractmethod
    def read(self, path: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length` of an object; fewer only where it ends before. Never more."""

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        """What `read` gives, with what the server calls this version of the object, in one answer.

        "" where the server does not tell.
        """
        return Versioned(self.read(path, start, length), "")

    def reset(self) -> None:  # noqa: B027 - most libraries connect anew by themselves
        """Forget connections that may be broken."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every object below `folder` ("" for all), by path."""
        raise self.read_only()

    def put(self, uploads: Sequence[Upload]) -> None:
        """Write objects; each appears at once and whole, whatever was there before."""
        raise self.read_only()

    def create(self, path: str, content: bytes) -> bool:
        """Write a small object unless there is one; whether it was written. Of many at once one wins."""
        raise self.read_only()

    def read_versioned(self, path: str, limit: int) -> Versioned:
        """A small object, up to `limit` bytes of it, with its version."""
        raise self.read_only()

    def replace(self, path: str, content: bytes, version: str) -> bool:
        """Write a small object if it still is of that version; whether it was written."""
        raise self.read_only()

    def overwrite(self, path: str, content: bytes) -> None:
        """Write a small object whatever was there."""
        raise self.read_only()

    def read_only(self) -> InputError:
        """What whoever wants to write is told."""
        return InputError(
            f"{self.location}: {self.location.protocol} is for pulling only; push to a folder, sftp://, "
            "s3://, gs:// or hf://"
        )


class BucketEndpoint(Endpoint):
    """Objects below protocol://bucket/prefix, listed by the file system `fs` of fsspec."""

    def __init__(self, location: Location, fs: Any) -> None:
        super().__init__(location)
        self._fs = fs
        self._bucket, _, prefix = location.url.partition("://")[2].partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def _name(self, path: str) -> str:
        return f"{self._bucket}/{self._prefix}{path}"

    def sizes(self, folder: str) -> dict[str, int]:
        root = self._name("")
        try:
            found = self._fs.find(f"{root}{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        return {name.removeprefix(root): int(told["size"]) for name, told in found.items()}


def required(module: str, extra: str) -> ModuleType:
    """A protocol's library; raises MissingFileError naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingFileError(
            f"{extra}:// needs the package {error.name or module}, which is not installed; "
            f"pip install 'video-text-teacher-cache[{extra}]'"
        ) from None
