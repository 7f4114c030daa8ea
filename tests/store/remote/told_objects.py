"""A remote cache for tests: a folder, whose reads are counted and may fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from store.durable import ObjectRecord
from store.manifest import Manifest
from store.reader import Cache, open_folder
from store.remote.chunk_cache import ChunkCache
from store.remote.location import Location
from store.remote.mirror import Mirror
from store.remote.persistence import Patience
from store.remote.protocols.base import Versioned
from store.remote.protocols.file import FolderEndpoint
from store.remote.source import Remote

BLOCK = 64


class ToldObjects(Remote):
    """The cache in the folder `root`, as if it were far away.

    ranges: how often (path, start, length) was read. before: called ahead of every read. version: of all
    objects.
    """

    def __init__(self, root: Path) -> None:
        location = Location.parse(str(root))
        super().__init__(location, FolderEndpoint(location), Patience(1))
        self.root = root
        self.ranges: Counter[tuple[str, int, int]] = Counter()
        self.before: Callable[[str], None] = lambda path: None
        self.version = "1"
        self._guard = threading.Lock()

    def fetch_versioned_range(self, record: ObjectRecord, start: int, length: int) -> Versioned:
        self.before(record.path)
        with self._guard:
            self.ranges[record.path, start, length] += 1
        return Versioned(super().fetch_versioned_range(record, start, length).content, self.version)

    @property
    def shard_bytes(self) -> int:
        """How many bytes of the teacher's shards were read."""
        return sum(
            times * length
            for (path, _, length), times in self.ranges.items()
            if path.startswith("teachers") and "/c/" in path
        )


def streamed(objects: ToldObjects, folder: Path, bound: int = 1 << 24) -> Cache:
    """The cache of `objects`, streamed through the chunk cache in `folder`."""
    chunks = ChunkCache.at(folder, bound, BLOCK)
    mirror = Mirror.at(chunks, objects, Manifest.read(objects.root), objects.root.name)
    mirror.fetch_start()
    return open_folder(mirror.root, streamed=mirror)


def forget(folder: Path) -> None:
    """As if this process had ended: what it has open of the chunk cache in `folder` is closed."""
    chunks = ChunkCache._open.pop(folder.absolute(), None)
    for root in list(Mirror._open):
        if folder.absolute() in root.parents:
            Mirror._open.pop(root)
    if chunks is not None:
        chunks.close()
