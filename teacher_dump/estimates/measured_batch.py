"""One real batch through every stage of a dump, timed: decode, forward, encode, write, and a block of pairs.

Nothing goes into the cache: shards of the sample lie in a scratch folder beside it and are deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from store.errors import InputError
from store.inputs.decode_pool import DecodedVideo, DecodePool, Limits
from store.inputs.pixels import encode_jpeg
from store.inputs.samples import Samples, Video
from store.layout import TeacherPlan
from teacher_dump.calibrate import sample_rows
from teacher_dump.estimates.device_use import PeakMemory, after, resident_of_children
from teacher_dump.estimates.pair_sample import ChosenCosts, PairSample, block_shape
from teacher_dump.estimates.sample_files import WrittenSample, scratch_folder, written
from teacher_dump.estimates.stopwatch import Spent, Stopwatch, timed
from teacher_dump.forward import stacked, text_signals, video_signals
from teacher_dump.planned_dump import PlannedDump
from teacher_dump.teachers.base import Teacher

SHARE = 16
"""The sample is a batch, or a sixteenth of the rows if that is less: cheap beside its dump."""

LEAST = 4


@dataclass(frozen=True)
class StageCosts:
    """What one row of a phase costs in each stage; finish_s: closing the shards of one task."""

    decode_s: float = 0.0
    forward: Spent = field(default_factory=Spent)
    encode: Spent = field(default_factory=Spent)
    write: Spent = field(default_factory=Spent)
    finish_s: float = 0.0


@dataclass(frozen=True)
class MeasuredBatch:
    """videos, texts: rows that were run; of_video, of_text: what one costs. start_s: of a decoder.

    relevance: of a text. block: of `block_shape` V x T pairs; None where the teacher scores none. chosen: of
    pairs that a shortlist chose. row_bytes: of a video's signals, written; read_cold_s, read_warm_s: of
    reading them from the disk, from the page cache. jpeg_bytes: of a video's kept frames. resident_bytes: of
    this process before its largest forward; batch_bytes: what each video of the batch added to that.
    decoder_bytes: of a decoding process. device_bytes: of the accelerator, at its peak.
    """

    videos: int
    texts: int
    of_video: StageCosts
    of_text: StageCosts
    start_s: float
    relevance: Spent | None
    block: Spent | None
    block_shape: tuple[int, int]
    chosen: ChosenCosts | None
    row_bytes: int
    read_cold_s: float
    read_warm_s: float
    jpeg_bytes: float | None
    resident_bytes: int
    batch_bytes: float
    decoder_bytes: int
    device_bytes: int


def measure(
    planned: PlannedDump, samples: Samples, teacher: Teacher, beside: Path, limits: Limits
) -> MeasuredBatch:
    """Run a sample of the rows of `planned`, evenly spaced, through the stages of its dump.

    beside: the cache; the scratch folder is made in the nearest folder above it that exists. Raises
    InputError if no video of the sample decodes.
    """
    plan, counts = planned.plan, planned.counts
    torch.set_num_threads(plan.execution["threads"])
    own = samples.videos[counts.first_video :][: counts.videos] if "videos" in planned.phases else ()
    decoded = decoded_sample(plan, own or samples.videos[:LEAST], limits)
    videos = decoded.videos
    rows = samples.texts[counts.first_text :][: counts.texts] or samples.texts[:LEAST]
    size = sample_size(len(rows), plan.execution["batch_texts"])
    texts = [rows[row].text for row in sample_rows(len(rows), size)]
    with torch.inference_mode(), scratch_folder(beside) as folder:
        scratch = Path(folder)
        text_signals(teacher, texts[:1])
        after(teacher, video_signals(teacher, *stacked(videos[:1])))
        memory = PeakMemory(teacher)
        forward, of_videos = timed(lambda: after(teacher, video_signals(teacher, *stacked(videos))))
        batch_bytes = memory.grown() / len(videos)
        text_forward, of_texts = timed(lambda: after(teacher, text_signals(teacher, texts)))
        video_files = written(plan, "videos", of_videos, scratch)
        text_files = written(plan, "texts", of_texts, scratch)
        valid = np.stack([video.frame_valid for video in videos])
        pairs = PairSample(teacher, of_videos, valid, of_texts)
        return MeasuredBatch(
            videos=len(videos),
            texts=len(texts),
            of_video=per_row(len(videos), decoded.each_s, forward, video_files),
            of_text=per_row(len(texts), 0.0, text_forward, text_files),
            start_s=decoded.start_s,
            relevance=pairs.relevance(plan, len(texts)),
            block=pairs.block(plan),
            block_shape=block_shape(plan),
            chosen=pairs.chosen(plan),
            row_bytes=video_files.bytes // len(videos),
            read_cold_s=video_files.read_s(cold=True) / len(videos),
            read_warm_s=video_files.read_s(cold=False) / len(videos),
            jpeg_bytes=jpeg_bytes(plan, videos),
            resident_bytes=memory.before,
            batch_bytes=batch_bytes,
            decoder_bytes=decoded.process_bytes,
            device_bytes=memory.device_peak(),
        )


def sample_size(rows: int, batch: int) -> int:
    return min(batch, max(rows // SHARE, LEAST), rows)


@dataclass(frozen=True)
class DecodedSample:
    """each_s: of a decoding process, for a video. start_s: until it is ready. process_bytes: its memory."""

    videos: list[DecodedVideo]
    each_s: float
    start_s: float
    process_bytes: int


def decoded_sample(plan: TeacherPlan, own: Sequence[Video], limits: Limits) -> DecodedSample:
    """A batch of the videos `own`, decoded by one process; those that fail are left out."""
    count = sample_size(len(own), plan.execution["batch_videos"])
    chosen = [own[row] for row in sample_rows(len(own), count)]
    with DecodePool(plan.view, 1, limits) as pool:
        with Stopwatch() as starting:
            first = list(pool.decode([chosen[0].path], [chosen[0].id]))
        with Stopwatch() as watch:
            rest = list(pool.decode([v.path for v in chosen[1:]], [v.id for v in chosen[1:]]))
        memory = resident_of_children()
    videos = [video for video in (*first, *rest) if isinstance(video, DecodedVideo)]
    if not videos:
        raise InputError(
            f"not one of {len(chosen)} sampled videos decodes, the first is {chosen[0].id}; "
            "without frames there is nothing to measure"
        )
    each_s = watch.spent.clock_s / max(len(rest), 1)
    return DecodedSample(videos, each_s, max(starting.spent.clock_s - each_s, 0.0), memory)


def per_row(rows: int, decode_s: float, forward: Spent, files: WrittenSample) -> StageCosts:
    share = 1 / rows
    return StageCosts(
        decode_s, forward.times(share), files.encode.times(share), files.write.times(share), files.finish_s
    )


def jpeg_bytes(plan: TeacherPlan, videos: Sequence[DecodedVideo]) -> float | None:
    """Mean bytes of a video's frames as the plan keeps them; None where it keeps no JPEGs."""
    kept = plan.kept_pixels
    if kept is None or kept.quality is None:
        return None
    frames = np.concatenate([video.frames[video.frame_valid] for video in videos])
    return sum(map(len, encode_jpeg(frames, kept.quality))) / len(videos)
