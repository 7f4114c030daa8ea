"""A remote cache as a folder on this machine: tables whole, shards block by block as they are read.

Whole objects (metadata, tables, what was fitted to a signal) are held to size and sha256 before they appear.
Of shards, a reader checks the crc32c of the index and of every row, and as soon as all blocks of a shard are
here its sha256 is held to the manifest too.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from store.durable import ObjectRecord, canonical_json, read_json
from store.errors import DamagedCacheError
from store.manifest import MANIFEST, Manifest
from store.open_shards import register_source
from store.parts import PLANS, TABLES, groups_of
from store.remote.block_table import BlockTable, Wanted, make_aside, publish_once
from store.remote.chunk_cache import WHOLE, ChunkCache
from store.remote.chunk_room import ChunkCacheError
from store.remote.location import Location, redacted
from store.remote.protocols.base import Versioned
from store.remote.streamed_shards import StreamedShards
from store.shards import RowsArray
from store.tables import MOST_COLUMN_BYTES

FETCHING_THREADS = 16
BLOCKS_AT_ONCE = 8
MOST_WHOLE_BYTES = MOST_COLUMN_BYTES + 64
MOST_TIMES_FETCHED = 2
FIRST_WAIT_S, LONGEST_WAIT_S = 0.001, 0.1


class RemoteObjects(Protocol):
    """Where the objects of one cache are, see `store.remote.source.Remote`: its errors name the object."""

    location: Location

    def where(self, path: str) -> str: ...

    def group_manifest(self, group: str, digest: str) -> Manifest: ...

    def fetch_object(self, record: ObjectRecord) -> bytes: ...

    def fetch_versioned_range(self, record: ObjectRecord, start: int, length: int) -> Versioned: ...


class Mirror:
    """The cache of `manifest`, whose objects `remote` has, as the folder `root`. Use `Mirror.at`.

    Any number of threads and processes may read at once. `url` is where `remote` is, with the user of an
    sftp:// URL, who is needed to go back there.
    """

    _open: ClassVar[weakref.WeakValueDictionary[Path, Mirror]] = weakref.WeakValueDictionary()
    _opening: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, root: Path, chunks: ChunkCache, remote: RemoteObjects, manifest: Manifest) -> None:
        self.root = root
        self.chunks = chunks
        self.url = remote.location.url
        self._remote = remote
        self.manifest = manifest
        self._shards: dict[str, ObjectRecord] = {}
        self._groups: set[str] = set()
        self._versions: dict[str, str] = {}
        self._comparing = threading.Lock()
        self._fetching_group = threading.RLock()
        self._pool = ThreadPoolExecutor(FETCHING_THREADS, thread_name_prefix="remote-cache")
        root.mkdir(parents=True, exist_ok=True)
        register_source(root, self)

    @classmethod
    def at(cls, chunks: ChunkCache, remote: RemoteObjects, manifest: Manifest, name: str) -> Mirror:
        """The mirror of that state of the cache, one a process and chunk cache."""
        root = chunks.folder / "caches" / manifest.digest / name
        with cls._opening:
            found = cls._open.get(root)
            if found is None:
                found = cls._open[root] = cls(root, chunks, remote, manifest)
            return found

    def fetch_start(self) -> None:
        """Let all be here that opening the cache reads: tables, those of appended rows, batch plans."""
        kinds = (TABLES, PLANS)
        for group in ("", *(group.path for kind in kinds for group in groups_of(self.manifest.groups, kind))):
            self.fetch_group(group)

    def fetch_group(self, group: str) -> None:
        """Let the objects of a group ("" for the first tables) be here: shards still without their blocks."""
        with self._fetching_group:
            if group in self._groups:
                return
            manifest = self.manifest if group == "" else self._group_manifest(group)
            metadata = [record for record in manifest.objects if record.path.endswith("zarr.json")]
            others = [record for record in manifest.objects if not record.path.endswith("zarr.json")]
            self._keep(metadata)
            sharded = set(self._sharded(metadata))
            shards = [record for record in others if record.path.split("/c/")[0] in sharded]
            self._keep(record for record in others if record.path.split("/c/")[0] not in sharded)
            for record in shards:
                self._link(self.chunks.make_partial(record), record.path)
            self._shards |= {record.path: record for record in shards}
            if group == "":
                self._write_once(self.root / MANIFEST, manifest)
            self._groups.add(group)

    def _group_manifest(self, group: str) -> Manifest:
        """The manifest of a group, held to the digest that the root's tells, and written here."""
        digest = self.manifest.groups[group]
        if (self.root / group / MANIFEST).exists():
            return Manifest.read(self.root, group, digest)
        found = self._remote.group_manifest(group, digest)
        self._write_once(self.root / group / MANIFEST, found)
        return found

    def _write_once(self, path: Path, manifest: Manifest) -> None:
        """Write a manifest, which another process may be writing too."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = make_aside(path)
            aside.write_bytes(canonical_json(manifest.to_dict()))
            publish_once(aside, path)
        except OSError as error:
            raise self.chunks.refused(error) from None

    def _keep(self, records: Iterable[ObjectRecord]) -> None:
        lacking = [record for record in records if not (self.root / record.path).exists()]
        for _ in self._pool.map(self._keep_one, lacking):
            pass

    def _keep_one(self, record: ObjectRecord) -> None:
        path = self.chunks.objects / record.sha256
        if record.bytes > MOST_WHOLE_BYTES:
            raise DamagedCacheError(
                f"{self._remote.where(record.path)}: {record.bytes:,} bytes are more than a table or "
                "metadata has; do not trust this cache"
            )
        if not path.exists():
            content = self._remote.fetch_object(record)
            path = self.chunks.keep_whole(record.sha256, content)
        self._link(path, record.path)

    def _link(self, source: Path, path: str) -> None:
        target = self.root / path
        try:
            if target.exists():
                if target.samefile(source):
                    return
                target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        except FileExistsError:
            return
        except OSError as error:
            raise self.chunks.refused(error) from None

    def _sharded(self, metadata: Iterable[ObjectRecord]) -> Iterator[str]:
        """Paths of the arrays that lie in shards."""
        for record in metadata:
            document = read_json(self.root / record.path)
            if isinstance(document, dict) and document.get("node_type") == "array":
                path = record.path.removesuffix("/zarr.json")
                if RowsArray.from_zarr_json(document, path).shard_rows is not None:
                    yield path

    def open_shards(self, array_path: str, keys: Sequence[str]) -> StreamedShards:
        """The shards `keys` of an array; raises DamagedCacheError for one that no manifest names."""
        paths = [f"{array_path}/{key}" for key in keys]
        for path in paths:
            if path not in self._shards:
                raise DamagedCacheError(f"{path} is in no manifest of {self.root.name}; pull the cache again")
        return StreamedShards(self, [self._shards[path] for path in paths])

    def fetch(self, wanted: Sequence[Wanted]) -> None:
        """Return once all blocks that are wanted are here; each is fetched by one process only.

        Raises what `fetch_versioned_range` raises, and ChunkCacheError where they do not fit.
        """
        blocks, fetched = sum(len(some.blocks) for some in wanted), 0
        stamp, wait_s = self.chunks.tick(), FIRST_WAIT_S
        for some in wanted:
            some.table.stamp[some.blocks] = stamp
        while any(len(some.lacking) for some in wanted):
            if fetched > MOST_TIMES_FETCHED * blocks:
                raise self._too_small(wanted)
            jobs = [(some, run) for some in wanted for run in _runs(self._claim(some))]
            fetched += sum(len(run) for _, run in jobs)
            if jobs:
                self._fetch_all(jobs)
            else:
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _too_small(self, wanted: Sequence[Wanted]) -> ChunkCacheError:
        size = sum(int(some.table.sizes(some.blocks).sum()) for some in wanted)
        return ChunkCacheError(
            f"the chunk cache of {self.chunks.bound:,} bytes is too small: one batch reads {size:,} of "
            f"{wanted[0].record.path.split('/c/')[0]} alone, beside the cache's tables and what others read; "
            "raise --chunk-cache-size"
        )

    def _claim(self, wanted: Wanted) -> list[int]:
        """Those of the lacking blocks that nobody else is fetching."""
        sha256, claimed = wanted.record.sha256, []
        for block in wanted.lacking.tolist():
            if not self.chunks.claim(sha256, block):
                continue
            if wanted.table.present[block]:  # somebody fetched it just before
                self.chunks.release(sha256, block)
            else:
                claimed.append(block)
        return claimed

    def _fetch_all(self, jobs: Sequence[tuple[Wanted, range]]) -> None:
        running = [self._pool.submit(self._fetch_run, some, run) for some, run in jobs]
        wait(running)
        for done in running:
            done.result()

    def _fetch_run(self, wanted: Wanted, blocks: range) -> None:
        record, table = wanted.record, wanted.table
        try:
            start = blocks.start * table.block_bytes
            length = min(blocks.stop * table.block_bytes, table.bytes) - start
            found = self._remote.fetch_versioned_range(record, start, length)
            self._require_version(record, found.version)
            self.chunks.write(record.sha256, blocks, found.content)
        finally:
            for block in blocks:
                self.chunks.release(record.sha256, block)
        if table.present.all() and not table.proven and self.chunks.claim(record.sha256, WHOLE):
            try:
                self._prove(record, table)
            finally:
                self.chunks.release(record.sha256, WHOLE)

    def _require_version(self, record: ObjectRecord, version: str) -> None:
        """Hold all blocks of an object to one version of it on its server.

        Raises DamagedCacheError if the version changed since this process first fetched of it, or since an
        earlier one did; then what is here of objects that were never proven is dropped.
        """
        with self._comparing:
            known = self._versions.get(record.path)
            if known is None and not self.chunks.hold_version(record.sha256, redacted(self.url), version):
                self.chunks.drop_unproven(shard.sha256 for shard in self._shards.values())
                raise DamagedCacheError(
                    f"{self._remote.where(record.path)}: is another version than the one that an earlier run "
                    "fetched a part of; what was fetched in part is dropped: run the same command again"
                )
            if known not in (None, version):
                raise DamagedCacheError(
                    f"{self._remote.where(record.path)}: was replaced on the server while it was read; open "
                    "the cache again, and ask its owner what it is now"
                )
            self._versions[record.path] = version

    def _prove(self, record: ObjectRecord, table: BlockTable) -> None:
        """Hold a shard, all of which is here, to its sha256; raises DamagedCacheError."""
        before = self.chunks.evictions
        with open(self.chunks.objects / record.sha256, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == record.sha256:
            self.chunks.set_proven(record.sha256, before)
        elif self.chunks.evictions == before:
            self.chunks.discard(record.sha256, np.arange(table.blocks))
            raise DamagedCacheError(
                f"{self._remote.where(record.path)}: its sha256 is another than its manifest says, now that "
                "all of it was read; it was dropped: run the same command again, and if this comes again it "
                "was changed on the server: do not trust what was trained from it"
            )


def _runs(blocks: Sequence[int]) -> Iterator[range]:
    """Neighbours among `blocks`, ascending, up to BLOCKS_AT_ONCE together."""
    start = 0
    for place in range(1, len(blocks) + 1):
        if place == len(blocks) or blocks[place] != blocks[place - 1] + 1 or place - start == BLOCKS_AT_ONCE:
            yield range(blocks[start], blocks[place - 1] + 1)
            start = place
