"""A dump as it would be run, looked up without a lock and without writing anything: `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.contents import read_attributes
from store.identity import require_same
from store.inputs.samples import Samples
from store.kept_pixels import KeptPixels
from store.layout import (
    DATASET_IDENTITY,
    TableCounts,
    TeacherPlan,
    dataset_attributes,
    view_path,
)
from store.ledger import Ledger
from store.manifest import MANIFEST, Manifest
from store.parts import FIRST, TEACHERS, Group, Part
from store.segments import read_datasets
from teacher_dump.dump import make_plan
from teacher_dump.plan import PHASE_AXIS, ShardTask, planned_tasks, shard_tasks
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import Teacher
from teacher_dump.workers.executors import Executor

UNIT = {"V": "videos", "T": "texts", "S": "steps", "P": "rows"}


class CacheState:
    """What a dump of `samples` would find at `root`: nothing, a finished cache, or one half dumped.

    Raises IdentityError if another dataset lies there, DamagedCacheError for a damaged ledger.
    """

    def __init__(self, root: Path, samples: Samples) -> None:
        self.root = root
        self.samples = samples
        self._published = Manifest.read(root) if (root / MANIFEST).is_file() else None
        if (root / "zarr.json").is_file():
            groups = {} if self._published is None else self._published.groups
            stored = read_datasets(root, groups)[-1]
            wanted = dataset_attributes(samples, stored["segments"][:-1])
            require_same(
                {key: stored[key] for key in DATASET_IDENTITY},
                {key: wanted[key] for key in DATASET_IDENTITY},
                f"the dataset of {root.name}",
                "dump into another CACHE, or restore the dataset's files",
            )
        self.ledger = Ledger(root)

    def stored_plan(self, teacher: str, part: Part = FIRST) -> TeacherPlan | None:
        """The plan under which `teacher` was begun or finished, or None if it is new here."""
        path = Group(TEACHERS, teacher, part).path
        if not (self.root / path / "zarr.json").is_file():
            return None
        return TeacherPlan.from_dict(read_attributes(self.root, path), part)

    def is_complete(self, teacher: str, part: Part = FIRST) -> bool:
        path = Group(TEACHERS, teacher, part).path
        return self._published is not None and path in self._published.groups

    def part_counts(self, part: Part) -> TableCounts:
        """Lengths of the row axes: all rows, since a dump that is planned here appends none."""
        return TableCounts(len(self.samples.videos), len(self.samples.texts))

    def kept_pixels(self, view: str) -> KeptPixels | None:
        """How the finished view keeps its frames; None if it keeps none."""
        told = read_attributes(self.root, view_path(view)).get("pixels")
        return None if told is None else KeptPixels.from_dict(told)

    def view_is_complete(self, view: str) -> bool:
        return self._published is not None and view_path(view) in self._published.groups


@dataclass(frozen=True)
class PlannedDump:
    """plan: of the one teacher. tasks: all of them, in order; done: names of those that are finished.

    text_videos: how many texts have a video of their own. view_is_complete: its frames are stored already.
    """

    cache: str
    dataset: str
    plan: TeacherPlan
    counts: TableCounts
    text_videos: int
    tasks: tuple[ShardTask, ...]
    done: frozenset[str]
    view_is_complete: bool

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(task.phase for task in self.tasks))

    def rows(self, phase: str) -> int:
        return sum(task.stop - task.start for task in self.tasks if task.phase == phase)

    def rows_left(self, phase: str) -> int:
        """Rows of the phase in tasks that are not finished."""
        return sum(
            task.stop - task.start
            for task in self.tasks
            if task.phase == phase and task.name not in self.done
        )

    def share_left(self, phase: str) -> float:
        return self.rows_left(phase) / max(self.rows(phase), 1)

    def shards_left(self, phase: str) -> int:
        return sum(task.phase == phase and task.name not in self.done for task in self.tasks)

    def signals_of(self, phase: str) -> list[str]:
        return [name for name, own in self.plan.execution["phase_of"].items() if own == phase]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: cache, dataset, teacher, view, signals, execution, tasks {name, phase, number, start,
        stop, done}."""
        return {
            "cache": self.cache,
            "dataset": {"name": self.dataset, "videos": self.counts.videos, "texts": self.counts.texts},
            "teacher": self.plan.name,
            "view": self.plan.view.to_dict(),
            "signals": [spec.to_dict() for spec in self.plan.signals],
            "pair_scores": self.plan.pair_scores.to_dict(),
            "execution": dict(self.plan.execution),
            "tasks": [
                {
                    "name": task.name,
                    "phase": task.phase,
                    "number": task.number,
                    "start": task.start,
                    "stop": task.stop,
                    "done": task.name in self.done,
                }
                for task in self.tasks
            ],
        }

    def lines(self) -> Iterator[str]:
        plan = self.plan
        yield (
            f"{self.cache}: dataset {self.dataset}, {self.counts.videos:,} videos, "
            f"{self.counts.texts:,} texts; teacher {plan.name}, view {plan.view.name}"
        )
        told = ", ".join(
            f"{name} {value}"
            for name, value in plan.execution.items()
            if not isinstance(value, Mapping) and value is not None
        )
        yield f"  fixed: {told}; pair scores {plan.pair_scores.layout}"
        for phase in self.phases:
            tasks = [task for task in self.tasks if task.phase == phase]
            left = self.shards_left(phase)
            done = f" ({len(tasks) - left} done)" if left < len(tasks) else ""
            unit = UNIT[PHASE_AXIS.get(phase, "V")]
            yield f"  {phase}: {len(tasks)} tasks{done}, {self.rows(phase):,} {unit}"
            if signals := self.signals_of(phase):
                yield f"      writes {', '.join(signals)}"
            for task in tasks:
                mark = "done" if task.name in self.done else "to do"
                yield f"      {task.name:32} rows {task.start:,} to {task.stop - 1:,}  {mark}"


def planned_dump(
    root: Path, samples: Samples, teacher: Teacher, settings: DumpSettings, executor: Executor
) -> PlannedDump:
    """What `teacher_dump.dump.dump` would do with the same arguments; raises as its planning does."""
    state = CacheState(root, samples)
    plan = make_plan(state, teacher, settings, executor)
    tasks, steps = tuple(shard_tasks(plan, {"V": len(samples.videos), "T": len(samples.texts)})), {}
    if (batches := settings.pairs.plan) is not None:
        steps[batches.name] = batches.steps_at_most(samples)
        tasks += tuple(planned_tasks(plan, steps[batches.name]))
    everything = state.is_complete(plan.name)
    return PlannedDump(
        root.name,
        samples.name,
        plan,
        TableCounts(len(samples.videos), len(samples.texts), steps),
        sum(text.video >= 0 for text in samples.texts),
        tasks,
        frozenset(task.name for task in tasks if everything or task.name in state.ledger),
        state.view_is_complete(plan.view.name),
    )
