"""A remote cache for tests: a folder, whose reads are counted and may fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from store.manifest import Manifest
from store.reader import Cache, open_folder
from store.remote.chunk_cache import ChunkCache
from store.remote.mirror import Mirror

BLOCK = 512


class ToldObjects:
    """The objects below `root`. ranges: how often each (path, begin, end) was read. before: called first."""

    def __init__(self, root: Path) -> None:
        self.url = "told://team/made.zarr"
        self.root = root
        self.ranges: Counter[tuple[str, int, int]] = Counter()
        self.before: Callable[[str], None] = lambda path: None
        self._guard = threading.Lock()

    def read(self, path: str, size: int | None = None) -> bytes:
        self.before(path)
        return (self.root / path).read_bytes()

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        self.before(path)
        with self._guard:
            self.ranges[path, begin, end] += 1
        return (self.root / path).read_bytes()[begin:end]

    def pin(self, paths: Sequence[str]) -> None:
        pass

    @property
    def bytes(self) -> int:
        return sum(times * (end - begin) for (_, begin, end), times in self.ranges.items())


def streamed(objects: ToldObjects, folder: Path, bound: int = 1 << 24) -> Cache:
    """The cache of `objects`, streamed through the chunk cache in `folder`."""
    chunks = ChunkCache.at(folder, bound, BLOCK)
    mirror = Mirror.at(chunks, objects, Manifest.read(objects.root), objects.root.name)
    mirror.fetch_start()
    return open_folder(mirror.root, streamed=mirror)


def forget(folder: Path) -> None:
    """As if this process had ended: what it has open of the chunk cache in `folder` is closed."""
    chunks = ChunkCache._open.pop(folder.absolute(), None)
    if chunks is not None:
        chunks.close()
