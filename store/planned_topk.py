"""The best K of every row of a planned batch, in both directions: what a step of training replays.

MCAD's equations 5 and 6 (EMNLP 2024): a dual-stream teacher ranks a batch, row by row of its similarities
for videos and column by column for texts, and the single-stream teacher scores the K best of each.

    text_*   [S,B,K]   of the video in place l of step s: the texts in places index[s, l]
    video_*  [S,B,K]   of the text in place l of step s: the videos in places index[s, l]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from store.errors import DamagedCacheError, InputError
from store.plans import PlannedBatches
from store.signals import SignalSpec

TEXTS_OF_VIDEO, VIDEOS_OF_TEXT = "text", "video"
INDEX, SCORE, MISMATCH, FUSED = "index", "score", "mismatch", "fused_cls"

Read = Callable[[str, np.ndarray], np.ndarray]
"""Rows of a signal by its name, decoded."""


def topk_signal(plan: str, direction: str, part: str) -> str:
    """Name of one of the signals of `planned_topk`."""
    return f"planned_topk/{plan}/{direction}_{part}"


def topk_plan(signals: Mapping[str, SignalSpec]) -> str | None:
    """The batch plan whose top-k `signals` hold in both directions, None if they hold none."""
    plans = [name.split("/")[1] for name in signals if name.startswith("planned_topk/")]
    needed = [(way, part) for way in (TEXTS_OF_VIDEO, VIDEOS_OF_TEXT) for part in (INDEX, SCORE)]
    return next((p for p in plans if all(topk_signal(p, *parts) in signals for parts in needed)), None)


@dataclass(frozen=True)
class BatchTopk:
    """One direction of one step.

    index: [B, K] int, places in the batch, as the shortlist ranked them. score: [B, K], raw match logits.
    mismatch: [B, K], the raw logits against; None where the teacher judges by one number. fused_cls:
    [B, K, D], None if it was not stored.
    """

    index: np.ndarray
    score: np.ndarray
    mismatch: np.ndarray | None
    fused_cls: np.ndarray | None

    @property
    def probability(self) -> np.ndarray | None:
        """[B, K] float32: the softmax of match against mismatch; None where there is no mismatch."""
        if self.mismatch is None:
            return None
        margin = self.score.astype(np.float32) - self.mismatch.astype(np.float32)
        return 1 / (1 + np.exp(-margin))


class PlannedTopk:
    """The stored top-k of a batch plan's steps. read: of the teacher that has `signals`."""

    def __init__(
        self, batches: PlannedBatches, plan: str, signals: Mapping[str, SignalSpec], read: Read
    ) -> None:
        self.batches = batches
        self._plan = plan
        self._signals = signals
        self._read = read

    def step_of(self, video_rows: np.ndarray, text_rows: np.ndarray) -> int:
        """The step that these rows replay, in this order; raises InputError for other rows."""
        step = self.batches.replayed_step(video_rows, text_rows)
        if step is None:
            raise InputError(
                f"these {len(text_rows)} rows are no step of batch plan {self._plan!r} (batches of "
                f"{self.batches.batch_size}): its top-k belongs to its batches; train with its batch size "
                "and seed"
            )
        return step

    def texts_of_videos(self, step: int) -> BatchTopk:
        """P_i2t and the scores of it: of every video of the step."""
        return self._direction(step, TEXTS_OF_VIDEO)

    def videos_of_texts(self, step: int) -> BatchTopk:
        """P_t2i and the scores of it: of every text of the step."""
        return self._direction(step, VIDEOS_OF_TEXT)

    def _direction(self, step: int, direction: str) -> BatchTopk:
        def part(name: str) -> np.ndarray | None:
            signal = topk_signal(self._plan, direction, name)
            return self._read(signal, np.array([step]))[0] if signal in self._signals else None

        index, score = part(INDEX), part(SCORE)
        assert index is not None
        assert score is not None
        if index.size and not 0 <= index.min() <= index.max() < self.batches.batch_size:
            raise DamagedCacheError(
                f"{topk_signal(self._plan, direction, INDEX)}, step {step}: places from {index.min()} to "
                f"{index.max()} in a batch of {self.batches.batch_size}; pull the cache again"
            )
        return BatchTopk(index, score, part(MISMATCH), part(FUSED))

    def known_block(self, step: int) -> np.ndarray:
        """[B_video, B_text] float32: the score of every pair that either direction holds, else NaN."""
        size = self.batches.batch_size
        block = np.full((size, size), np.nan, dtype=np.float32)
        for direction, target in ((TEXTS_OF_VIDEO, block), (VIDEOS_OF_TEXT, block.T)):
            topk = self._direction(step, direction)
            target[np.arange(size)[:, np.newaxis], topk.index] = topk.score
        return block


class PlannedTopkScores:
    """Pair scores of a plan's top-k.

    Of a step replayed whole, exactly what that step scored; of other rows, what any step that holds both
    rows of a pair scored of it.
    """

    def __init__(self, topk: PlannedTopk) -> None:
        self._topk = topk

    def score(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches = self._topk.batches
        step = batches.replayed_step(video_rows, text_rows)
        if step is not None:
            scores = self._topk.known_block(step)
            return scores, ~np.isnan(scores)
        scores = np.full((len(video_rows), len(text_rows)), np.nan, dtype=np.float32)
        for some in batches.steps_of(text_rows):
            of_video = video_rows[:, np.newaxis] == batches.video[some]
            of_text = text_rows[:, np.newaxis] == batches.text[some]
            places, columns = of_video.argmax(1), of_text.argmax(1)
            found = self._topk.known_block(some)[places[:, np.newaxis], columns]
            found[~of_video.any(1)] = np.nan
            found[:, ~of_text.any(1)] = np.nan
            np.copyto(scores, found, where=np.isnan(scores))
        return scores, ~np.isnan(scores)
