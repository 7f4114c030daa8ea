"""Stage 1, the coordinator: plan or resume, run the tasks that are not finished, publish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from store.cache_state import CacheState
from store.durable import canonical_json, read_json, write_file
from store.inputs.decode_pool import Limits
from store.inputs.samples import Samples
from store.layout import TableCounts, TeacherPlan
from store.parts import FIRST, Part
from store.reader import Cache, open_cache
from store.signals import SignalSpec
from store.writer import CacheWriter
from teacher_dump.extend import parts_to_dump
from teacher_dump.pairs.layouts import BatchOptions
from teacher_dump.pairs.phases import draw_batches
from teacher_dump.pairs.plan import (
    block_of_part,
    most_rows_of_tasks,
    pairs_of_finished,
    pairs_of_part,
    plan_pairs,
    scores_pairs,
)
from teacher_dump.plan import PHASE_AXIS, ShardTask, execution, planned_tasks, shard_tasks
from teacher_dump.progress import Progress
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import Teacher
from teacher_dump.workers.executors import Executor, Run, SerialExecutor
from teacher_dump.workers.jobs import DumpJob, dataset_identity, library_versions


def dump(
    root: Path,
    samples: Samples,
    teacher: Teacher,
    settings: DumpSettings,
    earlier_seconds: dict[str, float],
    executor: Executor | None = None,
    extend: bool = False,
) -> Cache:
    """Write every signal of `teacher` over `samples` into the cache at `root`; returns it complete.

    Resumes where a killed dump stopped; adds a teacher to a finished cache; does nothing where all is done.
    extend: rows of `samples` may come behind those of a finished cache, and signals to a finished teacher:
    only what is new is done, and nothing that is there is written again. earlier_seconds: spent on preparing
    the data, for the report. executor: who runs the tasks, this process if not given. Raises
    LockedCacheError, IdentityError, NonFiniteError and what the teacher, the workers or the disk raise;
    finished shards are kept.
    """
    executor = executor or SerialExecutor()
    with CacheWriter(root, samples, extend=extend) as writer:
        for part, signals in parts_to_dump(writer, teacher, settings, extend):
            plan = make_plan(writer, teacher, settings, executor, part, signals)
            writer.plan(plan)
            if not writer.is_complete(plan.name, part):
                _dump_part(writer, plan, teacher, settings, executor, earlier_seconds)
    return open_cache(root)


def _dump_part(
    writer: CacheWriter,
    plan: TeacherPlan,
    teacher: Teacher,
    settings: DumpSettings,
    executor: Executor,
    earlier_seconds: dict[str, float],
) -> None:
    """Run the tasks of one part that are not finished, and publish it."""
    tasks = list(tasks_of_part(plan, writer.part_counts(plan.part)))
    job = make_job(writer, plan, settings, executor)
    with executor.running(job, writer.samples, teacher) as run:
        _run(writer, run, tasks)
        if (batches := draw_batches(writer, plan)) is not None:
            drawn = list(planned_tasks(plan, batches.steps))
            _run(writer, run, drawn)
            tasks += drawn
    seconds = dict(earlier_seconds)
    for task in tasks:
        seconds[task.phase] = seconds.get(task.phase, 0.0) + writer.ledger[task.name].seconds
    writer.complete(plan, [task.name for task in tasks])
    _report_seconds(writer.root, plan, seconds)


def tasks_of_part(plan: TeacherPlan, counts: TableCounts) -> Iterator[ShardTask]:
    """All tasks of `plan` but those over a batch plan; counts: of its rows."""
    before = {"V": counts.first_video, "T": counts.first_text}
    return shard_tasks(plan, {"V": counts.videos, "T": counts.texts}, before)


def make_plan(
    writer: CacheState,
    teacher: Teacher,
    settings: DumpSettings,
    executor: Executor,
    part: Part = FIRST,
    signals: tuple[SignalSpec, ...] | None = None,
) -> TeacherPlan:
    """The plan of one part of this dump; what an earlier, unfinished run of it fixed stays fixed.

    signals: those of the part, all that the teacher stores if not given.
    """
    stored = writer.stored_plan(teacher.name, part)
    rows = writer.part_counts(part)
    counts = {"V": rows.videos, "T": rows.texts}
    # Rows that are appended to a view are kept as its first ones are, whoever brings them.
    pixels = writer.kept_pixels(teacher.view.name) if part.segment else settings.storage.pixels
    pairs = plan_pairs(writer, teacher, settings)
    specs = pairs.signals if signals is None else signals
    told = pairs_of_part(pairs.execution, specs)
    if scores_pairs(specs):
        told |= block_of_part(writer, teacher, settings, part)
    if stored is not None and writer.is_complete(teacher.name, part):
        told = pairs_of_finished(told, stored.execution["pairs"])
    threads = settings.threads
    if threads is None:
        threads = stored.execution["threads"] if stored is not None else executor.share().threads
    fixed = {
        "batch_videos": settings.batch_videos,
        "batch_texts": settings.batch_texts,
        "threads": threads,
        "device": settings.device or teacher.device.type,
        "pixels": pixels.to_dict() if pixels else None,
        "pairs": told,
    }
    if told["plan"] is not None:
        counts["S"] = BatchOptions(**told["plan"]).steps_at_most(writer.samples_of(part))
    frame_bytes = teacher.view.pixel_bytes if pixels else 0
    most_rows = most_rows_of_tasks(teacher, told, rows.first_text + rows.texts)
    return TeacherPlan(
        teacher.name,
        teacher.identity(),
        teacher.view,
        specs,
        execution(specs, counts, fixed, settings.shard_rows, frame_bytes, most_rows),
        library_versions(),
        part,
    )


def make_job(writer: CacheWriter, plan: TeacherPlan, settings: DumpSettings, executor: Executor) -> DumpJob:
    """What the tasks of `plan`, which `writer` has fixed, share."""
    return DumpJob(
        writer.root.absolute(),
        plan,
        writer.view_is_complete(plan.view.name, plan.part.segment),
        writer.token,
        settings.decoders or executor.share().decoders,
        Limits(settings.time_limit_s, settings.memory_limit_mb),
        library_versions(),
        dataset_identity(writer.samples),
        tuple(writer.segments[: plan.part.segment + 1]),
    )


def _run(writer: CacheWriter, run: Run, tasks: Iterable[ShardTask]) -> None:
    """Run the unfinished tasks phase by phase."""
    for (teacher, phase), of_phase in groupby(tasks, key=lambda task: (task.teacher, task.phase)):
        todo = [task for task in of_phase if task.name not in writer.ledger]
        unit = {"T": "text", "S": "step", "P": "row"}.get(PHASE_AXIS.get(phase, "V"), "video")
        total = sum(task.stop - task.start for task in todo)
        with Progress(f"{teacher}: {phase}", total, unit) as progress:
            for commit in run(todo, progress):
                writer.commit(commit)


def _report_seconds(root: Path, plan: TeacherPlan, seconds: dict[str, float]) -> None:
    """Write reports/dump.json, outside the digest: seconds by phase of each teacher's dump, part by part."""
    path = root / "reports" / "dump.json"
    report = read_json(path) if path.exists() else {"teachers": {}}
    told = {"seconds": {phase: round(value, 3) for phase, value in seconds.items()}}
    if plan.part == FIRST:
        report["teachers"][plan.name] = told
    else:
        report["teachers"].setdefault(plan.name, {})[plan.path] = told
    write_file(path, canonical_json(report))
