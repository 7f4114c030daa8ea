"""Writing a cache: tables, then whole shards through the ledger, then manifests.

`CacheWriter` is the coordinator: one process holds the lock, appends to the ledger, and completes.
Shards themselves are written by `store.shards.ShardFile`, by any process, to disjoint files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from store.cache_state import CacheState, require_cache_folder
from store.contents import check_dataset, read_attributes
from store.durable import PARTIAL_SUFFIX, ObjectRecord, record_file
from store.errors import IncompleteCacheError
from store.identity import require_same
from store.inputs.samples import Samples, Split
from store.layout import (
    COMPLETE,
    DATASET_IDENTITY,
    DUMPING,
    FORMAT_NAME,
    FORMAT_VERSION,
    PLANNED,
    TableCounts,
    TeacherPlan,
    check_path_name,
    plan_path,
)
from store.ledger import LEDGER, Commit, Ledger
from store.lock import BEAT_S, WriterLock
from store.manifest import MANIFEST, Manifest
from store.parts import Part, group_of_task, segment_folder
from store.plans import PlannedBatches
from store.publication import (
    planned_view_arrays,
    publish_teacher,
    publish_view,
    write_array,
    write_group,
    write_manifest,
    write_signal,
)
from store.signals import named_groups, plan_of
from store.tables import read_batch_plan, write_column, write_samples
from store.untrusted import require_plain_tree

TABLES_TASK = "tables"


class CacheWriter(CacheState):
    """The one process that may change the cache at `root`; a context manager that holds its lock.

    Creates the cache with the tables of `samples`, or opens it: then its dataset must be the same. extend: to
    a finished cache, rows of `samples` may come behind those that it has. beat_s: seconds between the lock's
    heartbeats; who died is taken over after five.
    Raises LockedCacheError, IdentityError (naming the field), DamagedCacheError.
    """

    def __init__(self, root: Path, samples: Samples, beat_s: float = BEAT_S, extend: bool = False) -> None:
        require_cache_folder(root, samples)
        root.mkdir(parents=True, exist_ok=True)
        require_plain_tree(root)
        self._lock = WriterLock(root, beat_s)
        try:
            super().__init__(root, samples, extend)
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _open(self) -> None:
        self._batch_plans = {
            file.parent.name: read_batch_plan(self.root, file.parent.name)
            for file in (self.root / "plans").glob(f"*/{MANIFEST}")
        }
        self._sweep()
        self.ledger = Ledger(self.root, repair=True)
        if self.published is not None and (self.root / LEDGER).exists():
            self.ledger.forget(commit.task for commit in self.ledger if self._is_past(commit))
        if self.published is None and TABLES_TASK not in self.ledger:
            self.ledger.append(Commit(TABLES_TASK, tuple(self._write_tables())))
        if not (self.root / "zarr.json").exists():
            self._write_root(self.dataset, PLANNED)
        if len(self.segments) > 1:
            self._write_segment()

    def _is_past(self, commit: Commit) -> bool:
        """Whether a task of a finished cache vouches for nothing: it was published, or its folder is gone."""
        assert self.published is not None
        group = group_of_task(commit.task)
        there = (self.root / group.path / "zarr.json").is_file()
        return commit.task == TABLES_TASK or group.path in self.published.groups or not there

    def _sweep(self) -> None:
        """Remove what killed processes left aside; one that still runs finds its file gone and stops."""
        segments = [segment_folder(number) for number in range(len(self.segments))]
        for folder in (f"{segment}{kind}" for segment in segments for kind in ("views", "teachers", "plans")):
            for aside in (self.root / folder).rglob(f"*{PARTIAL_SUFFIX}"):
                aside.unlink(missing_ok=True)

    def _write_segment(self) -> None:
        """Write the tables of the last segment, unless they are there; a teacher over them publishes them."""
        number = len(self.segments) - 1
        folder = segment_folder(number)
        path = folder.strip("/")
        assert self.published is not None
        if path in self.published.groups:
            return
        if (self.root / path / MANIFEST).exists():
            begun = read_attributes(self.root, path).get("dataset")
            check_dataset(begun)
            assert begun is not None
            require_same(
                {key: begun[key] for key in DATASET_IDENTITY},
                {key: self.dataset[key] for key in DATASET_IDENTITY},
                f"the extension of {self.root.name} that was begun",
                f"finish it with the dataset it was begun with, or delete its folder {path} to give it up",
            )
            return
        self._clear(path)
        groups = ["videos", "texts", "splits", *(f"splits/{name}" for name in self.samples.splits), "views"]
        records = [write_group(self.root, f"{folder}{group}", {}) for group in (*groups, "teachers")]
        records += write_samples(self.root, self.samples, self.segments[-1], self._stored_splits(), folder)
        records.append(write_group(self.root, path, {"dataset": self.dataset}))
        write_manifest(self.root, path, records)

    def _stored_splits(self) -> dict[str, Split]:
        """Rows of the splits that stand in tables already."""
        assert self.tables is not None
        return {name: self.tables.split(name) for name in self.tables.dataset["splits"]}

    def _write_root(self, dataset: dict[str, Any], state: str) -> None:
        root = {"format": FORMAT_NAME, "version": FORMAT_VERSION, "state": state, "dataset": dataset}
        write_group(self.root, "", root)

    def _write_tables(self) -> Iterable[ObjectRecord]:
        splits = [f"splits/{name}" for name in self.samples.splits]
        for group in ("videos", "texts", "splits", *splits, "views", "teachers", "plans"):
            yield write_group(self.root, group, {})
        yield from write_samples(self.root, self.samples, self.segments[0], {})

    def plan(self, plan: TeacherPlan) -> None:
        """Fix `plan` before its first shard, unless it is fixed; raises as `check_plan`."""
        if self.check_plan(plan):
            return
        self._clear(plan.path)
        self._plan_view(plan)
        for spec in plan.signals:
            if plan_of(spec.name) is None:
                write_signal(self.root, plan, spec, self.part_counts(plan.part))
        for group in named_groups([spec.name for spec in plan.signals]):
            write_group(self.root, f"{plan.path}/{group}", {})
        write_group(self.root, plan.path, {**plan.to_dict(), "state": DUMPING})
        if self.published is None:
            self._write_root(self.dataset, DUMPING)

    def _plan_view(self, plan: TeacherPlan) -> None:
        if self.view_is_complete(plan.view.name, plan.part.segment):
            return
        self._clear(plan.view_path)
        for name, array in planned_view_arrays(plan, self.part_counts(plan.part)).items():
            write_array(self.root, f"{plan.view_path}/{name}", array)
        attributes = {"view": plan.view.to_dict(), "state": DUMPING, "dumped_with": plan.name}
        write_group(self.root, plan.view_path, attributes)

    def _clear(self, group: str) -> None:
        """Remove what a kill amid planning left of a group: metadata, perhaps of another plan."""
        if (self.root / group).exists():
            shutil.rmtree(self.root / group)

    @property
    def counts(self) -> TableCounts:
        """Lengths of the row axes, those of the batch plans included."""
        steps = {name: batches.steps for name, batches in self._batch_plans.items()}
        return TableCounts(len(self.samples.videos), len(self.samples.texts), steps)

    def part_counts(self, part: Part) -> TableCounts:
        """Lengths of the row axes of a part's segment, and how many rows come before it."""
        return replace(super().part_counts(part), plan_steps=self.counts.plan_steps)

    def add_batch_plan(self, name: str, batches: PlannedBatches) -> None:
        """Store a batch plan before the signals whose rows are its steps.

        Raises IdentityError if another plan has that name. It is published with the first teacher that
        uses it.
        """
        path = plan_path(check_path_name("batch plan", name))
        if name in self._batch_plans:
            stored = self._batch_plans[name]
            same = np.array_equal(stored.text, batches.text) and np.array_equal(stored.video, batches.video)
            require_same(
                {**stored.to_dict(), "text_rows": "the stored ones"},
                {**batches.to_dict(), "text_rows": "the stored ones" if same else "other ones"},
                f"batch plan {name!r} in {self.root.name}",
                "give the new plan another name",
            )
            return
        records = [
            *write_column(self.root, f"{path}/video", batches.video, ("S", "B")),
            *write_column(self.root, f"{path}/text", batches.text, ("S", "B")),
            write_group(self.root, path, {"plan": batches.to_dict()}),
        ]
        write_manifest(self.root, path, records)
        self._batch_plans[name] = batches

    @property
    def token(self) -> str:
        """By which workers know that this writer still holds the lock: see `store.lock.require_writer`."""
        return self._lock.token

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
        self._sweep()
        commits = [self.ledger[task] for task in tasks]
        counts, groups = self.part_counts(plan.part), {}
        if not self.view_is_complete(plan.view.name, plan.part.segment):
            groups[plan.view_path] = publish_view(self.root, plan, counts, commits)
        groups[plan.path] = publish_teacher(self.root, plan, self.samples, counts, commits)
        needed = [plan_path(name) for spec in plan.signals if (name := plan_of(spec.name)) is not None]
        if plan.part.segment:
            needed.append(segment_folder(plan.part.segment).strip("/"))
        known = self.published.groups if self.published else {}
        for path in sorted(set(needed) - known.keys()):
            groups[path] = Manifest.read(self.root, path).digest
        if self.published is None:
            manifest = Manifest.of(self._complete_root(), groups)
        else:
            manifest = self.published.extended(groups)
        manifest.write(self.root)
        self.published = manifest
        self.ledger.forget([TABLES_TASK, *(commit.task for commit in commits)])

    def _complete_root(self) -> list[ObjectRecord]:
        self._write_root(self.dataset, COMPLETE)
        return [*self.ledger[TABLES_TASK].objects, record_file(self.root, self.root / "zarr.json")]
