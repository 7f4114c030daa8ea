"""Opening a cache by its URL: tables are fetched now, rows when they are read, both into the chunk cache.

$TEACHER_CACHE_CHUNKS names its folder, $TEACHER_CACHE_CHUNKS_SIZE the bytes that it may take.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from store.errors import InputError
from store.manifest import MANIFEST, Manifest
from store.reader import Cache, open_folder
from store.remote.chunk_cache import ChunkCache
from store.remote.location import FILE, Location
from store.remote.mirror import Mirror
from store.remote.persistence import Patience
from store.remote.source import Remote, open_remote
from store.untrusted import is_path_name

FOLDER_VARIABLE, SIZE_VARIABLE = "TEACHER_CACHE_CHUNKS", "TEACHER_CACHE_CHUNKS_SIZE"
DEFAULT_SIZE = "20GB"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
PATIENCE = Patience(attempts=10)
"""A training outlives a server's restart: it waits for about a minute and a half."""

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?) ?([KMGT]?B?)", re.IGNORECASE)


@dataclass(frozen=True)
class ChunkCacheSettings:
    """Where the chunk cache lies, and how many bytes it may take."""

    folder: Path
    bytes: int

    @classmethod
    def from_environment(cls) -> ChunkCacheSettings:
        """What the two variables say, else 20 GB in the user's folder for caches."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(os.environ.get(FOLDER_VARIABLE) or home / "video-text-teacher-cache")
        return cls(folder.expanduser(), parse_size(os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE))


def parse_size(text: str) -> int:
    """Bytes of "20GB", "500 MB", "1.5TB" or a plain number; raises InputError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    unit = found[2].upper().rstrip("B") + "B" if found and found[2] else ""
    size = int(float(found[1]) * UNITS.get(unit, 1)) if found else 0
    if size <= 0:
        raise InputError(f"{text!r} is no size of a chunk cache; say it like 20GB or 500MB")
    return size


def open_url(
    text: str,
    digest: str | None = None,
    settings: ChunkCacheSettings | None = None,
    patience: Patience = PATIENCE,
) -> Cache:
    """The cache at the URL `text` (`URL`, `URL@sha256:<digest>`, `URL@tag`), or its state `digest`.

    A folder is read where it is. A state that is named by its digest, and of which all that is read was
    fetched before, needs no network. Raises as `store.reader.open_cache`, RemoteError naming the object that
    could not be fetched, ChunkCacheError for a chunk cache that can't hold what is read.
    """
    location = Location.parse(text)
    if digest is not None:
        location = location.pinned(digest)
    remote = open_remote(location, patience)
    if location.protocol == FILE:
        pinned = remote.manifest().digest if location.pin else None
        return open_folder(Path(location.url), pinned)
    settings = settings or ChunkCacheSettings.from_environment()
    if not is_path_name(location.name):
        raise InputError(f"{location}: a cache's last word is letters, digits, '_', '-' and '.'")
    chunks = ChunkCache.at(settings.folder, settings.bytes)
    mirror = Mirror.at(chunks, remote, _manifest(chunks, remote, location), location.name)
    mirror.fetch_start()
    return open_folder(mirror.root, streamed=mirror)


def _manifest(chunks: ChunkCache, remote: Remote, location: Location) -> Manifest:
    """The state that the location names; from the chunk cache if that has it."""
    if location.digest is not None:
        here = chunks.folder / "caches" / location.digest / location.name
        if (here / MANIFEST).exists():
            return Manifest.read(here, digest=location.digest)
    return remote.manifest()
