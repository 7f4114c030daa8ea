"""The phases that score pairs, from features that earlier phases stored: no video is decoded again.

Memory is bounded by the block that the plan fixed (`execution["pairs"]`): as many videos and texts as are
scored at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from store.layout import view_path
from store.ledger import Commit
from store.planned_topk import INDEX, SCORE, TEXTS_OF_VIDEO, VIDEOS_OF_TEXT, topk_signal
from store.plans import PlannedBatches
from store.sharded_rows import ShardedRows
from store.tables import read_batch_plan
from store.writer import CacheWriter
from teacher_dump.pairs.chosen import ChosenPairs
from teacher_dump.pairs.layouts import LOGITS, BatchOptions, rows_of_split
from teacher_dump.pairs.shortlist import Shortlist, shortlist_usable, top_k
from teacher_dump.plan import EARLIER_PAIRS, PAIRS, PLANNED_PHASE, TOPK_TEXTS, TOPK_VIDEOS, ShardTask
from teacher_dump.shard_files import blocks

if TYPE_CHECKING:
    from store.layout import TeacherPlan
    from teacher_dump.dump_shard import ShardDumper

Progress = Callable[[int], None]
NO_ROW = -1


def draw_batches(writer: CacheWriter, plan: TeacherPlan) -> PlannedBatches | None:
    """Draw and store the batches that the plan wants, over the videos that decoded; None if it wants none.

    The same videos give the same batches, so that a resume finds those that it drew before; raises
    IdentityError where another teacher stored others under that name, InputError if too few decoded.
    """
    if (wanted := plan.execution["pairs"]["plan"]) is None:
        return None
    options = BatchOptions(**wanted)
    usable = ShardedRows(writer.root, f"{view_path(plan.view.name)}/frame_valid").present
    usable = shortlist_usable(writer.root, plan, usable)
    video, text = rows_of_split(writer.samples, options.split)
    there = usable[video]
    batches = PlannedBatches.draw(
        options.split, video[there], text[there], options.batch, options.epochs, options.seed
    )
    writer.add_batch_plan(options.name, batches)
    return batches


class PairPhases:
    """Runs the tasks of one phase for the worker `dumper`, which has the teacher and the open cache."""

    def __init__(self, dumper: ShardDumper) -> None:
        self._dumper = dumper
        self._plan = dumper.plan
        self._told = dumper.plan.execution["pairs"]
        self._stored = dumper.stored_features()
        self._chosen = ChosenPairs(dumper.teacher, self._stored, self._told["block_texts"])

    def run(self, task: ShardTask, progress: Progress) -> Commit:
        phases = {
            PAIRS: self._dump_dense,
            EARLIER_PAIRS: self._dump_dense,
            PLANNED_PHASE: self._dump_planned,
            TOPK_TEXTS: self._dump_topk,
            TOPK_VIDEOS: self._dump_topk,
        }
        return phases[task.phase](task, progress)

    def _dump_dense(self, task: ShardTask, progress: Progress) -> Commit:
        """Rows of `video_text_logits`; memory beside a block: a strip of rows in float32, as large as one.

        Of videos that were there before, only the texts that were appended are scored.
        """
        counts = self._dumper.counts
        first = counts.first_text if task.phase == EARLIER_PAIRS else 0
        texts = np.arange(first, counts.first_text + counts.texts)
        with ExitStack() as stack:
            signals = self._dumper.score_files(stack, task)
            rows = np.arange(task.start, task.stop)
            rows = rows[self._stored.usable[rows]]
            for strip in blocks(rows, self._told["strip_videos"]):
                logits_VT = np.empty((len(strip), len(texts)), dtype=np.float32)
                for start, some in self._score_blocks(strip, texts):
                    logits_VT[start[0] : start[0] + some.shape[0], start[1] : start[1] + some.shape[1]] = some
                signals.append(strip, {LOGITS: logits_VT})
                progress(len(strip))
            progress(task.stop - task.start - len(rows))
            return Commit(task.name, tuple(signals.finish()), signals.errors)

    def _score_blocks(
        self, video_rows: np.ndarray, text_rows: np.ndarray
    ) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """((first video, first text), logits [v, t]) of every block of these rows."""
        for texts in blocks(np.arange(len(text_rows)), self._told["block_texts"]):
            of_texts = self._stored.texts(text_rows[texts])
            for videos in blocks(np.arange(len(video_rows)), self._told["block_videos"]):
                scores = self._dumper.teacher.score_pairs(self._stored.videos(video_rows[videos]), of_texts)
                yield (int(videos[0]), int(texts[0])), scores.float().cpu().numpy()

    def _dump_planned(self, task: ShardTask, progress: Progress) -> Commit:
        """Steps of the batch plan: whole blocks, or the best k of their rows in both directions."""
        options = BatchOptions(**self._told["plan"])
        batches = read_batch_plan(self._dumper.root, options.name)
        shortlist = self._shortlist() if options.k is not None else None
        with ExitStack() as stack:
            signals = self._dumper.signal_files(stack, task)
            for step in range(task.start, task.stop):
                video, text = batches.video[step], batches.text[step]
                if shortlist is None:
                    found = {f"planned_scores/{options.name}": self._block(video, text)}
                else:
                    found = self._best_of_batch(options, shortlist, video, text)
                signals.append([step], {name: values[np.newaxis] for name, values in found.items()})
                progress(1)
            return Commit(task.name, tuple(signals.finish()), signals.errors)

    def _shortlist(self) -> Shortlist:
        return Shortlist.open(self._dumper.root, self._plan, self._dumper.segments, self._stored.usable)

    def _block(self, video: np.ndarray, text: np.ndarray) -> np.ndarray:
        block = np.empty((len(video), len(text)), dtype=np.float32)
        for start, some in self._score_blocks(video, text):
            block[start[0] : start[0] + some.shape[0], start[1] : start[1] + some.shape[1]] = some
        return block

    def _best_of_batch(
        self, options: BatchOptions, shortlist: Shortlist, video: np.ndarray, text: np.ndarray
    ) -> dict[str, np.ndarray]:
        """MCAD's equations 5 and 6 for one step: places, and what the teacher says of those pairs."""
        assert options.k is not None
        similarity = shortlist.score(video, text)
        texts_BK, videos_BK = top_k(similarity, options.k), top_k(similarity.T, options.k)
        own_video, own_text = (np.broadcast_to(rows[:, np.newaxis], texts_BK.shape) for rows in (video, text))
        said = self._chosen.of_pairs(
            np.stack([own_video, video[videos_BK]]),
            np.stack([text[texts_BK], own_text]),
            self._told["fused_cls"],
        )
        return {
            topk_signal(options.name, way, part): values
            for at, (way, index) in enumerate(((TEXTS_OF_VIDEO, texts_BK), (VIDEOS_OF_TEXT, videos_BK)))
            for part, values in {INDEX: index, **{part: both[at] for part, both in said.items()}}.items()
        }

    def _dump_topk(self, task: ShardTask, progress: Progress) -> Commit:
        """Rows of `topk_scores` in one direction: each split's rows against the split's other side."""
        way = TEXTS_OF_VIDEO if task.phase == TOPK_TEXTS else VIDEOS_OF_TEXT
        size = self._told["block_videos" if way == TEXTS_OF_VIDEO else "block_texts"]
        shortlist = self._shortlist()
        with ExitStack() as stack:
            signals = self._dumper.signal_files(stack, task)
            rows = np.arange(task.start, task.stop)
            if way == TEXTS_OF_VIDEO:
                rows = rows[self._stored.usable[rows]]
            for some in blocks(rows, size):
                signals.append(some, self._best_of_split(way, shortlist, some))
                progress(len(some))
            return Commit(task.name, tuple(signals.finish()), signals.errors)

    @cached_property
    def _competing(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Video rows and text rows, ascending, that compete in each split of `topk_scores`."""
        usable = shortlist_usable(self._dumper.root, self._plan, self._stored.usable)
        found = []
        for split in self._told["topk"]["splits"]:
            video, text = rows_of_split(self._dumper.samples, split)
            there = usable[video]
            found.append((np.unique(video[there]), np.unique(text[there])))
        return found

    def _best_of_split(self, way: str, shortlist: Shortlist, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of `rows` [N] the K best of a shortlist by what the teacher says of those pairs, best first."""
        index = np.full((len(rows), self._told["topk"]["k"]), NO_ROW, dtype=np.int64)
        for videos_of_split, texts_of_split in self._competing:
            ours, theirs = videos_of_split, texts_of_split
            if way == VIDEOS_OF_TEXT:
                ours, theirs = theirs, ours
            rank = shortlist.texts_of_videos if way == TEXTS_OF_VIDEO else shortlist.videos_of_texts
            competing = np.flatnonzero(np.isin(rows, ours))
            if len(competing):
                index[competing] = rank(rows[competing], theirs, index.shape[1])
        own = np.broadcast_to(rows[:, np.newaxis], index.shape)
        videos, texts = (own, index) if way == TEXTS_OF_VIDEO else (index, own)
        said = self._chosen.of_pairs(videos, texts)
        order = np.argsort(np.where(index == NO_ROW, np.inf, -said[SCORE]), axis=1, kind="stable")
        return {
            f"topk_scores/{way}_{part}": np.take_along_axis(values, order, axis=1)
            for part, values in {INDEX: index, **said}.items()
        }
