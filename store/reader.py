"""Reading a finished cache: tables and small signals from RAM, large ones from their shards.

`open_cache` checks manifests and sizes before it hands anything out; every row's crc32c is checked
when this process first reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from store.contents import (
    check_dataset,
    check_rows,
    read_attributes,
    require_arrays,
    table_arrays,
    table_counts,
)
from store.errors import (
    DamagedCacheError,
    IdentityError,
    IncompleteCacheError,
    MissingFileError,
)
from store.identity import require_same
from store.inputs.samples import Split
from store.inputs.view import View
from store.layout import (
    FORMAT_NAME,
    FORMAT_VERSION,
    STATES,
    TableCounts,
    plan_path,
    view_path,
)
from store.lookup import check_name
from store.manifest import MANIFEST, Manifest
from store.partial import Partial
from store.parts import PLANS, TABLES, TEACHERS, VIEWS, groups_of
from store.plans import PlannedBatches
from store.segments import Tables, read_datasets
from store.tables import read_batch_plan
from store.teacher_reader import TeacherReader
from store.untrusted import is_url, require_plain_tree, shown
from store.view_reader import RESIDENT_BYTES, ViewReader

__all__ = ["RESIDENT_BYTES", "Cache", "TeacherReader", "open_cache", "open_folder", "read_root"]


class StreamedCache(Protocol):
    """Where a cache comes from whose folder here is filled as it is read."""

    url: str

    def fetch_group(self, group: str) -> None: ...


class Cache:
    """A complete cache at `path`, read-only. Use `open_cache`."""

    def __init__(
        self, path: Path, manifest: Manifest, tables: Tables, streamed: StreamedCache | None = None
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.tables = tables
        self._streamed = streamed
        self.dataset: Mapping[str, Any] = tables.dataset
        self.partial = Partial.read(path)

    @property
    def location(self) -> str | None:
        """The URL that it is streamed from, with its digest; None for a cache on this machine."""
        return None if self._streamed is None else f"{self._streamed.url}@sha256:{self.digest}"

    @property
    def digest(self) -> str:
        """Names the whole cache: the self-digest of the root's manifest."""
        return self.manifest.digest

    def extends(self, digest: str) -> bool:
        """Whether `digest` names this cache as it was before something was added to it.

        Proven, not told: what came later is taken away again, and the digest of the rest is that one. Such a
        state can still be opened: `open_cache(path, digest)`.
        """
        return digest != self.digest and self.manifest.as_of(digest) is not None

    @property
    def reports_dir(self) -> Path:
        """Where reports about the cache lie, outside its digest; may not exist."""
        return self.path / "reports"

    @cached_property
    def video_ids(self) -> list[str]:
        return self.tables.video_ids

    @cached_property
    def moment_s(self) -> np.ndarray:
        """[V, 2] float32: start and end, in seconds, of what the captions describe; NaN if unknown."""
        return self.tables.moment_s

    @cached_property
    def video_class(self) -> np.ndarray:
        """[V] int64: the text row of each video's class, -1 where it has none."""
        return self.tables.video_class

    @property
    def protocol(self) -> str:
        """How the dataset is evaluated, one of `store.inputs.protocol.PROTOCOLS`."""
        return str(self.dataset["protocol"])

    @cached_property
    def texts(self) -> list[str]:
        return self.tables.texts

    @cached_property
    def text_video(self) -> np.ndarray:
        """[T] int64: the video row of each text, -1 for a class name."""
        return self.tables.text_video

    def siblings(self, text_rows: np.ndarray) -> np.ndarray:
        """[B, B] bool: which other captions of the batch `text_rows` [B] belong to the same video."""
        video = self.text_video[text_rows]
        same = video[:, np.newaxis] == video
        np.fill_diagonal(same, False)
        return same & (video >= 0)

    def batch_plan(self, name: str) -> PlannedBatches:
        """A stored batch plan; raises UnknownNameError listing what there is."""
        plans = [group.name for group in groups_of(self.manifest.groups, PLANS)]
        check_name("batch plan", name, plans)
        self.group_manifest(plan_path(name))
        plan = read_batch_plan(self.path, name)
        check_rows(f"{plan_path(name)}/video", plan.video.reshape(-1), 0, self.dataset["videos"])
        check_rows(f"{plan_path(name)}/text", plan.text.reshape(-1), 0, self.dataset["texts"])
        return plan

    @property
    def counts(self) -> TableCounts:
        """Lengths of the row axes, those of the batch plans included."""
        return table_counts(self.path, self.dataset, self.manifest.groups)

    @property
    def splits(self) -> list[str]:
        return sorted(self.dataset["splits"])

    def split(self, name: str) -> Split:
        """Row numbers of a split; raises UnknownNameError listing what there is."""
        check_name("split", name, self.splits)
        return self.tables.split(name)

    @property
    def teacher_names(self) -> list[str]:
        """The teachers whose signals are here; a partial copy may lack others."""
        here = filter(self.partial.has, self.manifest.groups)
        return sorted({group.name for group in groups_of(here, TEACHERS)})

    def teacher(self, name: str, resident_bytes: int = RESIDENT_BYTES) -> TeacherReader:
        """One teacher's signals, up to `resident_bytes` of them held in RAM.

        Raises UnknownNameError listing what there is, MissingFileError for one that a partial copy lacks.
        """
        if name not in self.teacher_names and groups_of(self.manifest.groups, TEACHERS, name):
            raise self.partial.missing(f"teacher {name!r} of {self.path.name}", f"--teacher {name}")
        check_name("teacher", name, self.teacher_names)
        return TeacherReader(self, name, resident_bytes)

    def groups_of(self, teacher: str) -> list[str]:
        """What a reader of `teacher` reads beside the first tables: its parts, its view, appended tables."""
        reader = self.teacher(teacher)
        parts = groups_of(self.manifest.groups, TEACHERS, teacher)
        views = groups_of(self.manifest.groups, VIEWS, reader.view.name)
        plan = reader.pair_layout.plan
        tables = groups_of(self.manifest.groups, TABLES)
        return [*(group.path for group in (*tables, *parts, *views)), *([plan_path(plan)] if plan else [])]

    def part_counts(self, segment: int) -> TableCounts:
        """Lengths of the row axes of one segment, those of the batch plans included."""
        return replace(self.tables.counts(segment), plan_steps=self.counts.plan_steps)

    def view(self, view: View) -> ViewReader:
        """What is stored of `view`; raises DamagedCacheError, IdentityError if it is not that."""
        groups = groups_of(self.manifest.groups, VIEWS, view.name)
        manifests = [self.group_manifest(group.path) for group in groups]
        if [group.part.segment for group in groups] != list(range(max(len(groups), 1))):
            raise DamagedCacheError(
                f"{MANIFEST} of {self.path.name} names no {view_path(view.name)} over all rows up to its "
                "last; pull the cache again"
            )
        lengths = [segment.video[1] - segment.video[0] for segment in self.tables.segments]
        return ViewReader(self.path, view, manifests, lengths)

    def group_manifest(self, path: str) -> Manifest:
        """The manifest of a view, teacher or batch plan, held to its digest; its files to it."""
        if path not in self.manifest.groups:
            raise DamagedCacheError(f"{MANIFEST} of {self.path.name} names no {path}; pull the cache again")
        if not self.partial.has(path):
            raise self.partial.missing(f"{path} of {self.path.name}", "with a --teacher that needs it")
        if self._streamed is not None:
            self._streamed.fetch_group(path)
        manifest = Manifest.read(self.path, path, self.manifest.groups[path])
        manifest.check(self.path)
        return manifest


