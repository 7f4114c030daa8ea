"""Who chooses the pairs that a costly teacher scores: a dual encoder's ranking, block by block.

MCAD's equation 5, and the re-ranking of ALBEF's `Retrieval.py: evaluation`, which ranks by the cosine of its
own embeddings. A softmax over a row or a positive temperature does not change which are the best of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from store.durable import canonical_json
from store.errors import InputError
from store.inputs.samples import Segment
from store.layout import TeacherPlan
from store.pair_scores import DENSE, FACTORED, FactoredScores, PairScores
from store.reader import open_cache
from teacher_dump.shard_files import StoredRows, stored_signals

CANDIDATES_AT_ONCE = 4096
OWN_EMBEDDINGS = ("temporal_frame_embedding", "frame_embedding")

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From video rows [V] and text rows [T] to similarities [V, T]; NaN where there is none."""


def shortlist_identity(root: Path, own_name: str, wanted: str) -> dict[str, Any]:
    """What the labels tell of who ranked: its name, and of another teacher the sha256 of its identity.

    wanted: a finished teacher of the cache at `root`; "" or the teacher itself for its own embeddings. Raises
    InputError for a teacher that does not know every pair, MissingFileError or UnknownNameError where there
    is none.
    """
    if wanted in ("", own_name):
        return {"teacher": own_name}
    reader = open_cache(root).teacher(wanted)
    if reader.pair_layout.layout not in (DENSE, FACTORED):
        raise InputError(
            f"teacher {wanted!r} knows only some pairs ({reader.pair_layout.layout}) and can't choose among "
            "all; --shortlist wants one with factored or dense scores"
        )
    digest = hashlib.sha256(canonical_json(dict(reader.identity))).hexdigest()
    return {"teacher": wanted, "identity_sha256": digest}


class Shortlist:
    """Similarities that choose; usable [V] bool: which videos can be chosen, or choose."""

    def __init__(self, score: Score, usable: np.ndarray) -> None:
        self.score = score
        self.usable = usable

    @classmethod
    def open(
        cls, root: Path, plan: TeacherPlan, segments: Sequence[Segment], usable: np.ndarray
    ) -> Shortlist:
        """Of the teacher that the plan's `execution` names, for videos that are `usable` [V] themselves."""
        name = plan.execution["pairs"]["shortlist"]["teacher"]
        if name == plan.name:
            return cls(own_similarities(root, plan, segments, usable), usable)
        reader = open_cache(root).teacher(name)
        return cls(lambda videos, texts: reader.pair_scores(videos, texts)[0], usable & reader.video_usable)

    def texts_of_videos(self, videos: np.ndarray, candidates: np.ndarray, k: int) -> np.ndarray:
        """[N, k]: of each of `videos` [N], the rows of the k best of the texts `candidates`, then -1."""
        return best_rows(lambda some: self.score(videos, some), len(videos), candidates, k)

    def videos_of_texts(self, texts: np.ndarray, candidates: np.ndarray, k: int) -> np.ndarray:
        """[N, k]: of each of `texts` [N], the rows of the k best of the videos `candidates`, then -1."""
        return best_rows(lambda some: self.score(some, texts).T, len(texts), candidates, k)


def shortlist_usable(root: Path, plan: TeacherPlan, usable: np.ndarray) -> np.ndarray:
    """[V] bool: of the videos that are `usable` to the plan's teacher, those that its shortlist knows."""
    told = plan.execution["pairs"]["shortlist"]
    if told is None or told["teacher"] == plan.name:
        return usable
    return usable & open_cache(root).teacher(told["teacher"]).video_usable


def own_similarities(root: Path, plan: TeacherPlan, segments: Sequence[Segment], usable: np.ndarray) -> Score:
    """Cosines of the plan's own stored embeddings, as `store.pair_scores.FactoredScores` pools them.

    Memory: see there. Raises InputError if it stores none.
    """
    names = stored_signals(root, plan.name, segments)
    frames = next((name for name in OWN_EMBEDDINGS if name in names), None)
    if frames is None or "text_embedding" not in names:
        raise InputError(
            f"teacher {plan.name!r} stores no embeddings of its own to choose pairs by; name another teacher "
            "by --shortlist"
        )
    source = StoredRows(root, plan, segments, (frames, "text_embedding"), usable)
    scores = FactoredScores(source, PairScores(FACTORED, 1.0, frames, "text_embedding"))
    return lambda videos, texts: scores.score(videos, texts)[0]


def best_rows(
    similarity: Callable[[np.ndarray], np.ndarray], queries: int, candidates: np.ndarray, k: int
) -> np.ndarray:
    """[N, k] int64: of each query the candidates with the highest similarity, best first, then -1.

    similarity: from some of the `candidates` [C] to [N, C'], which has no NaN. Of equals the earlier
    candidate is better. Memory: N x (k + CANDIDATES_AT_ONCE).
    """
    rows: np.ndarray = np.empty((queries, 0), dtype=np.int64)
    scores: np.ndarray = np.empty((queries, 0), dtype=np.float32)
    for start in range(0, len(candidates), CANDIDATES_AT_ONCE):
        some = candidates[start : start + CANDIDATES_AT_ONCE]
        rows = np.concatenate([rows, np.broadcast_to(some, (queries, len(some)))], axis=1)
        scores = np.concatenate([scores, similarity(some)], axis=1, dtype=np.float32)
        places = top_k(scores, k)
        rows, scores = (np.take_along_axis(values, places, axis=1) for values in (rows, scores))
    missing = k - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)


def top_k(scores_NC: np.ndarray, k: int) -> np.ndarray:
    """[N, min(k, C)] int64: columns of each row's highest scores, best first; of equals the first ones."""
    count = scores_NC.shape[1]
    if k < count:
        least = np.partition(scores_NC, count - k, axis=1)[:, count - k, np.newaxis]
        above = scores_NC > least
        ties = scores_NC == least
        wanted_ties = k - above.sum(axis=1, keepdims=True)
        chosen = above | (ties & (ties.cumsum(axis=1) <= wanted_ties))
        columns = np.nonzero(chosen)[1].reshape(-1, k)
    else:
        columns = np.broadcast_to(np.arange(count), scores_NC.shape)
    order = np.argsort(-np.take_along_axis(scores_NC, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
