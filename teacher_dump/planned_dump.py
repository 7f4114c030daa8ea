"""A dump as it would be run, looked up without a lock and without writing anything: `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store.cache_state import CacheState, require_cache_folder
from store.inputs.samples import Samples
from store.kept_pixels import KeptPixels
from store.layout import TableCounts, TeacherPlan, view_path
from store.ledger import Ledger
from store.parts import Part
from store.signals import SignalSpec
from teacher_dump.dump import make_plan, tasks_of_part
from teacher_dump.extend import parts_to_dump
from teacher_dump.pairs.layouts import BatchOptions, is_of_all_rows
from teacher_dump.plan import PHASE_AXIS, ShardTask, planned_tasks
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import Teacher
from teacher_dump.workers.executors import Executor

UNIT = {"V": "videos", "T": "texts", "S": "steps", "P": "rows"}


class DumpState(CacheState):
    """What a dump under `settings` would find at `root`, and which of its tasks are done.

    Raises InputError where no cache can lie.
    """

    def __init__(self, root: Path, samples: Samples, settings: DumpSettings, extend: bool) -> None:
        require_cache_folder(root, samples)
        super().__init__(root, samples, extend)
        self.ledger = Ledger(root)
        self._pixels = settings.storage.pixels

    def kept_pixels(self, view: str) -> KeptPixels | None:
        """How the view keeps its frames, or will keep them if it is not there yet."""
        is_there = (self.root / view_path(view)).is_dir()
        return super().kept_pixels(view) if is_there else self._pixels


@dataclass(frozen=True)
class PlannedDump:
    """One part of a teacher. plan: of the part. tasks: all of them, in order; done: names of those that are
    finished.

    counts: of the part's rows, and how many come before them; text_videos: how many of its texts have a video
    of their own. view_is_complete, has_tables: frames, or the rows themselves, are stored already.
    left_as_is: signals of the teacher that don't go on with appended rows.
    """

    cache: str
    dataset: str
    plan: TeacherPlan
    counts: TableCounts
    text_videos: int
    tasks: tuple[ShardTask, ...]
    done: frozenset[str]
    view_is_complete: bool
    has_tables: bool = False
    left_as_is: tuple[str, ...] = ()

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

    @property
    def rows_told(self) -> str:
        """ "8 videos, 8 texts", and whether they, or only signals of them, come behind what is there."""
        of_rows = f"{self.counts.videos:,} videos and {self.counts.texts:,} texts"
        part = self.plan.part
        return of_rows + " appended" * bool(part.segment) + ", signals added" * bool(part.addition)

    def notes(self) -> Iterator[str]:
        """A line on what an extension leaves as it is, and the way out."""
        if self.left_as_is:
            more = f" and {len(self.left_as_is) - 1} more" * (len(self.left_as_is) > 1)
            yield (
                f"  {self.left_as_is[0]}{more}: of the rows that it was drawn from, the appended ones are "
                "unknown to it; to have them in it, dump this teacher anew into another CACHE"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: cache, dataset, teacher, part, view, signals, execution, tasks {name, phase, number,
        start, stop, done}."""
        return {
            "cache": self.cache,
            "dataset": {"name": self.dataset, "videos": self.counts.videos, "texts": self.counts.texts},
            "teacher": self.plan.name,
            "part": {"segment": self.plan.part.segment, "addition": self.plan.part.addition},
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
            f"{self.cache}: dataset {self.dataset}, {self.rows_told}; teacher {plan.name}, "
            f"view {plan.view.name}"
        )
        yield from self.notes()
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


def planned_dumps(
    root: Path,
    samples: Samples,
    teacher: Teacher,
    settings: DumpSettings,
    executor: Executor,
    extend: bool = False,
) -> list[PlannedDump]:
    """What `teacher_dump.dump.dump` would do with the same arguments, part by part; raises as it does."""
    state = DumpState(root, samples, settings, extend)
    return [
        planned_part(state, teacher, settings, executor, part, signals)
        for part, signals in parts_to_dump(state, teacher, settings, extend)
    ]


def planned_part(
    state: DumpState,
    teacher: Teacher,
    settings: DumpSettings,
    executor: Executor,
    part: Part,
    signals: tuple[SignalSpec, ...],
) -> PlannedDump:
    """One part of a dump, with those of its tasks that are finished; raises as `CacheState.check_plan`."""
    plan = make_plan(state, teacher, settings, executor, part, signals)
    state.check_plan(plan)
    counts, steps = state.part_counts(part), {}
    tasks = tuple(tasks_of_part(plan, counts))
    if (wanted := plan.execution["pairs"]["plan"]) is not None:
        batches = BatchOptions(**wanted)
        steps[batches.name] = batches.steps_at_most(state.samples_of(part))
        tasks += tuple(planned_tasks(plan, steps[batches.name]))
    everything = state.is_complete(plan.name, part)
    texts = state.samples.texts[counts.first_text : counts.first_text + counts.texts]
    stored = state.stored_plan(plan.name) if part.segment and state.is_complete(plan.name) else None
    return PlannedDump(
        state.root.name,
        state.samples.name,
        plan,
        replace(counts, plan_steps=steps),
        sum(text.video >= 0 for text in texts),
        tasks,
        frozenset(task.name for task in tasks if everything or task.name in state.ledger),
        state.view_is_complete(plan.view.name, part.segment),
        state.has_tables(part.segment),
        tuple(spec.name for spec in stored.signals if is_of_all_rows(spec)) if stored else (),
    )
