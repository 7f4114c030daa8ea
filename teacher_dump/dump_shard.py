"""One shard task: read inputs, run the teacher, write one shard of each signal, return digests.

A task is a function of the inputs and the plan alone, so it may run in any process, and running it
again gives the same bytes (same device type and thread count).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from store.calibration import SignalCodec
from store.inputs.decode_pool import DecodeFailure, DecodePool
from store.inputs.frames import DecodedVideo
from store.inputs.samples import Samples, Segment
from store.kept_pixels import PIXEL_JPEG, JpegFile
from store.layout import EARLIER_VIDEOS, OWN_VIDEOS, TableCounts, TeacherPlan, part_path
from store.ledger import Commit, VideoFacts
from store.publication import TO_FLOAT32, planned_signal_arrays, planned_view_arrays
from store.shards import ShardFile
from store.tables import read_batch_plan
from teacher_dump.calibrate import calibrate, sample_rows
from teacher_dump.forward import stacked, text_signals, video_signals
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.pairs.phases import PairPhases
from teacher_dump.plan import (
    CALIBRATION,
    EARLIER_PAIRS,
    OF_TEACHER,
    PLANNED_PHASE,
    PRECISION,
    PRECISION_ROWS,
    ShardTask,
)
from teacher_dump.precision import error_to_float32
from teacher_dump.shard_files import (
    SignalFiles,
    StoredFeatures,
    StoredView,
    ViewFiles,
    blocks,
    open_shards,
    stored_signals,
)
from teacher_dump.teachers.base import Teacher
from teacher_dump.workers.overlap import Behind, made_ahead

Progress = Callable[[int], None]
DecodedBatch = list[tuple[int, DecodedVideo]]
"""Rows of the video table, and what each decoded to."""


class ShardDumper:
    """What a worker holds while it runs tasks of one dump.

    view_is_complete: the view was stored by an earlier teacher, so its frames are compared with this
    dump's instead of written. segments: of the dataset's rows, up to the one that `plan` is of; one of all
    rows if not given.
    """

    def __init__(
        self,
        root: Path,
        plan: TeacherPlan,
        samples: Samples,
        teacher: Teacher,
        pool: DecodePool,
        view_is_complete: bool,
        segments: Sequence[Segment] = (),
    ) -> None:
        self.root = root
        self.plan = plan
        self.samples = samples
        self.teacher = teacher
        self.pool = pool
        self.view_is_complete = view_is_complete
        self.segments = segments or [Segment((0, len(samples.videos)), (0, len(samples.texts)))]
        self.counts = TableCounts.of(self.segments[-1])

    def run(self, task: ShardTask, progress: Progress) -> Commit:
        """Write the task's shards; `progress(n)` is called with the number of rows done."""
        phases = {
            CALIBRATION: self._calibrate,
            PRECISION: self._measure_precision,
            "videos": self._dump_videos,
            "texts": self._dump_texts,
            "relevance": self._dump_relevance,
            OF_TEACHER: self._dump_teacher,
        }
        with torch.inference_mode():
            if task.phase in phases:
                return phases[task.phase](task, progress)
            return PairPhases(self).run(task, progress)

    @cached_property
    def codecs(self) -> dict[str, SignalCodec]:
        """How each signal is stored, with what was fitted to it in the first task over the first rows."""
        stored = stored_signals(self.root, self.plan.name, self.segments)
        return {spec.name: stored[spec.name].codec(self.root) for spec in self.plan.signals}

    def signal_files(self, stack: ExitStack, task: ShardTask) -> SignalFiles:
        """The open shards of the task's signals."""
        files, counts = {}, self.counts
        if task.phase == PLANNED_PHASE:
            name = self.plan.execution["pairs"]["plan"]["name"]
            counts = replace(counts, plan_steps={name: read_batch_plan(self.root, name).steps})
        for spec in self.plan.signals:
            if self.plan.execution["phase_of"][spec.name] == task.phase:
                arrays = planned_signal_arrays(self.plan, spec, counts)
                path = f"{self.plan.path}/{spec.name}"
                before = {"V": counts.first_video, "T": counts.first_text}.get(spec.row_axis, 0)
                files[spec.name] = open_shards(stack, self.root, path, arrays, task.number, before)
        return SignalFiles(files, self.codecs)

    def score_files(self, stack: ExitStack, task: ShardTask) -> SignalFiles:
        """The open shard of video_text_logits, or of the block of them that the task is of."""
        spec = next(spec for spec in self.plan.signals if spec.name == "video_text_logits")
        arrays = planned_signal_arrays(self.plan, spec, self.counts)
        block = EARLIER_VIDEOS if task.phase == EARLIER_PAIRS else ("" if "" in arrays else OWN_VIDEOS)
        before = 0 if task.phase == EARLIER_PAIRS else self.counts.first_video
        path = part_path(f"{self.plan.path}/{spec.name}", block)
        shard = stack.enter_context(ShardFile(self.root, path, arrays[block], task.number, before))
        return SignalFiles({spec.name: {"": shard}}, self.codecs)

    def stored_features(self) -> StoredFeatures:
        return StoredFeatures(self.root, self.plan, self.teacher.pair_inputs, self.segments)

    def _decoded(self, rows: Iterable[int]) -> Iterator[DecodedVideo | DecodeFailure]:
        videos = [self.samples.videos[row] for row in rows]
        # A batch beyond what the decoders hold: they go on while the device computes the one before.
        beyond = self.plan.execution["batch_videos"]
        return self.pool.decode([video.path for video in videos], [video.id for video in videos], beyond)

    def _calibrate(self, task: ShardTask, progress: Progress) -> Commit:
        def encode_videos(rows: np.ndarray) -> dict[str, np.ndarray]:
            decoded = list(self._decoded(rows))
            progress(len(rows))
            videos = [video for video in decoded if isinstance(video, DecodedVideo)]
            return self._encode_videos(*stacked(videos)) if videos else {}

        objects = calibrate(self.root, self.plan, self.counts, encode_videos, self._encode_texts)
        return Commit(task.name, tuple(objects))

    def _measure_precision(self, task: ShardTask, progress: Progress) -> Commit:
        """What half precision changes, on a few rows spread over the tables; nothing if none decodes."""
        assert isinstance(self.teacher, FrozenTeacher)
        rows = sample_rows(self.counts.videos, PRECISION_ROWS)
        videos = [video for video in self._decoded(rows) if isinstance(video, DecodedVideo)]
        progress(task.stop - task.start)
        if not videos:
            return Commit(task.name, ())
        frames_BMYXC, valid_BM = (torch.from_numpy(values[:, 0]) for values in stacked(videos))
        texts = [self.samples.texts[row].text for row in sample_rows(self.counts.texts, PRECISION_ROWS)]
        errors = error_to_float32(self.teacher, frames_BMYXC, valid_BM, texts)
        return Commit(task.name, (), {f"{TO_FLOAT32}{name}": error for name, error in errors.items()})

    def _dump_videos(self, task: ShardTask, progress: Progress) -> Commit:
        rows = range(task.start, task.stop)
        decoded = self._decoded(rows)
        facts: list[VideoFacts] = []
        with ExitStack() as stack:
            signals = self.signal_files(stack, task)
            view = self._view_files(stack, task)

            def write(batch: DecodedBatch, encoded: dict[str, np.ndarray]) -> None:
                for row, video in batch:
                    view.take(row, video)
                signals.append([row for row, _ in batch], encoded)

            batches = made_ahead(self._decoded_batches(rows, decoded, view, facts, progress))
            with Behind(write) as writing:
                for batch, frames_BRMYXC, valid_BRM in batches:
                    writing.put(batch, self._encode_videos(frames_BRMYXC, valid_BRM))
                writing.finish()
            objects = [*view.finish(), *signals.finish()]
        return Commit(task.name, tuple(objects), {**signals.errors, **view.errors}, tuple(facts))

    def _view_files(self, stack: ExitStack, task: ShardTask) -> ViewFiles | StoredView:
        path, first = self.plan.view_path, self.counts.first_video
        if self.view_is_complete:
            return StoredView(self.root, path, first)
        arrays = planned_view_arrays(self.plan, self.counts)
        of_videos = {name: array for name, array in arrays.items() if name != PIXEL_JPEG}
        files = open_shards(stack, self.root, path, of_videos, task.number, first)
        blocks_of_bytes = {name: array for name, array in arrays.items() if name == PIXEL_JPEG}
        files |= open_shards(stack, self.root, path, blocks_of_bytes, task.number)
        kept = self.plan.kept_pixels
        if kept is None or kept.quality is None:
            return ViewFiles(files)
        return ViewFiles(files, JpegFile(files[PIXEL_JPEG], arrays[PIXEL_JPEG], task.number, kept.quality))

    def _decoded_batches(
        self,
        rows: Sequence[int],
        decoded: Iterator[DecodedVideo | DecodeFailure],
        view: ViewFiles | StoredView,
        facts: list[VideoFacts],
        progress: Progress,
    ) -> Iterator[tuple[DecodedBatch, np.ndarray, np.ndarray]]:
        """Batches of (row, video) that decoded, stacked; every row leaves its VideoFacts in `facts`."""
        batch: DecodedBatch = []
        for row, video in zip(rows, decoded, strict=True):
            if isinstance(video, DecodeFailure):
                view.miss(row, video.reason)
                facts.append(VideoFacts(row, video.reason))
            else:
                facts.append(VideoFacts(row, "", video.duration_s, video.route, video.skipped_packets))
                batch.append((row, video))
            progress(1)
            if len(batch) == self.plan.execution["batch_videos"]:
                yield batch, *stacked([video for _, video in batch])
                batch = []
        if batch:
            yield batch, *stacked([video for _, video in batch])

    def _encode_videos(self, frames_BRMYXC: np.ndarray, valid_BRM: np.ndarray) -> dict[str, np.ndarray]:
        return video_signals(self.teacher, frames_BRMYXC, valid_BRM)

    def _encode_texts(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Signals [B, ...] of text rows."""
        return text_signals(self.teacher, [self.samples.texts[row].text for row in rows])

    def _dump_texts(self, task: ShardTask, progress: Progress) -> Commit:
        with ExitStack() as stack:
            signals = self.signal_files(stack, task)
            for rows in blocks(np.arange(task.start, task.stop), self.plan.execution["batch_texts"]):
                signals.append(rows, self._encode_texts(rows))
                progress(len(rows))
            return Commit(task.name, tuple(signals.finish()), signals.errors)

    def _dump_teacher(self, task: ShardTask, progress: Progress) -> Commit:
        with ExitStack() as stack:
            signals = self.signal_files(stack, task)
            rows = np.arange(task.start, task.stop)
            signals.append(
                rows, {name: value.cpu().numpy() for name, value in self.teacher.of_itself().items()}
            )
            progress(len(rows))
            return Commit(task.name, tuple(signals.finish()), signals.errors)

    def _dump_relevance(self, task: ShardTask, progress: Progress) -> Commit:
        text_video = np.array([text.video for text in self.samples.texts], dtype=np.int64)
        with ExitStack() as stack:
            signals = self.signal_files(stack, task)
            stored = self.stored_features()
            for rows in blocks(np.arange(task.start, task.stop), self.plan.execution["batch_texts"]):
                matched = rows[(text_video[rows] >= 0) & stored.usable[text_video[rows]]]
                if len(matched):
                    videos, texts = stored.videos(text_video[matched]), stored.texts(matched)
                    relevance_BM = self.teacher.relevance(videos, texts)
                    signals.append(matched, {"frame_relevance": relevance_BM[:, None].float().cpu().numpy()})
                progress(len(rows))
            return Commit(task.name, tuple(signals.finish()), signals.errors)
