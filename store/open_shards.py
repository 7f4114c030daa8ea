"""Shard files that are open for reading: few at once, and only as they were when their index was checked.

Below a root that somebody registered, files are only partly there, and what is missing is fetched when it
is read (`store.remote.streamed_shards`).
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from store.errors import DamagedCacheError

OPEN_LIMIT = 64


class OpenShard:
    """One shard file, open. Closed when nobody holds it any more, so a reader in another thread is safe."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DamagedCacheError(f"{name} is missing; pull it again or resume the dump") from None
        status = os.fstat(self._fd)
        self.bytes = status.st_size
        self.version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read_into(self, parts: list[np.ndarray], offset: int) -> None:
        """Fill `parts`, contiguous, with the bytes from `offset` on; raises DamagedCacheError if they end."""
        wanted = sum(part.nbytes for part in parts)
        if os.preadv(self._fd, [part.data for part in parts], offset) != wanted:
            raise DamagedCacheError(
                f"{self.name}: fewer than {wanted} bytes at {offset}; it was cut off, pull it again"
            )

    @cached_property
    def mapped(self) -> np.ndarray:
        """All bytes of the file, uint8; touch them only right after `require_whole`."""
        return np.frombuffer(mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ), dtype=np.uint8)

    def require_whole(self) -> None:
        """Raise DamagedCacheError if the file was cut off: touching what was mapped would be fatal."""
        if os.fstat(self._fd).st_size < self.bytes:
            raise DamagedCacheError(f"{self.name} was cut off while it was read; pull it again")


class OpenShards:
    """The shards of one array: at most `OPEN_LIMIT` of them open, the first opened closed first."""

    def __init__(self, paths: list[Path], names: list[str]) -> None:
        self._paths = paths
        self._names = names
        self._versions: dict[int, tuple[int, ...]] = {}
        self._open: dict[int, OpenShard] = {}
        self._opening = threading.Lock()

    def read(self, numbers: np.ndarray, offsets: np.ndarray, size: int, copy: Callable[[], None]) -> None:
        """Call `copy`, which reads `size` bytes at each of `offsets` [N] of the shards `numbers` [N].

        An offset below 0 counts from the shard's end. Here all bytes are there: nothing else is to be done.
        """
        copy()

    def version(self, shard: OpenShard) -> tuple[int, ...]:
        """What must stay the same of a shard's file while the cache is open."""
        return shard.version

    def __getitem__(self, number: int) -> OpenShard:
        """Shard `number`, opened if need be; raises DamagedCacheError if it is gone or was replaced since."""
        shard = self._open.get(number)
        return self._open_again(number) if shard is None else shard

    def _open_again(self, number: int) -> OpenShard:
        with self._opening:
            shard = OpenShard(self._paths[number], self._names[number])
            version = self.version(shard)
            if self._versions.setdefault(number, version) != version:
                raise DamagedCacheError(
                    f"{shard.name} was replaced while the cache was open; open the cache again"
                )
            self._open[number] = shard
            if len(self._open) > OPEN_LIMIT:
                del self._open[next(iter(self._open))]
            return shard


class ShardSource(Protocol):
    """Who has the shards below a root that are only partly there."""

    def open_shards(self, array_path: str, keys: Sequence[str]) -> OpenShards: ...


_SOURCES: weakref.WeakValueDictionary[Path, ShardSource] = weakref.WeakValueDictionary()


def register_source(root: Path, source: ShardSource) -> None:
    """From now on, and as long as `source` lives, shards below `root` are asked of it."""
    _SOURCES[root] = source


def open_shards(root: Path, array_path: str, keys: Sequence[str]) -> OpenShards:
    """The shards `keys` of the array at `root`/`array_path`."""
    source = _SOURCES.get(root)
    if source is not None:
        return source.open_shards(array_path, keys)
    return OpenShards([root / array_path / key for key in keys], [f"{array_path}/{key}" for key in keys])
