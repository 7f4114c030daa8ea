"""Reading a cache where it lies: pinned manifests, whole objects, ranges of them, each tried persistently.

remote = open_remote("s3://bucket/msrvtt.zarr@sha256:...")
manifest = remote.manifest()                                  # of the root, as the location pins it
view = remote.group_manifest("views/uniform_12x224", manifest.groups[...])
content = remote.fetch_range(record, start, length)           # exactly these bytes, or an error
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from store.durable import JSON_BYTES, ObjectRecord
from store.errors import CacheError, DamagedCacheError
from store.lookup import load_plugin
from store.manifest import MANIFEST, Manifest
from store.remote import protocols, states
from store.remote.location import Location
from store.remote.persistence import Patience, Value, persistently
from store.remote.protocols.base import Endpoint, Versioned

BLOCK_BYTES = 16 << 20
"""What is asked for at once of an object, where no other length is wanted."""


class Remote:
    """A cache at `location`; threads may share it. Use `open_remote`.

    stop: once set, nothing is tried again, since the work failed elsewhere.
    """

    def __init__(self, location: Location, endpoint: Endpoint, patience: Patience) -> None:
        self.location = location
        self.endpoint = endpoint
        self.patience = patience
        self.stop = threading.Event()

    def where(self, path: str) -> str:
        """An object and the place it lies at, for messages."""
        return f"{path} at {self.location}"

    def manifest(self) -> Manifest:
        """The root's manifest of the state that the location names: a digest's, a tag's, or the latest.

        Raises MissingFileError if there is no such state, DamagedCacheError for one that is not what it says.
        """

        def read() -> Manifest:
            try:
                return states.named(self.endpoint)
            except FileNotFoundError as error:
                raise error if isinstance(error, CacheError) else states.no_cache(self.endpoint) from error

        return persistently(read, self.where(MANIFEST), self.patience, self.endpoint.reset)

    def group_manifest(self, group: str, digest: str) -> Manifest:
        """The manifest of a group, held to the `digest` that the root's manifest gives it."""
        path = f"{group}/{MANIFEST}"
        content = self.fetch_small(path)
        try:
            return Manifest.parse(content, self.location.name, group, digest)
        except DamagedCacheError:
            raise DamagedCacheError(
                f"{self.where(path)}: is not the one that the cache was completed with; it was changed on "
                "the server, ask its owner"
            ) from None

    def fetch_small(self, path: str, limit_bytes: int = JSON_BYTES) -> bytes:
        """All of an object that no record vouches for; raises DamagedCacheError beyond `limit_bytes`."""
        content = self._persistently(path, lambda: self.endpoint.read(path, 0, limit_bytes + 1))
        if len(content) > limit_bytes:
            raise DamagedCacheError(f"{self.where(path)}: is larger than {limit_bytes} bytes")
        return content

    def fetch_range(self, record: ObjectRecord, start: int, length: int) -> bytes:
        """Exactly `length` bytes of an object from `start` on; `record` is what a manifest says of it.

        Not held to the record's sha256, which is of the whole; what has a crc32c is to be held to that.
        Raises DamagedCacheError for an object that ends before, MissingFileError, RemoteError.
        """
        return self.fetch_versioned_range(record, start, length).content

    def fetch_versioned_range(self, record: ObjectRecord, start: int, length: int) -> Versioned:
        """What `fetch_range` gives, with the server's name for this version of the object ("": unknown)."""
        if not 0 <= start <= start + length <= record.bytes:
            raise ValueError(f"{record.path}: bytes {start} to {start + length} of {record.bytes}")
        found = self._persistently(
            record.path, lambda: self.endpoint.read_versioned_range(record.path, start, length)
        )
        if len(found.content) != length:
            raise DamagedCacheError(
                f"{self.where(record.path)}: ends at byte {start + len(found.content)}, its manifest says "
                f"{record.bytes}; it was changed on the server, ask its owner"
            )
        return found

    def fetch_object(self, record: ObjectRecord) -> bytes:
        """All of an object, held to size and sha256; for small ones, since it is in memory whole."""
        content = b"".join(
            self.fetch_range(record, start, min(BLOCK_BYTES, record.bytes - start))
            for start in range(0, record.bytes, BLOCK_BYTES)
        )
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise self.changed(record)
        return content

    def changed(self, record: ObjectRecord) -> DamagedCacheError:
        """The error for an object whose bytes are not what its manifest says."""
        return DamagedCacheError(
            f"{self.where(record.path)}: its sha256 is another than its manifest says; it was changed on the "
            "server or on the way: try again, then ask its owner"
        )

    def _persistently(self, path: str, act: Callable[[], Value]) -> Value:
        return persistently(act, self.where(path), self.patience, self.endpoint.reset, self.stop)


def open_remote(location: Location | str, patience: Patience | None = None) -> Remote:
    """The cache at `location`; nothing is asked of the server yet.

    Raises InputError for a location that is none, MissingFileError naming the extra whose library is missing.
    """
    found = Location.parse(location) if isinstance(location, str) else location
    endpoint = load_plugin(protocols, "protocol", found.protocol).ENDPOINT(found)
    return Remote(found, endpoint, patience or Patience())
