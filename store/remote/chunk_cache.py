"""A folder that keeps what was fetched of remote caches: bounded, shared by processes, safe to kill.

    state                       evictions, bytes used, clock: int64, mapped by every process
    lock                        locked while room is made
    claims                      a byte of it is locked while the block that it stands for is fetched
    in-use                      locked, shared, by every process that reads here
    objects/<sha256>            the object; of one with a table, only the blocks that the table says
    objects/<sha256>.blocks     its table, see `store.remote.block_table`
    objects/<sha256>.version    a digest of where its blocks came from, and of which version
    caches/<digest>/<name>/     a cache as a folder, hard links to objects: equal objects lie here once

The kernel drops the locks of a process that is killed. A block counts once its bytes are synced; giving one
up clears its mark, raises `evictions`, and only then frees its bytes. So whoever found a block marked, copied
it, and finds `evictions` as it was, has copied the block.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from store.durable import ObjectRecord, write_file
from store.errors import DamagedCacheError
from store.remote.block_table import BLOCK_BYTES, BlockTable, make_aside, publish_once
from store.remote.chunk_room import ChunkCacheError, clear_up, free_bytes, table_path

STATE_WORDS = 4
EVICTIONS, USED, CLOCK = range(3)
SPARE_SHARE = 32
MOST_OBJECT_BYTES = 1 << 42
WHOLE = -1
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Reader(Protocol):
    """Who reads blocks, and stamps those that it used when it is asked to."""

    def tell_used(self) -> None: ...


class ChunkCache:
    """The chunk cache in `folder`, of at most `bound` bytes. Use `ChunkCache.at`: one object a process."""

    _open: ClassVar[dict[Path, ChunkCache]] = {}
    _opening: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: Path, bound: int, block_bytes: int) -> None:
        self.folder = folder
        self.bound = bound
        self.objects = folder / "objects"
        self._block_bytes = block_bytes
        self._tables: dict[str, BlockTable] = {}
        self._claimed: set[tuple[str, int]] = set()
        self._guard = threading.RLock()
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        try:
            for made in (self.objects, folder / "caches"):
                made.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock, self._claims, self._in_use = (
                os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                for name in ("lock", "claims", "in-use")
            )
            self._state = self._map_state()
            self._join()
        except OSError as error:
            raise self.refused(error) from None

    @classmethod
    def at(cls, folder: Path, bound: int, block_bytes: int = BLOCK_BYTES) -> ChunkCache:
        """The chunk cache in `folder`, made if there is none; raises ChunkCacheError if it can't be."""
        folder = folder.absolute()
        with cls._opening:
            if folder not in cls._open:
                cls._open[folder] = cls(folder, bound, block_bytes)
            found = cls._open[folder]
            found.bound = bound
            return found

    def refused(self, error: OSError) -> ChunkCacheError:
        """What to say if the disk of this folder refuses a write."""
        return ChunkCacheError(
            f"the chunk cache {self.folder} can't be written ({error.strerror}): free some space there, "
            "lower --chunk-cache-size, or name another folder by --chunk-cache"
        )

    def _map_state(self) -> np.ndarray:
        with open(self.folder / "state", "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size < STATE_WORDS * 8:
                file.truncate(0)
                file.write(bytes(STATE_WORDS * 8))
        with open(self.folder / "state", "r+b") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), STATE_WORDS * 8), dtype=np.int64)

    def _join(self) -> None:
        """Tell others that this process reads here; one that is alone first clears up after the dead."""
        try:
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._in_use, fcntl.LOCK_SH)
            return
        self._state[USED] = clear_up(self.folder, self.bound)
        fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def close(self) -> None:
        """Tell others that this process reads here no more."""
        for descriptor in (self._lock, self._claims, self._in_use):
            os.close(descriptor)

    @property
    def evictions(self) -> int:
        """How often blocks were given up, by whatever process."""
        return int(self._state[EVICTIONS])

    @property
    def used(self) -> int:
        """Bytes that the objects take, with those that are about to be written."""
        return int(self._state[USED])

    def tick(self) -> int:
        """A stamp later than those before; two processes may get the same."""
        self._state[CLOCK] += 1
        return int(self._state[CLOCK])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._guard:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def add_reader(self, reader: Reader) -> None:
        """Before blocks are given up, `reader` is asked which it has used."""
        with self._guard:
            self._readers.add(reader)

    def table(self, sha256: str) -> BlockTable:
        """The table of an object that `make_partial` made."""
        with self._guard:
            if sha256 not in self._tables:
                self._tables[sha256] = BlockTable(table_path(self.objects / sha256))
            return self._tables[sha256]

    def make_partial(self, record: ObjectRecord) -> Path:
        """The file of an object whose blocks are fetched one by one; made, with a table, if there is none."""
        path = self.objects / record.sha256
        if record.bytes > MOST_OBJECT_BYTES:
            raise DamagedCacheError(f"{record.path}: no shard has {record.bytes:,} bytes; do not trust it")
        if not path.exists():
            try:
                BlockTable.make(table_path(path), record.bytes, self._block_bytes)
                aside = make_aside(path)
                with open(aside, "wb") as file:
                    file.truncate(record.bytes)
                publish_once(aside, path)
            except OSError as error:
                raise self.refused(error) from None
        return path

    def keep_whole(self, sha256: str, content: bytes) -> Path:
        """The file of the object with that sha256, written if it is not there."""
        path = self.objects / sha256
        if path.exists():
            return path
        self.reserve(len(content))
        aside = make_aside(path)
        try:
            aside.write_bytes(content)
            if not publish_once(aside, path):
                self._give_back(len(content))
        except OSError as error:
            self._give_back(len(content))
            aside.unlink(missing_ok=True)
            raise self.refused(error) from None
        return path

    def hold_version(self, sha256: str, place: str, version: str) -> bool:
        """Let all blocks of an object be of this version of it at `place`; False if there are of another.

        Where the whole object was proven, it does not matter whence it came.
        """
        told = hashlib.sha256(f"{place}\n{version}".encode()).hexdigest()
        file = self.objects / f"{sha256}.version"
        with self._locked():
            table = self.table(sha256)
            if file.exists() and file.read_text() == told:
                return True
            if table.present.any() and not table.proven:
                return False
            write_file(file, told.encode())
            return True

    def claim(self, sha256: str, block: int) -> bool:
        """Whether this thread, and no other of any process, may now fetch the block; see `release`.

        WHOLE claims the check of the whole object.
        """
        with self._guard:
            if (sha256, block) in self._claimed:
                return False
            try:
                fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _claim_byte(sha256, block))
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                return False
            self._claimed.add((sha256, block))
            return True

    def release(self, sha256: str, block: int) -> None:
        with self._guard:
            self._claimed.discard((sha256, block))
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _claim_byte(sha256, block))

    def write(self, sha256: str, blocks: range, content: bytes) -> None:
        """Keep the claimed `blocks`, whose bytes are `content`; others are given up for them if need be.

        Room is made after they were claimed and before they are written: so nobody who gives up one of them
        still has its bytes to free. Raises ChunkCacheError.
        """
        table = self.table(sha256)
        self.reserve(len(content))
        try:
            self._write_synced(sha256, blocks.start * table.block_bytes, content)
        except OSError as error:
            self._give_back(len(content))
            if error.errno not in NO_ROOM or not self._give_up(len(content)):
                raise self.refused(error) from None
            self.write(sha256, blocks, content)
            return
        table.stamp[blocks.start : blocks.stop] = self.tick()
        table.present[blocks.start : blocks.stop] = True

    def _write_synced(self, sha256: str, offset: int, content: bytes) -> None:
        descriptor = os.open(self.objects / sha256, os.O_WRONLY | os.O_CLOEXEC)
        try:
            view = memoryview(content)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def reserve(self, size: int) -> None:
        """Count `size` bytes that are about to be written; raises ChunkCacheError if there is no room."""
        with self._locked():
            lacking = self.used + size - self.bound
            if lacking > 0:
                self._evict(lacking + self.bound // SPARE_SHARE)
            if self.used + size > self.bound:
                raise ChunkCacheError(
                    f"the chunk cache {self.folder} of {self.bound:,} bytes is too small for the cache's "
                    "tables and what is read at once; raise --chunk-cache-size"
                )
            self._state[USED] += size

    def _give_back(self, size: int) -> None:
        with self._locked():
            self._state[USED] -= size

    def _give_up(self, size: int) -> int:
        with self._locked():
            return self._evict(size)

    def _evict(self, size: int) -> int:
        """Give up the blocks that were read longest ago, up to `size` bytes; how many bytes it were."""
        for reader in self._readers:
            reader.tell_used()
        tables = [(path.stem, self.table(path.stem)) for path in self.objects.glob("*.blocks")]
        there = [np.flatnonzero(table.present) for _, table in tables]
        owner = np.repeat(np.arange(len(tables)), [len(blocks) for blocks in there])
        stamps = [table.stamp[blocks] for (_, table), blocks in zip(tables, there, strict=True)]
        sizes = [table.sizes(blocks) for (_, table), blocks in zip(tables, there, strict=True)]
        if not len(owner):
            return 0
        oldest = np.argsort(np.concatenate(stamps), kind="stable")
        behind = np.cumsum(np.concatenate(sizes)[oldest])
        chosen = np.sort(oldest[: int(np.searchsorted(behind, size)) + 1])
        number = np.concatenate(there)[chosen]
        given_up = [(*tables[n], number[owner[chosen] == n]) for n in np.unique(owner[chosen]).tolist()]
        return self._discard(given_up)

    def _discard(self, given_up: list[tuple[str, BlockTable, np.ndarray]]) -> int:
        freed = 0
        for _, table, blocks in given_up:
            freed += int(table.sizes(blocks).sum())
            table.proven = False
            table.present[blocks] = False
        self._state[EVICTIONS] += 1
        for sha256, table, blocks in given_up:
            free_bytes(self.objects / sha256, table, blocks)
        self._state[USED] -= freed
        return freed

    def drop_unproven(self, sha256s: Iterable[str]) -> None:
        """Give up what is here of those of the objects that were never proven."""
        with self._locked():
            tables = [(sha256, self.table(sha256)) for sha256 in sha256s]
            self._discard(
                [
                    (sha256, table, np.flatnonzero(table.present))
                    for sha256, table in tables
                    if not table.proven
                ]
            )

    def set_proven(self, sha256: str, evictions: int) -> None:
        """Say that the whole object is the manifest's, if nothing was given up since `evictions`."""
        with self._locked():
            if self.evictions == evictions:
                self.table(sha256).proven = True

    def discard(self, sha256: str, blocks: np.ndarray) -> None:
        """Give up `blocks` [N] because their bytes are wrong."""
        with self._locked():
            table = self.table(sha256)
            self._discard([(sha256, table, blocks[table.present[blocks]])])


def _claim_byte(sha256: str, block: int) -> int:
    """The byte of the file `claims` that stands for a block; two blocks that share one only wait in vain."""
    return (int(sha256[:9], 16) << 26) + block + 1
