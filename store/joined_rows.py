"""Rows of one array whose segments lie in several: the same questions as `ShardedRows` answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from store.errors import InputError
from store.sharded_rows import ShardedRows, row_numbers
from store.shards import DTYPES, FILL, RowsArray


class JoinedRows:
    """The rows of `pieces`, one behind the other; None for a piece of `lengths[i]` rows that are not there.

    path: of the first piece. reason: why a row of a missing piece is not there. Raises as `ShardedRows`.
    """

    def __init__(
        self, pieces: Sequence[ShardedRows | None], lengths: Sequence[int], reason: str = "was not written"
    ) -> None:
        first = next(piece for piece in pieces if piece is not None)
        self.path = first.path
        self.array: RowsArray = replace(first.array, shape=(sum(lengths), *first.array.shape[1:]))
        self._pieces = pieces
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._reason = reason

    @cached_property
    def present(self) -> np.ndarray:
        """Which rows were written: bool [rows]."""
        lengths = np.diff(self._starts)
        return np.concatenate(
            [
                np.zeros(length, dtype=bool) if piece is None else piece.present
                for piece, length in zip(self._pieces, lengths, strict=True)
            ]
        )

    @property
    def nbytes(self) -> int:
        """What `load` would take of RAM."""
        return sum(piece.nbytes for piece in self._pieces if piece is not None)

    def load(self) -> np.ndarray:
        """All rows as a new array, each piece kept in RAM; what was not written holds the fill value."""
        whole = np.full(self.array.shape, FILL.get(self.array.dtype, np.nan), dtype=DTYPES[self.array.dtype])
        for number, piece in enumerate(self._pieces):
            if piece is not None:
                whole[self._starts[number] : self._starts[number + 1]] = piece.load()
        return whole

    def empty(self, rows: int) -> np.ndarray:
        """Room for `rows` rows: [rows, ...], not filled."""
        return np.empty((rows, *self.array.shape[1:]), dtype=DTYPES[self.array.dtype])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The rows `rows` [N] as a new array [N, ...]."""
        out = self.empty(len(rows))
        self.read_into(rows, out)
        return out

    def read_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows `rows` [N] (any order, repeats allowed) into `out` [N, ...]."""
        for piece, places, within in self._by_piece(rows):
            if len(places) == len(rows):
                piece.read_into(within, out)
            else:
                out[places] = piece.read(within)

    def _by_piece(self, rows: np.ndarray) -> Iterator[tuple[ShardedRows, np.ndarray, np.ndarray]]:
        """Every piece that holds some of `rows`, their places in `rows`, and their numbers in the piece."""
        rows = row_numbers(rows, self.array.shape[0], f"{self.path} has no row")
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            piece = self._pieces[number]
            if piece is None:
                raise InputError(f"{self.path} has no row {rows[places[0]]}: it {self._reason}")
            yield piece, places, rows[places] - self._starts[number]


@dataclass(frozen=True)
class ScoreBlock:
    """Scores of some videos against some texts: rows and columns [first, end) of the whole [V, T]."""

    rows: ShardedRows
    video: tuple[int, int]
    text: tuple[int, int]


class JoinedScores:
    """`video_text_logits` [V, T] that came in blocks, as rows; a pair that no block holds is NaN."""

    def __init__(self, blocks: Sequence[ScoreBlock], videos: int, texts: int) -> None:
        self.path = blocks[0].rows.path
        self.array: RowsArray = replace(blocks[0].rows.array, shape=(videos, texts))
        self._blocks = blocks

    @cached_property
    def present(self) -> np.ndarray:
        """Which videos have a score at all: bool [V]."""
        found = np.zeros(self.array.shape[0], dtype=bool)
        for block in self._blocks:
            found[slice(*block.video)] |= block.rows.present
        return found

    @property
    def nbytes(self) -> int:
        """What `load` would take of RAM."""
        return sum(block.rows.nbytes for block in self._blocks)

    def load(self) -> np.ndarray:
        """All scores as a new array, each block kept in RAM from now on."""
        for block in self._blocks:
            block.rows.load()
        whole = self.empty(self.array.shape[0])
        whole.fill(np.nan)
        for block in self._blocks:
            whole[slice(*block.video), slice(*block.text)] = block.rows.load()
        return whole

    def empty(self, rows: int) -> np.ndarray:
        """Room for `rows` rows: [rows, T], not filled."""
        return np.empty((rows, self.array.shape[1]), dtype=np.float16)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The rows `rows` [N] as a new array [N, T]; raises InputError for a video without scores."""
        out = self.empty(len(rows))
        self.read_into(rows, out)
        return out

    def read_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows `rows` [N] into `out` [N, T]; raises InputError for a video without scores."""
        rows = row_numbers(rows, self.array.shape[0], f"{self.path} has no row")
        if not self.present[rows].all():
            row = rows[np.argmin(self.present[rows])]
            raise InputError(
                f"{self.path} has no row {row}: its video did not decode; leave it out (video_usable)"
            )
        out[...] = self.gather(rows, np.arange(self.array.shape[1]))

    def gather(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Columns `columns` [C] of the rows `rows` [N]: [N, C], NaN where nothing is known."""
        rows = row_numbers(rows, self.array.shape[0], f"{self.path} has no row")
        columns = row_numbers(columns, self.array.shape[1], f"{self.path} has no column")
        out = np.full((len(rows), len(columns)), np.nan, dtype=np.float16)
        for block in self._blocks:
            (first, end), (first_text, end_text) = block.video, block.text
            at = np.flatnonzero((rows >= first) & (rows < end))
            at = at[block.rows.present[rows[at] - first]]
            there = np.flatnonzero((columns >= first_text) & (columns < end_text))
            if len(at) and len(there):
                out[np.ix_(at, there)] = block.rows.gather(rows[at] - first, columns[there] - first_text)
        return out


Rows = ShardedRows | JoinedRows | JoinedScores


def joined(root: Path, paths: Sequence[str | None], lengths: Sequence[int], reason: str = "") -> Rows:
    """The rows of the arrays at `paths`, one behind the other; None where `lengths[i]` rows are missing."""
    pieces = [None if path is None else ShardedRows(root, path) for path in paths]
    if len(pieces) == 1 and pieces[0] is not None:
        return pieces[0]
    return JoinedRows(pieces, lengths, reason)
