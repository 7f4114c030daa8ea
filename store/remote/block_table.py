"""Which blocks of an object are on this machine, as every process that maps the table sees it.

    | magic | object's bytes | a block's bytes | proven | present uint8 [blocks] | stamp int64 [blocks] |
      int64   int64            int64             int64    padded to 8 bytes

present is set only by who holds the claim of the block, after its bytes were synced, and cleared only under
the lock of the chunk cache. stamp tells when the block was last read, by the chunk cache's own clock.
"""

from __future__ import annotations

import mmap
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.durable import PARTIAL_SUFFIX, ObjectRecord

BLOCK_BYTES = 1 << 20
MAGIC = 0x31534B434F4C42
HEADER = 4


class BlockTable:
    """The table in the file `path`, mapped."""

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        words = np.frombuffer(mapped, dtype=np.int64)
        self._header = words[:HEADER]
        self.bytes = int(words[1])
        self.block_bytes = int(words[2])
        self.blocks = -(-self.bytes // self.block_bytes)
        padded = _words(self.blocks)
        self.present = words[HEADER : HEADER + padded].view(np.bool_)[: self.blocks]
        self.stamp = words[HEADER + padded :]

    @property
    def proven(self) -> bool:
        """Whether the sha256 of the whole was found to be the manifest's, and no block was given up since."""
        return bool(self._header[3])

    @proven.setter
    def proven(self, is_so: bool) -> None:
        self._header[3] = is_so

    def sizes(self, blocks: np.ndarray) -> np.ndarray:
        """Bytes of each of `blocks` [N]: int64 [N]; the last one of an object may be shorter."""
        return np.minimum((blocks + 1) * self.block_bytes, self.bytes) - blocks * self.block_bytes

    @property
    def present_bytes(self) -> int:
        return int(self.sizes(np.flatnonzero(self.present)).sum())

    @staticmethod
    def make(path: Path, size: int, block_bytes: int) -> None:
        """Let an empty table appear at `path`, all of it on the disk, unless there is one."""
        blocks = -(-size // block_bytes)
        words = np.zeros(HEADER + _words(blocks) + blocks, dtype=np.int64)
        words[:3] = MAGIC, size, block_bytes
        aside = make_aside(path)
        aside.write_bytes(words.tobytes())
        publish_once(aside, path)

    @staticmethod
    def is_sound(path: Path) -> bool:
        """Whether the file is a table of the length that it tells."""
        content = np.frombuffer(path.read_bytes()[: HEADER * 8], dtype=np.int64)
        if len(content) < HEADER or content[0] != MAGIC or content[1] < 0 or content[2] <= 0:
            return False
        blocks = -(-int(content[1]) // int(content[2]))
        return path.stat().st_size == 8 * (HEADER + _words(blocks) + blocks)


@dataclass(frozen=True)
class Wanted:
    """Blocks [N] of one object, by number, that have to be here."""

    record: ObjectRecord
    table: BlockTable
    blocks: np.ndarray

    @property
    def lacking(self) -> np.ndarray:
        return self.blocks[~self.table.present[self.blocks]]


def _words(blocks: int) -> int:
    return -(-blocks // 8)


def make_aside(path: Path) -> Path:
    """A name beside `path` that nobody else writes to."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")


def publish_once(aside: Path, path: Path) -> bool:
    """Sync `aside` and let it appear as `path`; False if somebody else's is there. `aside` is gone after."""
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    return True
