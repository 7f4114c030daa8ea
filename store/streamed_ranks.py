"""Retrieval metrics from blocks of scores, never the whole V x T: the ranks of `store.retrieval_metrics`.

texts, those of a video side by side
+-----+-----+-----+   first pass: the best right score of every query, in the blocks
| . x |     |     |   that hold a right pair (x)
+-----+-----+-----+   second pass: how many wrong candidates are not below it
|     | x x | .   |   Memory: one block, and a few numbers for each video and each text
+-----+-----+-----+
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from store.errors import InputError
from store.inputs.protocol import EQUAL_CAPTIONS, EVERY_CAPTION, MULTI_CAPTION
from store.retrieval_metrics import DIRECTIONS, check_protocol, checked_keys, summary

ROWS_AT_ONCE = 512
ScoreBlock = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(video places [v], text places [t]) -> scores [v, t] by which texts rank videos, and by which videos rank
texts. Asked again for the same places it gives the same."""


def streamed_metrics(
    scores: ScoreBlock,
    videos: int,
    text_video_T: ArrayLike,
    protocol: str = EVERY_CAPTION,
    text_key_T: ArrayLike | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
) -> dict[str, dict[str, float]]:
    """What `retrieval_metrics` says of the same scores, asked for in blocks of about `rows_at_once` squared.

    A block is larger where one video has more texts than that. Raises as `retrieval_metrics` does.
    """
    text_video = np.asarray(text_video_T)
    fits = text_video.ndim == 1 and text_video.size > 0 and text_video.dtype.kind in "iu"
    if not fits or text_video.min() < 0 or text_video.max() >= videos:
        raise InputError(f"text_video is [T] row numbers from 0 to {videos - 1}, not what came")
    check_protocol(protocol, text_video)
    keys = checked_keys(text_video, text_key_T) if protocol == EQUAL_CAPTIONS else None
    grid = Grid.of(videos, text_video, rows_at_once, keys)
    best = best_right_scores(scores, grid)
    ranks = count_ranks(scores, grid, best, by_sets=protocol == MULTI_CAPTION)
    return {direction: summary(found) for direction, found in zip(DIRECTIONS, ranks, strict=True)}


@dataclass(frozen=True)
class Grid:
    """Blocks of pairs, and which of them are right.

    video_strips, text_strips: places [v] and [t]; texts of one video are never in two strips.
    text_video: [T], each text's own video. keys: [T], the same for equal texts, which are then right for
    all their videos; None where a text is right for its own video alone.
    """

    video_strips: tuple[np.ndarray, ...]
    text_strips: tuple[np.ndarray, ...]
    text_video: np.ndarray
    keys: np.ndarray | None

    @classmethod
    def of(cls, videos: int, text_video: np.ndarray, rows_at_once: int, keys: np.ndarray | None) -> Grid:
        order = np.argsort(text_video, kind="stable")
        begins = np.unique(text_video[order], return_index=True)[1]
        _, firsts = np.unique(begins // rows_at_once, return_index=True)
        texts = tuple(np.split(order, begins[firsts][1:]))
        places = np.arange(videos)
        return cls(tuple(np.split(places, places[::rows_at_once][1:])), texts, text_video, keys)

    @property
    def videos(self) -> int:
        return sum(map(len, self.video_strips))

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(videos [v], texts [t], right [v, t] bool) of every block."""
        for texts in self.text_strips:
            videos_of = self.videos_of(texts)
            for videos in self.video_strips:
                yield videos, texts, self.right(videos, texts, videos_of)

    def videos_of(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Right pairs of `texts`: the video, and the place in `texts`, of each."""
        if self.keys is None:
            return self.text_video[texts], np.arange(len(texts))
        wanted, place = np.unique(self.keys[texts], return_inverse=True)
        equal = np.flatnonzero(np.isin(self.keys, wanted))
        pairs = np.unique(
            np.stack([np.searchsorted(wanted, self.keys[equal]), self.text_video[equal]]), axis=1
        )
        starts, ends = (np.searchsorted(pairs[0], place, side) for side in ("left", "right"))
        columns = np.repeat(np.arange(len(texts)), ends - starts)
        within = np.arange(len(columns)) - np.repeat(
            np.cumsum(ends - starts) - (ends - starts), ends - starts
        )
        return pairs[1][np.repeat(starts, ends - starts) + within], columns

    @staticmethod
    def right(videos: np.ndarray, texts: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        inside = (pairs[0] >= videos[0]) & (pairs[0] <= videos[-1])
        found = np.zeros((len(videos), len(texts)), dtype=bool)
        found[pairs[0][inside] - videos[0], pairs[1][inside]] = True
        return found


@dataclass(frozen=True)
class BestRight:
    """The best right score of every query, -inf where all of them are NaN: float64 [T] and [V].

    with_text: bool [V], the videos that have a right text, which alone are queries.
    """

    of_text: np.ndarray
    of_video: np.ndarray
    with_text: np.ndarray


def best_right_scores(scores: ScoreBlock, grid: Grid) -> BestRight:
    """The first pass, over the blocks that hold a right pair."""
    best = BestRight(
        np.full(len(grid.text_video), -np.inf),
        np.full(grid.videos, -np.inf),
        np.zeros(grid.videos, dtype=bool),
    )
    for videos, texts, right in grid.blocks():
        if not right.any():
            continue
        for axis, rows, of_query, block in zip(
            (0, 1), (texts, videos), (best.of_text, best.of_video), scores(videos, texts), strict=True
        ):
            usable = np.where(right & ~np.isnan(block), block, -np.inf).max(axis=axis)
            of_query[rows] = np.maximum(of_query[rows], usable)
        best.with_text[videos] |= right.any(axis=1)
    return best


def count_ranks(
    scores: ScoreBlock, grid: Grid, best: BestRight, by_sets: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The second pass: ranks [T] of texts, and of the videos with a text, int64 from 1.

    by_sets: a video's texts are one candidate, as good as the best of them.
    """
    ahead_of_text, ahead_of_video = (
        np.zeros(len(best.of_text), np.int64),
        np.zeros(len(best.of_video), np.int64),
    )
    for videos, texts, right in grid.blocks():
        by_text, by_video = scores(videos, texts)
        wrong = ~right
        not_below = ~(by_text < best.of_text[texts].astype(by_text.dtype)) & wrong
        ahead_of_text[texts] += np.count_nonzero(not_below, axis=0)
        not_below = ~(by_video < best.of_video[videos, np.newaxis].astype(by_video.dtype)) & wrong
        if by_sets:
            begins = np.flatnonzero(np.diff(grid.text_video[texts], prepend=-1))
            not_below = np.logical_or.reduceat(not_below, begins, axis=1)
        ahead_of_video[videos] += np.count_nonzero(not_below, axis=1)
    return ahead_of_text + 1, (ahead_of_video + 1)[best.with_text]


def undirected(scores: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> ScoreBlock:
    """Scores that rank in both directions alike."""

    def both(videos: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        block = scores(videos, texts)
        return block, block

    return both
