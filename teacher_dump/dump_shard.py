"""One shard task: read inputs, run the teacher, write one shard of each signal, return digests.

A task is a function of the inputs and the plan alone, so it may run in any process, and running it
again gives the same bytes (same device type and thread count).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
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
from store.publication import planned_signal_arrays, planned_view_arrays
from store.shards import ShardFile
from store.teacher_parts import found_parts, stored_signal
from teacher_dump.calibrate import calibrate
from teacher_dump.plan import CALIBRATION, EARLIER_PAIRS, PAIRS, ShardTask
from teacher_dump.shard_files import SignalFiles, StoredFeatures, StoredView, ViewFiles, blocks, open_shards
from teacher_dump.teachers.base import Teacher

Progress = Callable[[int], None]


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
        (first_video, video), (first_text, text) = self.segments[-1].video, self.segments[-1].text
        self.counts = TableCounts(video - first_video, text - first_text, {}, first_video, first_text)

    def run(self, task: ShardTask, progress: Progress) -> Commit:
        """Write the task's shards; `progress(n)` is called with the number of rows done."""
        phases = {
            CALIBRATION: self._calibrate,
            "videos": self._dump_videos,
            "texts": self._dump_texts,
            "relevance": self._dump_relevance,
            PAIRS: self._dump_pairs,
            EARLIER_PAIRS: self._dump_pairs,
        }
        with torch.inference_mode():
            return phases[task.phase](task, progress)

    @cached_property
    def codecs(self) -> dict[str, SignalCodec]:
        """How each signal is stored, with what was fitted to it in the first task over the first rows."""
        parts = found_parts(self.root, self.plan.name, self.plan.part.segment)
        stored = (stored_signal(spec, parts, self.segments, "was not written") for spec in self.plan.signals)
        return {signal.spec.name: signal.codec(self.root) for signal in stored}

    def _signal_files(self, stack: ExitStack, task: ShardTask) -> SignalFiles:
        """The open shards of the task's signals."""
        files = {}
        for spec in self.plan.signals:
            if self.plan.execution["phase_of"][spec.name] == task.phase:
                arrays = planned_signal_arrays(self.plan, spec, self.counts)
                path = f"{self.plan.path}/{spec.name}"
                before = {"V": self.counts.first_video, "T": self.counts.first_text, "S": 0}[spec.row_axis]
                files[spec.name] = open_shards(stack, self.root, path, arrays, task.number, before)
        return SignalFiles(files, self.codecs)

    def _score_files(self, stack: ExitStack, task: ShardTask) -> SignalFiles:
        """The open shard of video_text_logits, or of the block of them that the task is of."""
        spec = next(spec for spec in self.plan.signals if spec.name == "video_text_logits")
        arrays = planned_signal_arrays(self.plan, spec, self.counts)
        block = EARLIER_VIDEOS if task.phase == EARLIER_PAIRS else ("" if "" in arrays else OWN_VIDEOS)
        before = 0 if task.phase == EARLIER_PAIRS else self.counts.first_video
        path = part_path(f"{self.plan.path}/{spec.name}", block)
        shard = stack.enter_context(ShardFile(self.root, path, arrays[block], task.number, before))
        return SignalFiles({spec.name: {"": shard}}, self.codecs)

    def _stored_features(self) -> StoredFeatures:
        return StoredFeatures(self.root, self.plan, self.teacher.pair_inputs, self.segments)

    def _decoded(self, rows: Iterable[int]) -> Iterator[DecodedVideo | DecodeFailure]:
        videos = [self.samples.videos[row] for row in rows]
        return self.pool.decode([video.path for video in videos], [video.id for video in videos])

    def _calibrate(self, task: ShardTask, progress: Progress) -> Commit:
        def encode_videos(rows: np.ndarray) -> dict[str, np.ndarray]:
            decoded = list(self._decoded(rows))
            progress(len(rows))
            videos = [video for video in decoded if isinstance(video, DecodedVideo)]
            return self._encode_videos(videos) if videos else {}

        objects = calibrate(self.root, self.plan, self.counts, encode_videos, self._encode_texts)
        return Commit(task.name, tuple(objects))

    def _dump_videos(self, task: ShardTask, progress: Progress) -> Commit:
        rows = range(task.start, task.stop)
        decoded = self._decoded(rows)
        facts: list[VideoFacts] = []
        with ExitStack() as stack:
            signals = self._signal_files(stack, task)
            view = self._view_files(stack, task)
            for batch in self._decoded_batches(rows, decoded, view, facts, progress):
                for row, video in batch:
                    view.take(row, video)
                signals.append([row for row, _ in batch], self._encode_videos([video for _, video in batch]))
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
    ) -> Iterator[list[tuple[int, DecodedVideo]]]:
        """Batches of (row, video) that decoded; every row leaves its VideoFacts in `facts`."""
        batch: list[tuple[int, DecodedVideo]] = []
        for row, video in zip(rows, decoded, strict=True):
            if isinstance(video, DecodeFailure):
                view.miss(row, video.reason)
                facts.append(VideoFacts(row, video.reason))
            else:
                facts.append(VideoFacts(row, "", video.duration_s, video.route, video.skipped_packets))
                batch.append((row, video))
            progress(1)
            if len(batch) == self.plan.execution["batch_videos"]:
                yield batch
                batch = []
        if batch:
            yield batch

    def _encode_videos(self, videos: Sequence[DecodedVideo]) -> dict[str, np.ndarray]:
        """Signals [B, R, M, ...] of a batch: renditions are videos of their own to a teacher."""
        frames_BRMYXC = np.stack([video.frames for video in videos])
        valid_BRM = np.stack([video.frame_valid for video in videos])
        batch, renditions = valid_BRM.shape[:2]
        encoded = self.teacher.encode_videos(
            torch.from_numpy(frames_BRMYXC).flatten(0, 1), torch.from_numpy(valid_BRM).flatten(0, 1)
        )
        return {
            name: values.unflatten(0, (batch, renditions)).float().cpu().numpy()
            for name, values in encoded.items()
        }

    def _encode_texts(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Signals [B, ...] of text rows."""
        encoded = self.teacher.encode_texts([self.samples.texts[row].text for row in rows])
        return {name: values.float().cpu().numpy() for name, values in encoded.items()}

    def _dump_texts(self, task: ShardTask, progress: Progress) -> Commit:
        with ExitStack() as stack:
            signals = self._signal_files(stack, task)
            for rows in blocks(np.arange(task.start, task.stop), self.plan.execution["batch_texts"]):
                signals.append(rows, self._encode_texts(rows))
                progress(len(rows))
            return Commit(task.name, tuple(signals.finish()), signals.errors)

    def _dump_relevance(self, task: ShardTask, progress: Progress) -> Commit:
        text_video = np.array([text.video for text in self.samples.texts], dtype=np.int64)
        with ExitStack() as stack:
            signals = self._signal_files(stack, task)
            stored = self._stored_features()
            for rows in blocks(np.arange(task.start, task.stop), self.plan.execution["batch_texts"]):
                matched = rows[(text_video[rows] >= 0) & stored.usable[text_video[rows]]]
                if len(matched):
                    videos, texts = stored.videos(text_video[matched]), stored.texts(matched)
                    relevance_BM = self.teacher.relevance(videos, texts)
                    signals.append(matched, {"frame_relevance": relevance_BM[:, None].float().cpu().numpy()})
                progress(len(rows))
            return Commit(task.name, tuple(signals.finish()), signals.errors)

    def _dump_pairs(self, task: ShardTask, progress: Progress) -> Commit:
        """All texts are read once a task, block by block; memory: the shard's logits in float32.

        Of videos that were there before, only the texts of the plan's own segment are scored.
        """
        end = self.counts.first_text + self.counts.texts
        wanted = np.arange(self.counts.first_text if task.phase == EARLIER_PAIRS else 0, end)
        with ExitStack() as stack:
            signals = self._score_files(stack, task)
            stored = self._stored_features()
            rows = np.arange(task.start, task.stop)
            rows = rows[stored.usable[rows]]
            logits_VT = np.full((len(rows), len(wanted)), np.nan, dtype=np.float32)
            for text_rows in blocks(wanted, self.plan.execution["batch_texts"]):
                columns = slice(text_rows[0] - wanted[0], text_rows[-1] - wanted[0] + 1)
                texts = stored.texts(text_rows)
                for places in blocks(np.arange(len(rows)), self.plan.execution["batch_videos"]):
                    scores = self.teacher.score_pairs(stored.videos(rows[places]), texts)
                    logits_VT[places[0] : places[-1] + 1, columns] = scores.float().cpu()
                progress(len(text_rows))
            for places in blocks(np.arange(len(rows)), self.plan.execution["batch_videos"]):
                signals.append(rows[places], {"video_text_logits": logits_VT[places]})
            return Commit(task.name, tuple(signals.finish()), signals.errors)
