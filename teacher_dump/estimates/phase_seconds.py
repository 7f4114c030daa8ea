"""From what one batch cost to how long each phase will take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from teacher_dump.estimates.measured_batch import MeasuredBatch, StageCosts
from teacher_dump.plan import (
    CALIBRATION,
    CALIBRATION_ROWS,
    EARLIER_PAIRS,
    OF_TEACHER,
    PAIRS,
    PLANNED_PHASE,
    PRECISION,
    PRECISION_ROWS,
    TOPK_TEXTS,
    TOPK_VIDEOS,
)
from teacher_dump.planned_dump import PlannedDump

FORWARDS = 3


@dataclass(frozen=True)
class Crew:
    """Who works: processes that run tasks, cores and decoders of each."""

    workers: int
    cores: float
    decoders: int


def seconds_by_phase(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> dict[str, float]:
    """What is left of every phase, on the clock."""
    of_phase = {
        CALIBRATION: calibration_s,
        PRECISION: precision_s,
        "videos": videos_s,
        "texts": texts_s,
        "relevance": relevance_s,
        PAIRS: pairs_s,
        EARLIER_PAIRS: earlier_pairs_s,
        PLANNED_PHASE: planned_s,
        TOPK_TEXTS: topk_texts_s,
        TOPK_VIDEOS: topk_videos_s,
        OF_TEACHER: of_teacher_s,
    }
    return {
        phase: of_phase[phase](planned, batch, crew) if planned.rows_left(phase) else 0.0
        for phase in planned.phases
    }


def pipelined_s(stages_s: Sequence[float], batches: float, cores_s: float, cores: float) -> float:
    """Of `batches` through stages that work at the same time: each waits for the slowest, the first and the
    last for nobody; and all of them share `cores`, which have `cores_s` to compute for each batch.
    """
    return max(sum(stages_s) + (batches - 1) * max(stages_s), batches * cores_s / cores)


def videos_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """Decoders, the forward, and encoding with writing work at the same time, task by task."""
    cost, tasks = batch.of_video, planned.shards_left("videos")
    size = planned.plan.execution["batch_videos"]
    rows = planned.rows_left("videos") / tasks
    stages = (
        cost.decode_s / crew.decoders * size,
        cost.forward.clock_s * size,
        (cost.encode.clock_s + cost.write.clock_s) * size,
    )
    cores_s = (cost.decode_s + cost.forward.cores_s + cost.encode.cores_s + cost.write.cores_s) * size
    of_task = pipelined_s(stages, rows / size, cores_s, crew.cores) + cost.finish_s
    return batch.start_s + of_task * math.ceil(tasks / crew.workers)


def one_after_another_s(cost: StageCosts) -> float:
    return cost.forward.clock_s + cost.encode.clock_s + cost.write.clock_s


def texts_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    tasks = planned.shards_left("texts")
    rows_s = planned.rows_left("texts") * one_after_another_s(batch.of_text)
    return (rows_s + tasks * batch.of_text.finish_s) / min(crew.workers, tasks)


def calibration_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """One task: decode, then the forward, of a sample."""
    videos = min(CALIBRATION_ROWS["videos"], planned.counts.videos)
    texts = min(CALIBRATION_ROWS["texts"], planned.counts.texts)
    axes = {spec.row_axis for spec in planned.plan.signals if spec.is_calibrated}
    of_videos = videos * (batch.of_video.decode_s / crew.decoders + batch.of_video.forward.clock_s)
    of_texts = texts * batch.of_text.forward.clock_s
    return of_videos * ("V" in axes) + of_texts * ("T" in axes)


def precision_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """One task: a few videos and texts in the teacher's precision and, about twice as long, in float32."""
    forward_s = batch.of_video.forward.clock_s + batch.of_text.forward.clock_s
    return PRECISION_ROWS * (batch.of_video.decode_s / crew.decoders + FORWARDS * forward_s)


def of_teacher_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """Its numbers are there, they are only written."""
    numbers = (math.prod(spec.sizes.values()) for spec in planned.plan.signals if spec.is_of_teacher)
    return stored_s(batch, 4 * sum(numbers))


def stored_s(batch: MeasuredBatch, count: float) -> float:
    """Of encoding and writing `count` bytes, as fast as the sample was."""
    cost = batch.of_video
    return count / max(batch.row_bytes, 1) * (cost.encode.clock_s + cost.write.clock_s)


def relevance_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    assert batch.relevance is not None
    rows, tasks = planned.rows_left("relevance"), planned.shards_left("relevance")
    return (rows * batch.relevance.clock_s + tasks * batch.of_text.finish_s) / min(crew.workers, tasks)


def pairs_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """Of its videos with all texts."""
    return dense_s(planned, batch, crew, PAIRS, planned.counts.first_text + planned.counts.texts)


def earlier_pairs_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """Of the videos that were there before with its texts."""
    return dense_s(planned, batch, crew, EARLIER_PAIRS, planned.counts.texts)


def dense_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew, phase: str, texts: int) -> float:
    """Blocks of videos x texts, task by task, and their logits written."""
    assert batch.block is not None
    videos_at_once, texts_at_once = batch.block_shape
    rows = planned.rows_left(phase)
    blocks = rows / videos_at_once * math.ceil(texts / texts_at_once)
    whole = blocks * batch.block.clock_s + stored_s(batch, 2 * rows * texts)
    return whole / min(crew.workers, planned.shards_left(phase))


def planned_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """Whole blocks of a batch plan, or of each of their rows the best k in both directions."""
    told, tasks = planned.plan.execution["pairs"]["plan"], planned.shards_left(PLANNED_PHASE)
    size, kept, steps = told["batch"], told["k"], planned.rows_left(PLANNED_PHASE)
    if kept is None:
        assert batch.block is not None
        pairs = steps * size**2
        whole = pairs * batch.block.clock_s / (batch.block_shape[0] * batch.block_shape[1])
        return (whole + stored_s(batch, 2 * pairs)) / min(crew.workers, tasks)
    assert batch.chosen is not None
    calls_s, pairs_of_step = size * batch.chosen.call_s, 2 * size * kept
    return steps * (calls_s + pairs_of_step * batch.chosen.pair_s) / min(crew.workers, tasks)


def topk_texts_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """Each video with its K texts."""
    assert batch.chosen is not None
    kept, rows = planned.plan.execution["pairs"]["topk"]["k"], planned.rows_left(TOPK_TEXTS)
    calls = math.ceil(kept / batch.block_shape[1])
    of_row = calls * batch.chosen.call_s + kept * batch.chosen.pair_s
    return rows * of_row / min(crew.workers, planned.shards_left(TOPK_TEXTS))


def topk_videos_s(planned: PlannedDump, batch: MeasuredBatch, crew: Crew) -> float:
    """Each text with its K videos; a video that several texts of a block chose is called once."""
    assert batch.chosen is not None
    kept, rows = planned.plan.execution["pairs"]["topk"]["k"], planned.rows_left(TOPK_VIDEOS)
    texts = batch.block_shape[1]
    calls = rows / texts * min(planned.counts.videos, texts * kept)
    whole = calls * batch.chosen.call_s + rows * kept * batch.chosen.pair_s
    return whole / min(crew.workers, planned.shards_left(TOPK_VIDEOS))
