"""Room in a chunk cache: freeing blocks of its files, and clearing up what dead processes left."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import numpy as np

from store.durable import PARTIAL_SUFFIX
from store.errors import CacheError
from store.remote.block_table import BlockTable

CROWDED = 0.75
KEEP_SIZE, PUNCH_HOLE = 1, 2


class ChunkCacheError(CacheError, OSError):
    """The folder of the chunk cache can't hold what is read; the message says what to do."""


def table_path(path: Path) -> Path:
    """Where the table of the object at `path` lies."""
    return path.with_name(f"{path.name}.blocks")


def free_bytes(path: Path, table: BlockTable, blocks: np.ndarray) -> None:
    """Turn `blocks` [N], ascending, of the file into holes; raises ChunkCacheError if its disk has none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for run in np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
            if len(run):
                _punch(descriptor, path, int(run[0]) * table.block_bytes, int(table.sizes(run).sum()))
    finally:
        os.close(descriptor)


def _punch(descriptor: int, path: Path, offset: int, size: int) -> None:
    """fallocate(2) with FALLOC_FL_PUNCH_HOLE, which Python does not offer."""
    punch = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    status = (
        -1
        if punch is None
        else punch(descriptor, KEEP_SIZE | PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(size))
    )
    if status:
        raise ChunkCacheError(
            f"the disk of {path.parent.parent} can't free parts of a file: name a folder on another by "
            "--chunk-cache, or make --chunk-cache-size large enough for all that is read"
        )


def clear_up(folder: Path, bound: int) -> int:
    """Drop what was half made, and what no cache links to; the bytes that are left.

    Only for who is alone in `folder`. Where most of `bound` is used, caches of which no block is left go too.
    """
    objects = folder / "objects"
    for aside in (*objects.glob(f"*{PARTIAL_SUFFIX}"), *folder.glob(f"caches/**/*{PARTIAL_SUFFIX}")):
        aside.unlink()
    for table in objects.glob("*.blocks"):
        path = table.with_suffix("")
        if not BlockTable.is_sound(table) or not path.is_file():
            path.unlink(missing_ok=True)
            table.unlink()
    used = _used(objects)
    if used > bound * CROWDED:
        _drop_empty_caches(folder)
        used = _used(objects)
    return used


def _used(objects: Path) -> int:
    """Bytes of the objects that caches link to; the others are dropped, and what is absent is freed."""
    used = 0
    for path in [path for path in objects.iterdir() if not path.suffix]:
        status = path.stat()
        if status.st_nlink == 1:
            for file in objects.glob(f"{path.name}*"):
                file.unlink()
        elif table_path(path).exists():
            table = BlockTable(table_path(path))
            if status.st_blocks * 512 > table.present_bytes:
                free_bytes(path, table, np.flatnonzero(~table.present))
            used += table.present_bytes
        else:
            used += status.st_size
    return used


def _drop_empty_caches(folder: Path) -> None:
    held = {
        table.with_suffix("").stat().st_ino
        for table in folder.glob("objects/*.blocks")
        if BlockTable(table).present.any()
    }
    for cache in folder.glob("caches/*/*"):
        if not any(path.stat().st_ino in held for path in cache.rglob("*")):
            shutil.rmtree(cache)
