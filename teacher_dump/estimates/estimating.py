"""How an estimate is made: planned as a dump is, counted array by array, and measured on one real batch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from store.inputs.decode_pool import AHEAD_PER_WORKER, Limits
from store.kept_pixels import KeptPixels
from store.layout import TableCounts, TeacherPlan
from store.pair_scores import PLANNED
from store.parts import FIRST
from store.signals import SignalSpec
from teacher_dump.estimates.alternatives import alternatives
from teacher_dump.estimates.device_use import machine_bytes
from teacher_dump.estimates.estimate import Estimate
from teacher_dump.estimates.measured_batch import MeasuredBatch, measure
from teacher_dump.estimates.payback import WARM_SHARE, live_backbone, payback
from teacher_dump.estimates.phase_seconds import Crew, seconds_by_phase
from teacher_dump.estimates.planned_bytes import (
    CacheBytes,
    assumed_tables_bytes,
    manifest_bytes,
    signal_bytes,
    tables_bytes,
    view_bytes,
)
from teacher_dump.estimates.sample_files import nearest_folder
from teacher_dump.opened_dump import OpenedDump
from teacher_dump.pairs.costs import PlanSize, choose_layout, layout_costs
from teacher_dump.pairs.layouts import LOGITS
from teacher_dump.pairs.memory import reckoned_bytes
from teacher_dump.plan import (
    ShardTask,
    StorageOptions,
    execution,
    phase_of,
    planned_tasks,
    shard_tasks,
)
from teacher_dump.planned_dump import PlannedDump, planned_dumps
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import Teacher

TRAIN, UNKNOWN = "train", "of given size"
PLAN = PlanSize()
VIEW_ARRAYS = 5
FLOAT16_BYTES, FLOAT32_BYTES = 2, 4
BATCHES_HELD = 4
"""Decoded batches that are alive at once: put together, on the device, being written, and one in between."""


@dataclass(frozen=True)
class Job:
    """What is asked about. tables: bytes of the tables. train_texts: rows of an epoch of training."""

    root: Path
    planned: PlannedDump
    teacher: Teacher
    settings: DumpSettings
    tables: int
    train_texts: int

    def bytes_of(
        self, specs: Sequence[SignalSpec], kept: KeptPixels | None, jpeg_bytes: float | None
    ) -> CacheBytes:
        """Of the same dump with other specs, or other kept pixels."""
        counts, rows = self.planned.counts, self.planned.plan.execution["shard_rows"]
        widths = {spec.name: spec.sizes.get("D", 0) for spec in self.teacher.signals}
        return CacheBytes(
            {
                spec.name: signal_bytes(
                    spec,
                    counts,
                    rows[phase_of(spec)],
                    self.planned.text_videos if spec.name == "frame_relevance" else None,
                    widths.get(spec.name, 0),
                )
                for spec in specs
            },
            0
            if self.planned.view_is_complete
            else view_bytes(self.planned.plan.view, counts.videos, rows["videos"], kept, jpeg_bytes),
            self.tables,
            manifest_bytes(sum(map(self.objects_of, self.planned.tasks)), len(specs)),
        )

    def objects_of(self, task: ShardTask) -> int:
        """Shards that a task writes."""
        own = len(self.planned.signals_of(task.phase))
        return own + (VIEW_ARRAYS if task.phase == "videos" and not self.planned.view_is_complete else 0)


def estimates(
    root: Path, opened: OpenedDump, workers: int | None = 1, extend: bool = False
) -> list[Estimate]:
    """Of each part that the dump of `opened` has still to write, of the first one if there is none.

    A real batch is run for each, unless it does not fit. workers: processes of this machine that run tasks,
    as fast as this one; None to run no batch. Raises what planning a dump raises.
    """
    planned = planned_dumps(root, opened.samples, opened.teacher, opened.settings, opened.executor, extend)
    left = [part for part in planned if any(map(part.rows_left, part.phases))]
    return [estimate_of_part(root, opened, part, workers) for part in left or planned[:1]]


def estimate_of_part(root: Path, opened: OpenedDump, planned: PlannedDump, workers: int | None) -> Estimate:
    """One part of a dump; measured only where something is left of it."""
    samples, teacher, settings = opened.samples, opened.teacher, opened.settings
    train = samples.splits.get(TRAIN)
    train_texts = len(samples.texts) if train is None else len(train.text)
    counts = planned.counts
    tables = 0 if planned.has_tables else tables_bytes(samples, counts.first_video, counts.first_text)
    job = Job(root, planned, teacher, settings, tables, train_texts)
    sized = sized_estimate(job)
    if workers is None or not sized.fits or not any(map(planned.rows_left, planned.phases)):
        return sized
    limits = Limits(settings.time_limit_s, settings.memory_limit_mb)
    batch = measure(planned, samples, teacher, root, limits)
    decoders = settings.decoders or opened.executor.share().decoders
    crew = Crew(workers, (os.cpu_count() or 1) / workers, decoders)
    return measured_estimate(job, sized_estimate(job, batch), batch, crew)


def estimate_sizes(root: Path, teacher: Teacher, counts: TableCounts, settings: DumpSettings) -> Estimate:
    """Of a dataset of which only the numbers are known: bytes, no seconds. Raises InputError for a batch plan
    that they do not fill."""
    rows = {"V": counts.videos, "T": counts.texts}
    pixels, signals = settings.storage.pixels, settings.storage.applied(teacher.signals, teacher.pair_inputs)
    fixed = {
        "batch_videos": settings.batch_videos,
        "batch_texts": settings.batch_texts,
        "pixels": pixels.to_dict() if pixels else None,
    }
    frame_bytes = teacher.view.pixel_bytes if pixels else 0
    options, steps = settings.pairs, {}
    if options.plan is not None:
        steps[options.plan.name] = rows["S"] = options.plan.steps_of(counts.texts)
    topk = {"k": options.topk or 1, "splits": []}
    signals = options.stored_as(signals, teacher.fused_width, {}, topk)
    told = execution(signals, rows, fixed, settings.shard_rows, frame_bytes)
    plan = TeacherPlan(teacher.name, {"logit_scale": 1.0}, teacher.view, signals, told, {})
    tasks = (*shard_tasks(plan, rows), *(planned_tasks(plan, rows["S"]) if steps else ()))
    counts = replace(counts, plan_steps=steps)
    planned = PlannedDump(root.name, UNKNOWN, plan, counts, counts.texts, tasks, frozenset(), False)
    tables = assumed_tables_bytes(counts.videos, counts.texts)
    return sized_estimate(Job(root, planned, teacher, settings, tables, counts.texts))


def sized_estimate(job: Job, batch: MeasuredBatch | None = None) -> Estimate:
    """What is counted; `batch` tells how large JPEGs are."""
    planned, teacher, storage = job.planned, job.teacher, job.settings.storage
    jpeg_bytes = None if batch is None else batch.jpeg_bytes
    costs = layout_costs(planned.counts.videos, planned.counts.texts, job.train_texts, PLAN)
    sizes = job.bytes_of(planned.plan.signals, planned.plan.kept_pixels, jpeg_bytes)
    free = shutil.disk_usage(nearest_folder(job.root)).free

    def size_of(specs: Sequence[SignalSpec], chosen: StorageOptions) -> int:
        return job.bytes_of(specs, chosen.pixels, jpeg_bytes).total

    planned_bytes = next(cost.bytes for cost in costs if cost.layout == PLANNED)
    return Estimate(
        planned=planned,
        bytes=sizes,
        bytes_left=bytes_left(planned, sizes),
        free_bytes=free,
        pairs=choose_layout(teacher.signals, teacher.fused_width is not None, costs, None, free),
        others=alternatives(teacher, planned.plan.signals, storage, size_of, planned_bytes),
    )


def bytes_left(planned: PlannedDump, sizes: CacheBytes) -> int:
    """What unfinished tasks will write; the tables are there once any task is done, manifests come last."""
    phase = planned.plan.execution["phase_of"]
    signals = sum(planned.share_left(phase[name]) * count for name, count in sizes.signals.items())
    view = 0.0 if planned.view_is_complete else planned.share_left("videos") * sizes.view
    manifests = sizes.manifests if len(planned.done) < len(planned.tasks) else 0
    return round(signals + view + manifests + (0 if planned.done else sizes.tables))


def measured_estimate(job: Job, sized: Estimate, batch: MeasuredBatch, crew: Crew) -> Estimate:
    """`sized`, and what follows from the costs of a batch."""
    planned, teacher = job.planned, job.teacher
    seconds = seconds_by_phase(planned, batch, crew)
    whole = seconds_by_phase(replace(planned, done=frozenset()), batch, crew)
    pair_s = None
    if batch.block is not None:
        pair_s = batch.block.clock_s / (batch.block_shape[0] * batch.block_shape[1])
    if planned.plan.part != FIRST:
        # Which pairs to score, and whether a cache pays, was asked when it began.
        return replace(
            sized,
            measured=batch,
            seconds=seconds,
            memory_bytes=memory_bytes(planned, teacher, batch, crew),
        )
    costs = layout_costs(planned.counts.videos, planned.counts.texts, job.train_texts, PLAN, pair_s)
    pair_bytes = FLOAT16_BYTES * PLAN.batch if pair_s is not None else 0
    is_warm = sized.bytes.total <= WARM_SHARE * machine_bytes()
    specs = {spec.name: (spec, sized.bytes.signals[spec.name]) for spec in planned.plan.signals}
    return replace(
        sized,
        measured=batch,
        seconds=seconds,
        memory_bytes=memory_bytes(planned, teacher, batch, crew),
        pairs=choose_layout(
            teacher.signals, teacher.fused_width is not None, costs, whole["videos"], sized.free_bytes
        ),
        payback=payback(sum(whole.values()), batch, job.train_texts, PLAN.batch, pair_bytes, is_warm),
        backbone=live_backbone(specs, batch, planned.counts.videos, machine_bytes()),
    )


def memory_bytes(planned: PlannedDump, teacher: Teacher, batch: MeasuredBatch, crew: Crew) -> int:
    """Of one worker at its peak, in the phase that takes most, with its decoders."""
    plan, counts = planned.plan, planned.counts
    size = plan.execution["batch_videos"]
    ahead = crew.decoders * (AHEAD_PER_WORKER + 1) + BATCHES_HELD * size
    of_videos = round(batch.batch_bytes * size) + ahead * plan.view.pixel_bytes
    of_pairs = 0
    if batch.block is not None:
        of_pairs = round(reckoned_bytes(teacher, *batch.block_shape))
    if LOGITS in plan.execution["phase_of"]:
        row = FLOAT32_BYTES * (counts.first_text + counts.texts)
        strip = plan.execution["pairs"]["strip_videos"]
        of_pairs += row * min(strip, plan.execution["shard_rows"]["pairs"], counts.videos)
    return batch.resident_bytes + max(of_videos, of_pairs) + crew.decoders * batch.decoder_bytes
