"""Scores of video-text pairs behind one question: these videos against these texts, and which are known.

    dense      the array video_text_logits: any block, gathered from a memory map or from RAM
    planned    blocks b x b of a batch plan's steps: what training will see, and nothing else
    planned_topk  of such blocks the best K of every row and column (`store.planned_topk`)
    topk       the best K texts of a video and videos of a text; all other pairs are unknown
    factored   a product of embeddings at read time: any block, exact

DESIGN.md section 4. What is not known is NaN, so that nobody can mistake it for a score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from store.joined_rows import JoinedScores, Rows
from store.planned_topk import topk_plan
from store.plans import PlannedBatches
from store.sharded_rows import ShardedRows
from store.signals import SignalSpec, plan_of

DENSE, PLANNED, PLANNED_TOPK = "dense", "planned", "planned_topk"
TOPK, FACTORED, NO_PAIRS = "topk", "factored", "none"
VECTOR_BYTES = 1 << 30
LAYOUTS = (DENSE, PLANNED, PLANNED_TOPK, TOPK, FACTORED)
TOPK_SIGNALS = tuple(
    f"topk_scores/{name}" for name in ("text_index", "text_score", "video_index", "video_score")
)


@dataclass(frozen=True)
class PairScores:
    """Where a teacher's pair scores come from: the first of LAYOUTS that its signals allow.

    factored: logit_scale times the cosine of the masked mean of normalised `video_signal` frames with
    `text_signal`. planned, planned_topk: of the blocks of batch plan `plan`.
    """

    layout: str
    logit_scale: float | None = None
    video_signal: str | None = None
    text_signal: str | None = None
    plan: str | None = None

    @classmethod
    def of(cls, signals: Mapping[str, SignalSpec], logit_scale: float | None) -> PairScores:
        if "video_text_logits" in signals:
            return cls(DENSE, logit_scale)
        planned = next((name for name in signals if name.startswith("planned_scores/")), None)
        if planned is not None:
            return cls(PLANNED, logit_scale, plan=plan_of(planned))
        if (plan := topk_plan(signals)) is not None:
            return cls(PLANNED_TOPK, logit_scale, plan=plan)
        if set(TOPK_SIGNALS) <= set(signals):
            return cls(TOPK, logit_scale)
        frames = next((s for s in ("temporal_frame_embedding", "frame_embedding") if s in signals), None)
        if logit_scale is None or frames is None or "text_embedding" not in signals:
            return cls(NO_PAIRS)
        return cls(FACTORED, logit_scale, frames, "text_embedding")

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


class PairScorer(Protocol):
    """Answers the question for one teacher."""

    def score(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(scores, known), both [V, T]: raw logits, NaN where unknown, and bool.

        float16 where they are stored, as they are stored; float32 where they are computed.
        """
        ...


class DenseScores:
    """Any block of `video_text_logits` [V, T]."""

    def __init__(self, logits: ShardedRows | JoinedScores) -> None:
        self._logits = logits

    def score(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self._logits, JoinedScores):
            found = self._logits.gather(video_rows, text_rows)
            return found, ~np.isnan(found)
        there = self._logits.present[video_rows]
        known = np.broadcast_to(there[:, np.newaxis], (len(video_rows), len(text_rows)))
        if there.all():
            return self._logits.gather(video_rows, text_rows), known
        scores = np.full(known.shape, np.nan, dtype=np.float16)
        scores[there] = self._logits.gather(video_rows[there], text_rows)
        return scores, known


class PlannedScores:
    """Blocks of a plan: a pair is known if some step holds both its video and its text."""

    def __init__(self, batches: PlannedBatches, blocks: Rows) -> None:
        self._batches = batches
        self._blocks = blocks

    def score(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(video_rows), len(text_rows))
        step = self._batches.replayed_step(video_rows, text_rows)
        if step is not None:
            return self._block(step), np.ones(shape, dtype=bool)
        scores = np.full(shape, np.nan, dtype=np.float16)
        for some in self._batches.steps_of(text_rows):
            video_place, has_video = places_in(self._batches.video[some], video_rows)
            text_place, has_text = places_in(self._batches.text[some], text_rows)
            places, columns = np.flatnonzero(has_video), np.flatnonzero(has_text)
            found = self._block(some)[np.ix_(video_place[places], text_place[columns])]
            scores[np.ix_(places, columns)] = found
            if found.shape == shape:
                break
        return scores, ~np.isnan(scores)

    def _block(self, step: int) -> np.ndarray:
        block: np.ndarray = self._blocks.read(np.array([step]))[0]
        return block


class TopkScores:
    """Both directions of `topk_scores`; `index` [N, K] int32 with -1 behind the last, `score` [N, K]."""

    def __init__(
        self,
        texts_of_video: tuple[np.ndarray, np.ndarray],
        videos_of_text: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self._texts_of_video = texts_of_video
        self._videos_of_text = videos_of_text

    def score(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(video_rows), len(text_rows)), np.nan, dtype=np.float16)
        _scatter(scores, self._texts_of_video, video_rows, text_rows)
        _scatter(scores.T, self._videos_of_text, text_rows, video_rows)
        return scores, ~np.isnan(scores)