def no_cache(path: Path) -> MissingFileError:
    """The error for a folder that is no cache."""
    folder, pin, name = str(path).rpartition("@")
    if pin and Path(folder).is_dir():
        return MissingFileError(
            f"no cache at {path}; a state of a shared folder is named by a URL: file://{folder}@{name}"
        )
    return MissingFileError(f"no cache at {path}; make one with: make dump-teacher CACHE={path}")


def read_root(path: Path) -> Mapping[str, Any]:
    """The attributes of the cache at `path`, complete or not.

    Raises MissingFileError if there is none, IdentityError for another format.
    """
    if not (path / "zarr.json").is_file():
        raise no_cache(path)
    require_plain_tree(path)
    root = read_attributes(path, "")
    if not {"format", "version", "state", "dataset"} <= root.keys():
        raise DamagedCacheError(f"{path / 'zarr.json'} is not a cache's; restore it from a good copy")
    require_same(
        {"format": root["format"], "version": root["version"]},
        {"format": FORMAT_NAME, "version": FORMAT_VERSION},
        f"the format of {path.name}",
        "use the release that wrote it, or dump it anew",
    )
    if root["state"] not in STATES:
        raise DamagedCacheError(f"{path.name} has no state {shown(root['state'])}; pull it again")
    check_dataset(root["dataset"])
    return root


def open_cache(path: Path | str, digest: str | None = None) -> Cache:
    """Open the complete cache at `path`; with `digest`, as it was when that was its digest.

    path: a folder, or a URL (`s3://bucket/name.zarr`, `...@sha256:<digest>`, `...@tag`), which is streamed:
    see `store.remote.streaming`. Raises MissingFileError if there is none, IncompleteCacheError if its dump
    is unfinished, IdentityError for another format or another cache than `digest` names, DamagedCacheError if
    tables or manifest changed.
    """
    if is_url(str(path)):
        from store.remote.streaming import open_url

        return open_url(str(path), digest)
    return open_folder(Path(path), digest)


def open_folder(path: Path, digest: str | None = None, streamed: StreamedCache | None = None) -> Cache:
    """What `open_cache` does; streamed: who fetches what of the folder is not here."""
    root = read_root(path)
    if not (path / MANIFEST).is_file():
        raise IncompleteCacheError(
            f"{path} is unfinished ({root['state']}, no manifest); "
            "run the same dump command again, it resumes"
        )
    manifest = Manifest.read(path)
    if digest is not None:
        manifest = _as_of(path, manifest, digest)
    manifest.check(path)
    tables = Tables(path, read_datasets(path, manifest.groups))
    for group in groups_of(manifest.groups, TABLES):
        Manifest.read(path, group.path, manifest.groups[group.path]).check(path)
    require_arrays(path, table_arrays(tables.datasets))
    return Cache(path, manifest, tables, streamed)


def _as_of(path: Path, manifest: Manifest, digest: str) -> Manifest:
    state = manifest.as_of(digest)
    if state is None:
        raise IdentityError(
            f"{path.name} is {manifest.digest} and never was {digest}: another cache, or something was "
            "removed from it since; open the cache that the digest names"
        )
    return state
