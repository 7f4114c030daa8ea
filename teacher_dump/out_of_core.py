"""Signals of a finished cache as dask arrays, for work on more than fits in memory.

An array knows where its rows lie and reads them block by block when it is computed, by threads of this
process or by the workers of a cluster that see the same folder.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

from store.errors import InputError
from store.lookup import check_name
from store.parts import TEACHERS, groups_of
from store.reader import Cache, TeacherReader, open_cache

BLOCK_BYTES = 1 << 27
PLACED = np.dtype([("score", np.float32), ("place", np.int64)])


def signal_array(cache: Cache, teacher: str, signal: str) -> da.Array:
    """One signal decoded: [V, ...] or [T, ...] float32, NaN in rows without data (bool, int32 as stored).

    Blocks are whole rows, up to 128 MB. Raises UnknownNameError for a teacher or signal that is not there.
    """
    rows = StoredSignal(cache, teacher, signal)
    row_bytes = max(int(np.prod(rows.shape[1:])) * rows.dtype.itemsize, 1)
    chunks = (max(BLOCK_BYTES // row_bytes, 1), *rows.shape[1:])
    return da.from_array(rows, chunks=chunks, asarray=False, name=_name(cache, teacher, signal))


def score_array(cache: Cache, teacher: str) -> da.Array:
    """Logits [V, T] of all pairs, float32, NaN where they are not known; from whatever the teacher stored.

    Blocks are whole rows of videos, up to 128 MB.
    """
    counts = cache.counts
    check_name("teacher", teacher, cache.teacher_names)
    rows = StoredScores(cache, teacher, (counts.videos, counts.texts))
    chunks = (max(BLOCK_BYTES // (4 * counts.texts), 1), counts.texts)
    return da.from_array(rows, chunks=chunks, asarray=False, name=_name(cache, teacher, "scores"))


def top_k(scores: da.Array, k: int, axis: int = 1) -> tuple[da.Array, da.Array]:
    """The best `k` along `axis` of scores [V, T], best first: places int64 and scores float32.

    axis 1: texts of each video, [V, k]; axis 0: videos of each text, [k, T]. A place is -1 and its score NaN
    where fewer are known; of equal scores the first comes first. Raises InputError unless
    1 <= k <= length of the axis.
    """
    if not 1 <= k <= scores.shape[axis]:
        raise InputError(f"the best k of {scores.shape[axis]} are asked for with k from 1 to that, not {k}")
    placed = da.map_blocks(with_places, scores, axis=axis, dtype=PLACED)
    best = partial(best_of, k=k)
    found = da.reduction(
        placed, best, best, axis=axis, combine=best, dtype=PLACED, output_size=k, keepdims=True
    )
    return found["place"], da.where(found["place"] < 0, np.nan, found["score"])


def with_places(scores: np.ndarray, axis: int, block_info: Any = None) -> np.ndarray:
    """PLACED of a block: each score with where it lies along `axis`; -1 and -inf where it is not known."""
    placed = np.empty(scores.shape, dtype=PLACED)
    first, end = block_info[0]["array-location"][axis] if block_info else (0, scores.shape[axis])
    places = np.arange(first, end).reshape([-1 if number == axis else 1 for number in range(scores.ndim)])
    known = ~np.isnan(scores)
    placed["place"] = np.where(known, places, -1)
    placed["score"] = np.where(known, scores, -np.inf)
    return placed


def best_of(placed: np.ndarray, axis: tuple[int, ...], k: int, keepdims: bool) -> np.ndarray:
    """The best `k` of PLACED along the one `axis`, best first."""
    order = np.argsort(-placed["score"], axis=axis[0], kind="stable")
    return np.take_along_axis(placed, order.take(np.arange(min(k, placed.shape[axis[0]])), axis[0]), axis[0])


def statistics(array: da.Array) -> dict[str, float]:
    """mean, std, min, max of what is there, and the part that is not; one pass over the blocks."""
    there = ~da.isnan(array)
    lazy = {
        "mean": da.nanmean(array, dtype=np.float64),
        "std": da.nanstd(array, dtype=np.float64),
        "min": da.nanmin(array),
        "max": da.nanmax(array),
        "missing": 1 - there.mean(dtype=np.float64),
    }
    (found,) = dask.compute(lazy)
    return {name: float(value) for name, value in found.items()}


class SignalParts:
    """The stored arrays of one signal and what decodes them."""

    def __init__(self, cache: Cache, teacher: str, signal: str) -> None:
        reader = cache.teacher(teacher, resident_bytes=0)
        self.codec = reader.codec(signal)
        stored = reader.stored[signal]
        self._parts = {part: stored.rows(cache.path, part) for part in self.codec.parts}
        self.present = next(iter(self._parts.values())).present

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The rows `rows` [N], decoded: [N, ...]."""
        return self.codec.decode({part: stored.read(rows) for part, stored in self._parts.items()})


class StoredSignal:
    """Rows of one signal as dask slices them; goes to another process as a path."""

    def __init__(self, cache: Cache, teacher: str, signal: str) -> None:
        self._source = (cache.path.absolute(), teacher, signal, version(cache, teacher))
        parts = opened_signal(*self._source)
        empty = parts.read(np.arange(0))
        self.shape = (len(parts.present), *empty.shape[1:])
        self.dtype = empty.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        parts = opened_signal(*self._source)
        rows = np.arange(self.shape[0])[key[0]]
        there = parts.present[rows]
        fill = np.nan if self.dtype.kind == "f" else 0
        out = np.full((len(rows), *self.shape[1:]), fill, dtype=self.dtype)
        out[there] = parts.read(rows[there])
        return out[(slice(None), *key[1:])]


class StoredScores:
    """Scores of all pairs as dask slices them."""

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, cache: Cache, teacher: str, shape: tuple[int, int]) -> None:
        self._source = (cache.path.absolute(), teacher, version(cache, teacher))
        self.shape = shape

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        videos, texts = (np.arange(length)[some] for length, some in zip(self.shape, key, strict=True))
        scores, known = opened(*self._source).pair_scores(videos, texts)
        found: Any = np.where(known, scores.astype(np.float32), np.float32(np.nan))
        return found


@lru_cache(maxsize=8)
def opened(path: Path, teacher: str, version: str) -> TeacherReader:
    """The reader of a teacher of a finished cache, once a process and `version`."""
    return open_cache(path).teacher(teacher, resident_bytes=0)


@lru_cache(maxsize=64)
def opened_signal(path: Path, teacher: str, signal: str, version: str) -> SignalParts:
    """One signal of a finished cache, once a process and `version`."""
    return SignalParts(open_cache(path), teacher, signal)


def version(cache: Cache, teacher: str) -> str:
    """The digest of what the teacher holds, of its parts one behind the other where it has several."""
    groups = cache.manifest.groups
    return "-".join(groups[group.path] for group in groups_of(groups, TEACHERS, teacher))


def _name(cache: Cache, teacher: str, what: str) -> str:
    """Of a dask array: the same for the same bytes."""
    return f"{teacher}-{what}-{version(cache, teacher)}"