def _scatter(
    scores: np.ndarray, ranked: tuple[np.ndarray, np.ndarray], rows: np.ndarray, columns: np.ndarray
) -> None:
    """Write into `scores` [N, C] what the rankings of `rows` [N] say of `columns` [C]; repeats are served."""
    index, score = ranked
    distinct, inverse = np.unique(columns, return_inverse=True)
    place, found = places_in(distinct, index[rows].ravel())
    among = np.full((len(rows), len(distinct)), np.nan, dtype=np.float16)
    row = np.repeat(np.arange(len(rows)), index.shape[1])
    among[row[found], place[found]] = score[rows].ravel()[found]
    among = among[:, inverse]
    np.copyto(scores, among, where=~np.isnan(among))


def places_in(rows: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `wanted` [N] stands in `rows` [B] (int64, 0 if it does not), and whether it does."""
    order = np.argsort(rows, kind="stable")
    at = np.minimum(np.searchsorted(rows, wanted, sorter=order), len(rows) - 1)
    place = order[at]
    found = rows[place] == wanted
    return np.where(found, place, 0), found


class FactoredScores:
    """The product of stored embeddings, pooled and normalised once a row.

    Memory: one float32 vector for each video and each text, up to VECTOR_BYTES for either; of larger tables
    they are made anew for every block.
    """

    def __init__(self, source: FeatureSource, layout: PairScores) -> None:
        assert layout.video_signal is not None
        assert layout.text_signal is not None
        assert layout.logit_scale is not None
        frames, texts, scale = layout.video_signal, layout.text_signal, np.float32(layout.logit_scale)
        self._usable, self._text_usable = source.video_usable, source.text_usable

        def video_vectors(rows: np.ndarray) -> np.ndarray:
            frames_VMD = source.read_decoded(frames, rows)[:, 0]
            return scale * pooled(frames_VMD, source.frame_valid[rows, 0])

        def text_vectors(rows: np.ndarray) -> np.ndarray:
            return normalised(source.read_decoded(texts, rows))

        self._videos = RowVectors(source.row_count(frames), video_vectors)
        self._texts = RowVectors(source.row_count(texts), text_vectors)

    def score(self, video_rows: np.ndarray, text_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        there, stored = self._usable[video_rows], self._text_usable[text_rows]
        if there.all() and stored.all():
            known = np.broadcast_to(np.True_, (len(video_rows), len(text_rows)))
            return self._videos(video_rows) @ self._texts(text_rows).T, known
        known = there[:, np.newaxis] & stored
        scores = np.full(known.shape, np.nan, dtype=np.float32)
        scores[known] = (self._videos(video_rows[there]) @ self._texts(text_rows[stored]).T).ravel()
        return scores, known


class RowVectors:
    """A float32 vector [D] of each of `count` rows, made by `make` when it is first asked for, then kept."""

    def __init__(self, count: int, make: Callable[[np.ndarray], np.ndarray]) -> None:
        self._make = make
        self._made = np.zeros(count, dtype=bool)
        self._kept: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """[N, D] of the rows `rows` [N]."""
        missing = rows[~self._made[rows]]
        if len(missing):
            missing = np.unique(missing)
            made = self._make(missing)
            if made.shape[1] * len(self._made) * made.itemsize > VECTOR_BYTES:
                return made[np.searchsorted(missing, rows)]
            if self._kept is None:
                self._kept = np.empty((len(self._made), made.shape[1]), dtype=np.float32)
            self._kept[missing] = made
            self._made[missing] = True
        if self._kept is None:
            return self._make(rows)
        return self._kept[rows]


class FeatureSource(Protocol):
    """What factored scores read: a `store.reader.TeacherReader`."""

    @property
    def video_usable(self) -> np.ndarray: ...

    @property
    def text_usable(self) -> np.ndarray: ...

    @property
    def frame_valid(self) -> np.ndarray: ...

    def row_count(self, signal: str) -> int: ...

    def read_decoded(self, signal: str, rows: np.ndarray) -> np.ndarray: ...


def pooled(frames_VMD: np.ndarray, valid_VM: np.ndarray) -> np.ndarray:
    """Unit vectors [V, D] float32 of videos, from their valid frames.

    CLIP4Clip's pooling (`modules/modeling.py: _mean_pooling_for_similarity_visual`): frames normalised, mean
    over the valid ones, normalised again.
    """
    frames_VMD = np.where(valid_VM[..., None], normalised(frames_VMD), 0)
    return normalised(frames_VMD.sum(1) / valid_VM.sum(1, keepdims=True))


def normalised(values: np.ndarray) -> np.ndarray:
    """Float32 vectors of length 1 along the last axis; a zero vector stays zero."""
    values = values.astype(np.float32)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.where(length > 0, length, 1)
