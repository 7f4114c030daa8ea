"""How far what a teacher says now lies from what a cache holds, row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

VIDEOS, TEXTS, PAIRS, ITSELF = "videos", "texts", "pairs", "teacher"
FAINT = 0.01
"""A row shorter than this share of the longest is held to the longest: next to nothing has no direction."""


@dataclass
class Comparison:
    """Stored rows of one signal against the same rows computed anew, which come in pieces.

    of: VIDEOS, TEXTS, PAIRS or ITSELF, what it is computed from. tolerance: relative L2 difference that a row
    may show. rank_agreement: share of stored neighbours, best first, that the teacher ranks alike;
    None for a signal that ranks nothing.
    """

    signal: str
    of: str
    tolerance: float
    rows: list[int] = field(default_factory=list)
    max_abs: float = 0.0
    min_cosine: float = 1.0
    rank_agreement: float | None = None
    _errors: list[float] = field(default_factory=list)
    _lengths: list[float] = field(default_factory=list)

    def add(self, rows: np.ndarray, stored: np.ndarray, fresh: np.ndarray) -> None:
        """Take in `stored` and `fresh` [N, ...] of the rows `rows` [N]; what both lack (NaN) is left out."""
        a, b = (values.astype(np.float64).reshape(len(rows), -1) for values in (stored, fresh))
        both_lack = np.isnan(a) & np.isnan(b)
        a, b = np.where(both_lack, 0, a), np.where(both_lack, 0, b)
        difference = np.nan_to_num(b - a, nan=np.inf, posinf=np.inf, neginf=np.inf)
        self.rows += [int(row) for row in rows]
        self._errors += np.linalg.norm(difference, axis=1).tolist()
        self._lengths += np.linalg.norm(np.nan_to_num(a), axis=1).tolist()
        self.max_abs = max(self.max_abs, float(np.abs(difference).max(initial=0.0)))
        self.min_cosine = min(self.min_cosine, smallest_cosine(stored, fresh))

    @property
    def errors(self) -> np.ndarray:
        """Relative L2 difference of every row, float64 [N]."""
        lengths = np.array(self._lengths)
        lengths = np.maximum(lengths, FAINT * lengths.max(initial=0.0))
        errors = np.array(self._errors)
        return np.divide(errors, lengths, out=np.where(errors > 0, np.inf, 0.0), where=lengths > 0)

    @property
    def deviating(self) -> list[int]:
        """The rows that lie further apart than the tolerance."""
        return [row for row, error in zip(self.rows, self.errors, strict=True) if not error <= self.tolerance]

    @property
    def relative_l2(self) -> float:
        """Of all rows together."""
        length = math.hypot(*self._lengths)
        error = math.hypot(*self._errors)
        return error / length if length else (math.inf if error else 0.0)

    @property
    def deviates(self) -> bool:
        return bool(self.deviating) or (self.rank_agreement is not None and self.rank_agreement < 1)

    def without(self, rows: set[int]) -> Comparison:
        """The same without `rows`, as far as rows tell (largest difference and cosine are of all)."""
        keep = [place for place, row in enumerate(self.rows) if row not in rows]
        return Comparison(
            self.signal,
            self.of,
            self.tolerance,
            [self.rows[place] for place in keep],
            self.max_abs,
            self.min_cosine,
            self.rank_agreement,
            [self._errors[place] for place in keep],
            [self._lengths[place] for place in keep],
        )

    def to_dict(self) -> dict[str, Any]:
        """For a report: plain JSON, in which no number is infinite."""
        return {
            "of": self.of,
            "rows": len(self.rows),
            "deviating_rows": self.deviating,
            "relative_l2": finite(self.relative_l2),
            "worst_row_relative_l2": finite(float(self.errors.max(initial=0.0))),
            "min_cosine": finite(self.min_cosine),
            "max_abs": finite(self.max_abs),
            "tolerance": self.tolerance,
            **({} if self.rank_agreement is None else {"rank_agreement": self.rank_agreement}),
        }


def smallest_cosine(stored: np.ndarray, fresh: np.ndarray) -> float:
    """Over all vectors along the last axis that have a length on both sides; 1 if there is none."""
    width = stored.shape[-1] if stored.ndim > 1 else 1
    a, b = (np.nan_to_num(values.astype(np.float64)).reshape(-1, width) for values in (stored, fresh))
    product = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    there = product > 0
    cosine = np.einsum("nd,nd->n", a[there], b[there]) / product[there]
    return float(np.clip(cosine, -1, 1).min(initial=1.0))


def same_order(stored_best_first: np.ndarray, fresh: np.ndarray, tolerance: float) -> float:
    """Share of neighbours in rankings that hold their place: rows [N, K], `fresh` the scores of the same K.

    A neighbour holds it if nothing behind it scores higher now, by more than `tolerance` of the largest
    score. Places without one (NaN) are left out; 1 if there is none.
    """
    there = ~np.isnan(stored_best_first)
    scores = np.where(there, fresh.astype(np.float64), -np.inf)
    best_behind = np.maximum.accumulate(scores[:, ::-1], axis=1)[:, ::-1]
    slack = tolerance * np.abs(scores[there]).max(initial=0.0)
    holds = scores[there] >= best_behind[there] - slack
    return float(holds.mean()) if holds.size else 1.0


def finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
