"""Writing a cache: tables, then whole shards through the ledger, then manifests.

`CacheWriter` is the coordinator: one process holds the lock, appends to the ledger, and completes.
Shards themselves are written by `store.shards.write_shard`, by any process, to disjoint files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from store.durable import PARTIAL_SUFFIX, ObjectRecord, canonical_json, read_json, record_file, write_file
from store.encodings import ErrorSum
from store.errors import IncompleteCacheError, InputError
from store.identity import require_same
from store.inputs.samples import Samples
from store.layout import (
    COMPLETE,
    DUMPING,
    FORMAT_NAME,
    FORMAT_VERSION,
    PLANNED,
    TeacherPlan,
    check_path_name,
    dataset_attributes,
    group_json,
    signal_array,
    teacher_path,
    view_arrays,
    view_path,
)
from store.ledger import Commit, Ledger
from store.lock import WriterLock
from store.manifest import MANIFEST, Manifest
from store.sharded_rows import ShardedRows
from store.shards import RowsArray
from store.tables import read_column, write_samples, write_video_facts

TABLES_TASK = "tables"


class CacheWriter:
    """The one process that may change the cache at `root`; a context manager that holds its lock.

    Creates the cache with the tables of `samples`, or opens it: then its dataset must be the same.
    Raises LockedCacheError, IdentityError (naming the field), DamagedCacheError.
    """

    def __init__(self, root: Path, samples: Samples) -> None:
        for split in samples.splits:
            check_path_name("split", split)
        if root.exists() and not root.is_dir():
            raise InputError(f"{root} is a file; a cache is a folder, name another")
        if root.is_dir() and not (root / "zarr.json").exists() and any(root.iterdir()):
            self._require_own_leftovers(root)
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.samples = samples
        self._lock = WriterLock(root)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    @staticmethod
    def _require_own_leftovers(root: Path) -> None:
        """A folder without zarr.json must hold nothing but a cache that was killed while planned."""
        own = {
            "videos",
            "texts",
            "splits",
            "views",
            "teachers",
            "ledger.jsonl",
            "writer.lock",
            "zarr.json",
        }
        names = (entry.name.removesuffix(PARTIAL_SUFFIX) for entry in root.iterdir())
        foreign = sorted(name for name in names if name not in own)
        if foreign:
            raise InputError(f"{root} holds {foreign[0]!r} and is no cache; name a new or empty folder")

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _open(self) -> None:
        self._published = Manifest.read(self.root) if (self.root / MANIFEST).exists() else None
        attributes = dataset_attributes(self.samples)
        if (self.root / "zarr.json").exists():
            stored = read_json(self.root / "zarr.json")["attributes"]
            require_same(
                {key: stored["dataset"][key] for key in ("name", "videos", "texts", "splits", "rows_sha256")},
                {key: attributes[key] for key in ("name", "videos", "texts", "splits", "rows_sha256")},
                f"the dataset of {self.root.name}",
                "dump into another CACHE, or restore the dataset's files",
            )
        self.ledger = Ledger(self.root, repair=True)
        leftover = all(c.task == TABLES_TASK or self.is_complete(c.teacher) for c in self.ledger)
        if self._published is not None and leftover:
            self.ledger.delete()
        if self._published is None and TABLES_TASK not in self.ledger:
            self.ledger.append(Commit(TABLES_TASK, tuple(self._write_tables())))
        if not (self.root / "zarr.json").exists():
            self._write_root(attributes, PLANNED)

    def _write_root(self, dataset: dict[str, Any], state: str) -> None:
        root = {"format": FORMAT_NAME, "version": FORMAT_VERSION, "state": state, "dataset": dataset}
        write_file(self.root / "zarr.json", canonical_json(group_json(root)))

    def _write_tables(self) -> Iterable[ObjectRecord]:
        splits = [f"splits/{name}" for name in self.samples.splits]
        for group in ("videos", "texts", "splits", *splits, "views", "teachers"):
            yield self._write_group(group, {})
        yield from write_samples(self.root, self.samples)

    def _write_group(self, path: str, attributes: dict[str, Any]) -> ObjectRecord:
        file = self.root / path / "zarr.json"
        write_file(file, canonical_json(group_json(attributes)))
        return record_file(self.root, file)

    def stored_plan(self, teacher: str) -> TeacherPlan | None:
        """The plan under which `teacher` was begun or finished, or None if it is new here."""
        file = self.root / teacher_path(teacher) / "zarr.json"
        return TeacherPlan.from_dict(read_json(file)["attributes"]) if file.exists() else None

    def is_complete(self, teacher: str) -> bool:
        return self._published is not None and teacher_path(teacher) in self._published.groups

    def view_is_complete(self, view: str) -> bool:
        return self._published is not None and view_path(view) in self._published.groups

    def plan(self, plan: TeacherPlan) -> None:
        """Fix `plan` before its first shard; raises IdentityError if the teacher was begun under another."""
        check_path_name("teacher", plan.name)
        check_path_name("view", plan.view.name)
        stored = self.stored_plan(plan.name)
        if stored is not None:
            wanted, found = plan.to_dict(), stored.to_dict()
            del wanted["provenance"], found["provenance"]
            require_same(
                found,
                wanted,
                f"teacher {plan.name!r} in {self.root.name}",
                "use the options that it was begun with, or dump into another CACHE",
            )
            return
        self._plan_view(plan)
        for spec in plan.signals:
            self._write_array(f"{teacher_path(plan.name)}/{spec.name}", self.signal_rows(plan, spec.name))
        for group in sorted({spec.name.split("/")[0] for spec in plan.signals if "/" in spec.name}):
            self._write_group(f"{teacher_path(plan.name)}/{group}", {})
        self._write_group(teacher_path(plan.name), {**plan.to_dict(), "state": DUMPING})
        if self._published is None:
            self._write_root(dataset_attributes(self.samples), DUMPING)

    def _plan_view(self, plan: TeacherPlan) -> None:
        file = self.root / view_path(plan.view.name) / "zarr.json"
        if file.exists():
            stored = read_json(file)["attributes"]
            require_same(
                stored["view"],
                plan.view.to_dict(),
                f"view {plan.view.name!r}",
                "give the new view another name",
            )
            if not self.view_is_complete(plan.view.name) and stored["dumped_with"] != plan.name:
                raise IncompleteCacheError(
                    f"view {plan.view.name!r} is being dumped with teacher {stored['dumped_with']!r}; "
                    "finish that dump first"
                )
            return
        for name, array in self.view_rows(plan).items():
            self._write_array(f"{view_path(plan.view.name)}/{name}", array)
        attributes = {"view": plan.view.to_dict(), "state": DUMPING, "dumped_with": plan.name}
        self._write_group(view_path(plan.view.name), attributes)

    def _write_array(
        self, path: str, array: RowsArray, attributes: dict[str, Any] | None = None
    ) -> ObjectRecord:
        file = self.root / path / "zarr.json"
        write_file(file, canonical_json(array.zarr_json(attributes or {})))
        return record_file(self.root, file)

    def view_rows(self, plan: TeacherPlan) -> dict[str, RowsArray]:
        """The arrays of the plan's view, by name."""
        return view_arrays(plan.view, len(self.samples.videos), plan.execution["shard_rows"]["videos"])

    def signal_rows(self, plan: TeacherPlan, signal: str) -> RowsArray:
        """The array of one of the plan's signals."""
        spec = next(spec for spec in plan.signals if spec.name == signal)
        shard_rows = plan.execution["shard_rows"][plan.execution["phase_of"][signal]]
        return signal_array(spec, len(self.samples.videos), len(self.samples.texts), shard_rows)

    def commit(self, commit: Commit) -> None:
        """Append to the ledger, unless another writer took the lock over."""
        self._lock.check()
        self.ledger.append(commit)

    def complete(self, plan: TeacherPlan, tasks: Iterable[str]) -> None:
        """Publish the teacher and its view: every one of `tasks` must stand in the ledger.

        Raises IncompleteCacheError naming a task that is missing, or if rows neither written nor
        listed as failures remain.
        """
        self._lock.check()
        missing = sorted(task for task in tasks if task not in self.ledger)
        if missing:
            raise IncompleteCacheError(
                f"{self.root.name} lacks task {missing[0]!r} ({len(missing)} in all); resume"
            )
        commits = [self.ledger[task] for task in tasks]
        groups = dict(self._published.groups) if self._published else {}
        if not self.view_is_complete(plan.view.name):
            groups[view_path(plan.view.name)] = self._complete_view(plan, commits)
        groups[teacher_path(plan.name)] = self._complete_teacher(plan, commits)
        tables = self._published.objects if self._published else self._complete_root()
        manifest = Manifest.of(tables, groups)
        manifest.write(self.root)
        self._published = manifest
        self.ledger.delete()

    def _complete_root(self) -> list[ObjectRecord]:
        self._write_root(dataset_attributes(self.samples), COMPLETE)
        return [*self.ledger[TABLES_TASK].objects, record_file(self.root, self.root / "zarr.json")]

    def _complete_view(self, plan: TeacherPlan, commits: list[Commit]) -> str:
        path = view_path(plan.view.name)
        facts = {video.row: video for commit in commits for video in commit.videos}
        videos = len(self.samples.videos)
        if sorted(facts) != list(range(videos)):
            row = next(row for row in range(videos) if row not in facts)
            raise IncompleteCacheError(f"video row {row} was neither written nor listed as a failure; resume")
        ordered = [facts[row] for row in range(videos)]
        records = [
            record for commit in commits for record in commit.objects if record.path.startswith(path + "/")
        ]
        records += [
            self._write_array(f"{path}/{name}", array) for name, array in self.view_rows(plan).items()
        ]
        records += write_video_facts(self.root, path, ordered)
        attributes = {
            "view": plan.view.to_dict(),
            "state": COMPLETE,
            "dumped_with": plan.name,
            "failures": sum(bool(video.failure) for video in ordered),
        }
        records.append(self._write_group(path, attributes))
        return self._write_manifest(path, records)

    def _complete_teacher(self, plan: TeacherPlan, commits: list[Commit]) -> str:
        path = teacher_path(plan.name)
        records = [
            record for commit in commits for record in commit.objects if record.path.startswith(path + "/")
        ]
        self._require_coverage(plan)
        for spec in plan.signals:
            error = sum((c.errors[spec.name] for c in commits if spec.name in c.errors), ErrorSum())
            attributes = {"encoding_relative_l2": error.relative_l2, "encoding_max_abs": error.max_abs_error}
            records.append(
                self._write_array(f"{path}/{spec.name}", self.signal_rows(plan, spec.name), attributes)
            )
        for group in sorted({spec.name.split("/")[0] for spec in plan.signals if "/" in spec.name}):
            records.append(self._write_group(f"{path}/{group}", {}))
        records.append(self._write_group(path, {**plan.to_dict(), "state": COMPLETE}))
        return self._write_manifest(path, records)

    def _require_coverage(self, plan: TeacherPlan) -> None:
        """Expected rows = written rows + listed failures, signal by signal; else IncompleteCacheError."""
        usable = ~read_column(self.root, f"{view_path(plan.view.name)}/failed")
        own_video = np.array([text.video for text in self.samples.texts], dtype=np.int64)
        for spec in plan.signals:
            expected = usable if spec.row_axis == "V" else np.ones(len(own_video), dtype=bool)
            if spec.name == "frame_relevance":
                expected = (own_video >= 0) & usable[own_video]
            present = ShardedRows(self.root, f"{teacher_path(plan.name)}/{spec.name}").present
            if (present != expected).any():
                row = int(np.argmax(present != expected))
                raise IncompleteCacheError(
                    f"teacher {plan.name!r}, signal {spec.name!r}: row {row} is "
                    f"{'there but its video failed' if present[row] else 'missing'}; dump into another CACHE"
                )

    def _write_manifest(self, path: str, records: Iterable[ObjectRecord]) -> str:
        manifest = Manifest.of(records)
        manifest.write(self.root / path)
        return manifest.digest
