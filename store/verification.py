"""One run of `verify` over a finished cache: every fault becomes a `Fault` that names its object.

Memory is bounded by the tables and by a few MB a thread.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from store.agreement import (
    Problem,
    ShardTable,
    check_plan_group,
    check_tables,
    check_teacher_group,
    check_view_group,
    view_of,
)
from store.contents import check_dataset, read_attributes, read_plan, table_counts
from store.durable import ObjectRecord
from store.errors import CacheError, DamagedCacheError, IncompleteCacheError
from store.inputs.view import View
from store.layout import COMPLETE, DUMPING, TeacherPlan, plan_path, teacher_path, view_path
from store.ledger import LEDGER
from store.lock import LOCK
from store.lookup import check_name
from store.manifest import MANIFEST, Manifest, digest_problem, is_group, is_outside, size_problem
from store.object_checks import ShardCheck, check_shard, read_arrays, shard_number
from store.partial import Partial
from store.parts import (
    FIRST,
    PLANS,
    TABLES,
    TEACHERS,
    VIEWS,
    Group,
    group_at,
    group_of,
    groups_of,
)
from store.reader import read_root
from store.segments import Tables, read_datasets
from store.shards import DTYPES, RowsArray
from store.signals import plan_of
from store.tables import read_batch_plan
from store.teacher_parts import whole_plan
from store.untrusted import FILE, NEITHER, Entry, entries

MOST_THREADS = 8
MOST_FAULTS = 10_000


@dataclass(frozen=True)
class Fault:
    """What is wrong with one object; `path` is relative to the cache."""

    path: str
    problem: str


@dataclass
class Report:
    """What `verify` found. faults: the first MOST_FAULTS of `count`; notes: what is no fault, but unchecked.

    objects: how many objects the manifests list, of which `read`, `bytes` in all, were held to their digest.
    """

    faults: list[Fault] = field(default_factory=list)
    count: int = 0
    notes: list[str] = field(default_factory=list)
    objects: int = 0
    read: int = 0
    bytes: int = 0

    def add(self, path: str, problem: object) -> None:
        self.count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(path, str(problem)))


class Verification:
    """One run of `verify`: the tree as it was found, and the report as it grows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.report = Report()
        self.tree: dict[str, Entry] = {entry.path: entry for entry in entries(root)}
        self.faulty: set[str] = set()
        self.partial = Partial.read(root)

    def add(self, path: str, problem: object) -> None:
        self.faulty.add(path)
        self.report.add(path, problem)

    def run(self, teacher: str | None, sample: float, progress: bool) -> Report:
        links = [entry.path for entry in self.tree.values() if entry.kind == NEITHER]
        for path in links:
            self.add(path, "is a link, a pipe or a device; a cache has plain files only")
        manifest = self._root_manifest()
        groups = self._selected(manifest, teacher)
        manifests = {"": manifest, **self._group_manifests(manifest, groups)}
        self._check_beyond(manifest, manifests)
        listed = [record for found in manifests.values() for record in found.objects]
        records = {record.path: record for record in listed if self.partial.has(record.path)}
        left_out = [record for record in listed if record.path not in records]
        self._note_partial(manifest, left_out)
        self.report.objects = len(records)
        self._check_sizes(records)
        metadata = [record for path, record in records.items() if path.endswith("zarr.json")]
        self._check_digests(metadata)
        sound = [record for record in metadata if record.path not in self.faulty]
        arrays = dict(read_arrays(self.root, sound, self.add))
        checks = [*self._check_data(records, arrays, sample, progress), *_not_here(left_out, arrays)]
        if not links:
            table = ShardTable(arrays, checks)
            self._check_agreement(manifests, self._broken(records, groups, table), table)
        return self.report

    def _root_manifest(self) -> Manifest:
        if MANIFEST in self.tree and self.tree[MANIFEST].kind == FILE:
            return Manifest.read(self.root)
        if read_root(self.root)["state"] == COMPLETE:
            raise DamagedCacheError(f"{MANIFEST} of {self.root.name} is missing; pull it again")
        raise IncompleteCacheError(f"{self.root} is unfinished; run the same dump command again, it resumes")

    def _selected(self, manifest: Manifest, teacher: str | None) -> list[str]:
        """The groups to check."""
        if teacher is None:
            return list(filter(self.partial.has, manifest.groups))
        if not self.partial.has(teacher_path(teacher)):
            raise self.partial.missing(f"teacher {teacher!r} of {self.root.name}", f"--teacher {teacher}")
        check_name("teacher", teacher, sorted({group.name for group in groups_of(manifest.groups, TEACHERS)}))
        chosen = [group.path for group in groups_of(manifest.groups, TABLES)]
        for group in groups_of(manifest.groups, TEACHERS, teacher):
            chosen.append(group.path)
            try:
                plan = read_plan(self.root, teacher, group.part)
            except CacheError:
                continue  # what is wrong with its attributes comes out when they are checked
            plans = {plan_of(spec.name) for spec in plan.signals} - {None}
            chosen += [plan.view_path, *sorted(plan_path(str(name)) for name in plans)]
        return list(dict.fromkeys(chosen))

    def _group_manifests(self, manifest: Manifest, groups: Iterable[str]) -> dict[str, Manifest]:
        """The manifest of every group that has a sound one."""
        found = {}
        for group in groups:
            try:
                if f"{group}/{MANIFEST}" not in self.tree or group not in manifest.groups:
                    raise DamagedCacheError("is missing")
                found[group] = Manifest.read(self.root, group, manifest.groups[group])
            except CacheError as error:
                self.add(f"{group}/{MANIFEST}", error)
        return found

    def _note_partial(self, manifest: Manifest, left_out: list[ObjectRecord]) -> None:
        if self.partial.lacks:
            groups = [group for group in manifest.groups if not self.partial.has(group)]
            told = [f"{len(left_out):,} objects, {sum(record.bytes for record in left_out):,} bytes"]
            self.report.notes.append(
                f"a partial copy of {self.partial.source}: lacks {', '.join([*sorted(groups), *told])}"
            )

    def _check_beyond(self, manifest: Manifest, manifests: Mapping[str, Manifest]) -> None:
        """Files and empty folders that belong to nothing; unfinished groups are noted, not judged."""
        listed = {record.path for found in manifests.values() for record in found.objects}
        listed |= {f"{group}/{MANIFEST}" if group else MANIFEST for group in manifests}
        in_use = {folder for path in [*self.tree, *listed] for folder in _folders_of(path)}
        unfinished = set()
        for path, entry in self.tree.items():
            group = path if is_group(path) else group_of(path)
            unjudged = group in manifest.groups and group not in manifests
            if path in listed or is_outside(path) or unjudged or entry.kind == NEITHER:
                continue
            if group and group not in manifest.groups and self._is_unfinished(group):
                unfinished.add(f"{group} is unfinished and was not checked")
            elif path in (LOCK, LEDGER):
                unfinished.add(
                    f"{path} is there: another dump into this cache is under way or was interrupted"
                )
            elif entry.kind == FILE:
                self.add(path, "is in no manifest; delete it, or find out who added it")
            elif path not in in_use:
                self.add(path, "is an empty folder, and of nothing; delete it")
        self.report.notes += sorted(unfinished)

    def _is_unfinished(self, group: str) -> bool:
        """Whether a group outside the manifest is what a dump under way leaves, and a resume takes up."""
        found = group_at(group)
        assert found is not None
        try:
            attributes = read_attributes(self.root, group)
            if found.kind == PLANS:
                read_batch_plan(self.root, found.name)
            elif found.kind == VIEWS:
                View.from_dict(attributes.get("view"))
            elif found.kind == TEACHERS:
                TeacherPlan.from_dict(attributes)
            else:
                check_dataset(attributes.get("dataset"))
        except CacheError:
            # The zarr.json of a segment is written behind its tables.
            return found.kind == TABLES and f"{group}/zarr.json" not in self.tree
        if found.kind in (PLANS, TABLES) or attributes.get("state") == DUMPING:
            return True
        return attributes.get("state") == COMPLETE and LEDGER in self.tree

    def _check_sizes(self, records: Mapping[str, ObjectRecord]) -> None:
        for path, record in records.items():
            entry = self.tree.get(path)
            if entry is None or entry.kind != FILE:
                self.add(path, "is missing")
            elif problem := size_problem(self.root, record):
                self.add(path, problem)

    def _check_digests(self, records: Iterable[ObjectRecord]) -> None:
        for record in records:
            if record.path not in self.faulty:
                self._count(record)
                if problem := digest_problem(self.root, record):
                    self.add(record.path, problem)

    def _count(self, record: ObjectRecord) -> None:
        self.report.read += 1
        self.report.bytes += record.bytes

    def _check_data(
        self,
        records: Mapping[str, ObjectRecord],
        arrays: Mapping[str, RowsArray],
        sample: float,
        progress: bool,
    ) -> list[ShardCheck]:
        """Hold columns to their digests, then shards, in threads: hashing lets other threads run."""
        shards, columns, lost = [], [], []
        for path, record in records.items():
            folder = path.split("/c/")[0]
            array = arrays.get(folder) if "/c/" in path else None
            if array is None:
                columns += [] if path.endswith("zarr.json") else [record]
            elif (number := shard_number(record, folder, array)) is None:
                self.add(path, "is no chunk of its array")
            elif array.shard_rows is None:
                columns.append(record)
            elif path in self.faulty:
                lost.append(ShardCheck(folder, number, None, ("is missing or of another size",)))
            else:
                shards.append(record)
        self._check_digests(columns)
        return lost + self._check_shards(shards, arrays, sample, progress)

    def _check_shards(
        self, records: list[ObjectRecord], arrays: Mapping[str, RowsArray], sample: float, progress: bool
    ) -> list[ShardCheck]:
        chosen = random.Random()
        read = {record.path for record in records if chosen.random() < sample}
        total = sum(record.bytes for record in records if record.path in read)
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        found = []
        bar = tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=None if progress else True)
        with bar, ThreadPoolExecutor(threads) as pool:

            def check(record: ObjectRecord) -> ShardCheck:
                array = arrays[record.path.split("/c/")[0]]
                finite = record.path.startswith("teachers/") and DTYPES[array.dtype].kind == "f"
                return check_shard(self.root, record, array, record.path in read, finite)

            for record, result in zip(records, pool.map(check, records), strict=True):
                found.append(result)
                if record.path in read:
                    self._count(record)
                    bar.update(record.bytes)
                if result.problems:
                    self.add(record.path, "; ".join(result.problems))
        return found

    def _broken(
        self, records: Mapping[str, ObjectRecord], groups: Iterable[str], shards: ShardTable
    ) -> set[str]:
        """The groups ("" for the tables) that have a faulty table or metadata, not merely a faulty shard."""
        broken = {group for group in groups if f"{group}/{MANIFEST}" in self.faulty}
        for path in self.faulty & records.keys():
            array = shards.arrays.get(path.split("/c/")[0])
            if array is None or array.shard_rows is None or path.endswith("zarr.json"):
                broken.add(group_of(path))
        return broken

    def _check_agreement(
        self, manifests: Mapping[str, Manifest], broken: set[str], shards: ShardTable
    ) -> None:
        """Whether tables, views and teachers fit; what stands on a broken group is not asked."""
        tables_of = {group.path for group in groups_of(manifests, TABLES)} | {""}
        if tables_of & broken:
            return
        read_root(self.root)
        try:
            tables = Tables(self.root, read_datasets(self.root, manifests))
        except CacheError as error:
            self.add("tables", error)
            return
        if not self._collect("", check_tables(tables)):
            return
        sound = set(tables_of)
        order = (PLANS, VIEWS, TEACHERS)  # a teacher's rows follow from the other two
        found = [group for kind in order for group in groups_of(manifests, kind) if group.path not in broken]
        for group in found:
            try:
                problems = self._group_problems(group, tables, sound, manifests, shards)
            except CacheError as error:
                self.add(f"{group.path}/zarr.json", error)
                continue
            if self._collect(group.path, problems):
                sound.add(group.path)

    def _group_problems(
        self,
        group: Group,
        tables: Tables,
        sound: Iterable[str],
        manifests: Mapping[str, Manifest],
        shards: ShardTable,
    ) -> Iterable[Problem]:
        if group.part.segment >= len(tables.segments):
            raise DamagedCacheError(f"there is no segment {group.part.segment}")
        steps = table_counts(self.root, tables.dataset, sound).plan_steps
        counts = replace(tables.counts(group.part.segment), plan_steps=steps)
        if group.kind == PLANS:
            return check_plan_group(tables, group.name)
        if group.kind == VIEWS:
            view = view_of(self.root, group)
            return check_view_group(self.root, view, counts.videos, group.path, shards)
        plan = read_plan(self.root, group.name, group.part)
        needed = {view_path(plan.view.name, number) for number in range(group.part.segment + 1)}
        needed |= {plan_path(batches) for spec in plan.signals if (batches := plan_of(spec.name))}
        if plan.part != FIRST:
            needed.add(teacher_path(plan.name))
            earlier = [
                part
                for part in groups_of(manifests, TEACHERS, group.name)
                if part.path in {*sound, group.path}
            ]
            whole_plan(self.root, [read_plan(self.root, part.name, part.part) for part in earlier])
        for other in sorted(needed - set(sound)):
            self._require_listed(other, manifests)
        return check_teacher_group(tables, plan, counts, shards) if needed <= set(sound) else ()

    def _require_listed(self, group: str, manifests: Mapping[str, Manifest]) -> None:
        if f"{group}/{MANIFEST}" not in self.faulty and group not in manifests:
            self.add(MANIFEST, f"names no {group}, which a teacher needs")

    def _collect(self, group: str, problems: Iterable[Problem]) -> bool:
        """Add every problem; whether there was none."""
        before = self.report.count
        try:
            for path, problem in problems:
                self.add(path, problem)
        except CacheError as error:
            self.add(group or "tables", error)
        return self.report.count == before


def _not_here(left_out: Iterable[ObjectRecord], arrays: Mapping[str, RowsArray]) -> Iterator[ShardCheck]:
    """What is known of the shards that a partial copy left out: nothing."""
    for record in left_out:
        folder = record.path.split("/c/")[0]
        number = shard_number(record, folder, arrays[folder]) if folder in arrays else None
        if number is not None:
            yield ShardCheck(folder, number, None, ())


def _folders_of(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
