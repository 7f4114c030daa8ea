"""Bytes that survive: files are written aside, synced and renamed; JSON has one spelling.

Whatever a cache consists of goes through here or through `store.shards`, so that a killed process
leaves either the old file or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import DamagedCacheError
from store.untrusted import exact_fields, is_count, is_plain_path, parse_json, shown

PARTIAL_SUFFIX = ".partial"
HASH_BLOCK_BYTES = 1 << 20
JSON_BYTES = 1 << 26


@dataclass(frozen=True)
class ObjectRecord:
    """One stored file: path relative to the cache (posix), size in bytes, sha256."""

    path: str
    bytes: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "bytes": self.bytes, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, fields: Any) -> ObjectRecord:
        """Parse `to_dict`'s; raises DamagedCacheError unless path, size and digest can be an object's."""
        found = cls(**exact_fields(cls, fields, "an object's record"))
        if not (is_plain_path(found.path) and is_count(found.bytes) and is_sha256(found.sha256)):
            raise DamagedCacheError(f"{shown(fields)} is no object's record; pull the cache again")
        return found


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` with `content` in one step: aside, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + PARTIAL_SUFFIX)
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    publish(aside, path)


def publish(aside: Path, path: Path) -> None:
    """Rename `aside`, whose bytes are synced, to `path` and sync the folder's entry."""
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no blanks, UTF-8, no NaN, a line feed at the end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def json_digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def is_sha256(digest: object) -> bool:
    """Whether `digest` is a sha256 as it is written here: 64 small hexadecimal digits."""
    return isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None


def read_json(path: Path, limit_bytes: int = JSON_BYTES) -> Any:
    """The JSON value in `path`; raises DamagedCacheError if it is larger than `limit_bytes` or not JSON.

    What counts as JSON is `store.untrusted.parse_json`'s to say.
    """
    content = read_bytes(path, limit_bytes)
    try:
        return parse_json(content)
    except ValueError as error:
        raise DamagedCacheError(f"{path} is not JSON ({error}); restore it from a good copy") from None


def read_bytes(path: Path, limit_bytes: int = JSON_BYTES) -> bytes:
    """All of the small file `path`; raises DamagedCacheError if it is larger than `limit_bytes`."""
    with open(path, "rb") as file:
        large = os.fstat(file.fileno()).st_size > limit_bytes
        content = b"" if large else file.read()
    if large:
        raise DamagedCacheError(f"{path.name} is larger than {limit_bytes} bytes; not a cache's own file")
    return content


def record_file(root: Path, path: Path) -> ObjectRecord:
    """Size and sha256 of the file `path` below `root`."""
    sha = hashlib.sha256()
    size = 0
    with open(path, "rb") as file:
        step = min(HASH_BLOCK_BYTES, os.fstat(file.fileno()).st_size + 1)
        while block := file.read(step):
            sha.update(block)
            size += len(block)
    return ObjectRecord(path.relative_to(root).as_posix(), size, sha.hexdigest())


class GrowingDigest:
    """The sha256 of a file that is still written, taken from the page cache by a thread of its own.

    Hashing costs as much as writing; so it runs beside it, and no row has to be kept for it.
    """

    def __init__(self, path: Path) -> None:
        self.asked_for = 0
        self._descriptor = os.open(path, os.O_RDONLY)
        self._sha = hashlib.sha256()
        self._block = memoryview(bytearray(HASH_BLOCK_BYTES))
        self._thread = ThreadPoolExecutor(1)
        self._taken: list[Future[None]] = []

    def take_up_to(self, end: int) -> None:
        """Hash what was written until byte `end`, in the thread."""
        self._taken.append(self._thread.submit(self._take, self.asked_for, end))
        self.asked_for = end

    def _take(self, start: int, end: int) -> None:
        while start < end:
            block = self._block[: end - start]
            read = os.preadv(self._descriptor, [block], start)
            if not read:
                raise OSError(f"the file being written ends at byte {start}, not {end}")
            self._sha.update(block[:read])
            start += read

    def finish(self) -> str:
        """The digest (hex), once everything asked for was taken; raises OSError if it could not be read."""
        for taken in self._taken:
            taken.result()
        return self._sha.hexdigest()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        os.close(self._descriptor)
