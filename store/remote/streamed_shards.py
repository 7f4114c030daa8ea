"""Shards of a mirrored cache: what a read needs is fetched first; what is here is read like a local file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from store.durable import ObjectRecord
from store.errors import DamagedCacheError
from store.open_shards import OpenShard, OpenShards
from store.remote.block_table import Wanted
from store.remote.chunk_room import ChunkCacheError

if TYPE_CHECKING:
    from store.remote.mirror import Mirror

MOST_TRIES = 100
TOLD_EVERY_S = 5.0


class StreamedShards(OpenShards):
    """The shards `records` of one array of `mirror`; any number of threads may read at once.

    Blocks are numbered through all shards. known: those that were here when `_seen` was the number of
    evictions; as long as it is, nobody has to look again. whole: all of them were. used: those that were read
    since the chunk cache was last told.
    """

    def __init__(self, mirror: Mirror, records: Sequence[ObjectRecord]) -> None:
        paths = [record.path for record in records]
        super().__init__([mirror.root / path for path in paths], paths)
        self._mirror = mirror
        self._chunks = mirror.chunks
        self._records = records
        self._tables = [self._chunks.table(record.sha256) for record in records]
        self._bytes = np.array([record.bytes for record in records], dtype=np.int64)
        self._block_bytes = np.array([table.block_bytes for table in self._tables], dtype=np.int64)
        self._first = np.cumsum([0, *(table.blocks for table in self._tables)])
        self._known = np.zeros(self._first[-1], dtype=bool)
        self._used = np.zeros(self._first[-1], dtype=bool)
        self._seen = -1
        self._whole = self._whole_used = False
        self._told = time.monotonic()
        self._guard = threading.Lock()
        self._chunks.add_reader(self)

    def version(self, shard: OpenShard) -> tuple[int, ...]:
        """All but the time of the last change: blocks are written into the file."""
        return shard.version[:-1]

    def read(self, numbers: np.ndarray, offsets: np.ndarray, size: int, copy: Callable[[], None]) -> None:
        """Call `copy` once what it reads is here, and again if some of it was given up meanwhile.

        Shards that `copy` finds damaged are fetched once more before that is believed.
        """
        blocks: np.ndarray | None = None
        fetched_again = False
        for _ in range(MOST_TRIES):
            before = self._chunks.evictions
            if self._is_whole(before):
                self._whole_used = True
            else:
                blocks = self._blocks(numbers, offsets, size) if blocks is None else blocks
                self._require(blocks, before)
            try:
                copy()
            except DamagedCacheError as error:
                if self._chunks.evictions != before:
                    continue
                if fetched_again:
                    raise DamagedCacheError(f"{error} (fetched twice from {self._mirror.url})") from None
                fetched_again = True
                for wanted in self._wanted(self._blocks(numbers, offsets, size)):
                    self._chunks.discard(wanted.record.sha256, np.arange(wanted.table.blocks))
                continue
            if self._chunks.evictions == before:
                return
        array = self._names[0].split("/c/")[0]
        raise ChunkCacheError(
            f"the chunk cache of {self._chunks.bound:,} bytes is too small for all that is read at once: "
            f"what {array} needs is given up again and again; raise --chunk-cache-size"
        )

    def _blocks(self, numbers: np.ndarray, offsets: np.ndarray, size: int) -> np.ndarray:
        """The blocks that hold `size` bytes at each of the offsets [N]; some of them several times."""
        behind = offsets + (size - 1)
        if len(offsets) and offsets.min() < 0:  # from the end, and a shard may be shorter than its index
            total = self._bytes[numbers]
            offsets, behind = np.maximum(total + offsets, 0), total - 1
        base, block_bytes = self._first[numbers], self._block_bytes[numbers]
        first, last = base + offsets // block_bytes, base + behind // block_bytes
        longest = int((last - first).max(initial=0)) + 1
        if longest == 1:
            return first
        return np.minimum(first[:, np.newaxis] + np.arange(longest), last[:, np.newaxis]).reshape(-1)

    def _require(self, blocks: np.ndarray, evictions: int) -> None:
        if self._seen == evictions and self._known[blocks].all():
            self._used[blocks] = True
            if time.monotonic() - self._told > TOLD_EVERY_S:
                self.tell_used()
            return
        with self._guard:
            if self._seen != evictions:  # and only then: who sees the number sees what it stands for
                self._whole = False
                self._known[:] = False
                self._seen = evictions
        self.tell_used()
        self._mirror.fetch(self._wanted(blocks))
        with self._guard:
            if self._seen == evictions:
                self._known[blocks] = True
                self._whole = bool(self._known.all())

    def _is_whole(self, evictions: int) -> bool:
        """Whether all blocks were here when `evictions` was the number; not for long without telling."""
        return self._seen == evictions and self._whole and time.monotonic() - self._told < TOLD_EVERY_S

    def _wanted(self, blocks: np.ndarray) -> list[Wanted]:
        distinct = np.unique(blocks)
        shard = np.searchsorted(self._first, distinct, side="right") - 1
        return [
            Wanted(self._records[n], self._tables[n], distinct[shard == n] - self._first[n])
            for n in np.unique(shard).tolist()
        ]

    def tell_used(self) -> None:
        """Stamp what was read since it was last told, so that it is not taken for unused."""
        self._told = time.monotonic()
        if self._whole_used:
            self._whole_used = False
            self._used[:] = True
        used = np.flatnonzero(self._used)
        self._used[used] = False
        stamp = self._chunks.tick()
        for wanted in self._wanted(used):
            wanted.table.stamp[wanted.blocks] = stamp
