"""Many objects into a folder, several at once: each goes on where it was cut off, is held to its sha256."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from store.durable import HASH_BLOCK_BYTES, PARTIAL_SUFFIX, ObjectRecord, publish
from store.manifest import digest_problem, size_problem
from store.remote.source import BLOCK_BYTES, Remote

THREADS = 12
Item = TypeVar("Item")


def in_threads(act: Callable[[Item], None], items: Iterable[Item], stop: threading.Event) -> None:
    """`act` of every item, THREADS at once; the first error sets `stop`, for the others, and is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(act, item) for item in items]
        try:
            done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def missing_bytes(root: Path, records: Iterable[ObjectRecord]) -> int:
    """What of `records` is not at `root` yet, going by sizes; what was cut off counts for its rest."""
    total = 0
    for record in records:
        if size_problem(root, record) is not None:
            aside = _aside(root, record)
            total += record.bytes - (min(aside.stat().st_size, record.bytes) if aside.is_file() else 0)
    return total


def download(
    remote: Remote, records: Sequence[ObjectRecord], root: Path, told: Callable[[int], object]
) -> int:
    """Bring `records` to `root`; the bytes that were fetched. told: gets the bytes of every step.

    An object that is there with its sha256 stays. Raises DamagedCacheError for one that is not what its
    record says, RemoteError, OSError of the local disk; what arrived by then stays and counts next time.
    """
    fetched = [0]
    counting = threading.Lock()

    def fetch(record: ObjectRecord) -> None:
        if remote.stop.is_set():
            return
        if size_problem(root, record) is None and digest_problem(root, record) is None:
            told(record.bytes)
            return
        came = _fetch(remote, record, root, told)
        with counting:
            fetched[0] += came

    in_threads(fetch, records, remote.stop)
    return fetched[0]


def _fetch(remote: Remote, record: ObjectRecord, root: Path, told: Callable[[int], object]) -> int:
    """Bring one object; a rest of it that turns out to be another's is fetched anew, once."""
    aside = _aside(root, record)
    aside.parent.mkdir(parents=True, exist_ok=True)
    came = 0
    for _ in range(2):
        had = min(aside.stat().st_size, record.bytes) if aside.is_file() else 0
        with open(aside, "r+b" if had else "wb") as file:
            file.truncate(had)
            sha = _digest_of(aside, had)
            file.seek(had)
            told(had)
            while (start := file.tell()) < record.bytes and not remote.stop.is_set():
                block = remote.fetch_range(record, start, min(BLOCK_BYTES, record.bytes - start))
                file.write(block)
                file.flush()
                sha.update(block)
                came += len(block)
                told(len(block))
            if remote.stop.is_set():
                return came
            os.fsync(file.fileno())
        if sha.hexdigest() == record.sha256:
            publish(aside, root / record.path)
            return came
        aside.unlink()
        told(-record.bytes)
        if not had:
            break
    raise remote.changed(record)


def _aside(root: Path, record: ObjectRecord) -> Path:
    path = root / record.path
    return path.with_name(path.name + PARTIAL_SUFFIX)


def _digest_of(path: Path, length: int) -> hashlib._Hash:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while length and (block := file.read(min(HASH_BLOCK_BYTES, length))):
            sha.update(block)
            length -= len(block)
    return sha
