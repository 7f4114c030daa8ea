"""Rows of several signals by one call, into buffers that are used again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.calibration import EncodedRows, SignalCodec, fitted_names
from store.errors import InputError
from store.inputs.samples import Segment
from store.joined_rows import JoinedScores, Rows, ScoreBlock, joined
from store.layout import EARLIER_VIDEOS, OWN_VIDEOS, part_path
from store.sharded_rows import ShardedRows
from store.signals import SignalSpec
from store.tables import read_column

Batch = dict[str, np.ndarray | EncodedRows]


@dataclass(frozen=True)
class BatchBuffers:
    """Where a batch of up to `rows` rows goes: an array [rows, ...] for each part of each signal.

    A batch read into it is views of these arrays: it holds until the next batch is read into them.
    """

    rows: int
    parts: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for parts in self.parts.values() for part in parts.values())


@dataclass(frozen=True)
class StoredSignal:
    """Where the rows of a signal lie: `paths[s]` is its folder for the rows of segment s, None where those
    are missing, because the teacher was not extended over them (`reason` says so). What was fitted to the
    signal lies in the first. segments: which videos and texts each segment holds.
    """

    spec: SignalSpec
    paths: tuple[str | None, ...]
    segments: tuple[Segment, ...]
    reason: str

    def codec(self, root: Path) -> SignalCodec:
        """What decodes it, with the numbers that were fitted to it."""
        names = fitted_names(self.spec)
        return SignalCodec(self.spec, {name: read_column(root, f"{self.paths[0]}/{name}") for name in names})

    def rows(self, root: Path, part: str) -> Rows:
        """The rows of the stored array `part` ("" for the signal itself) over all segments."""
        if self.spec.kind.axes == "VT" and len(self.paths) > 1:
            return JoinedScores(
                list(self._blocks(root)), self.segments[-1].video[1], self.segments[-1].text[1]
            )
        if self.spec.row_axis == "S" or self.spec.is_of_teacher:
            assert self.paths[0] is not None
            return ShardedRows(root, part_path(self.paths[0], part))
        axis = "video" if self.spec.row_axis == "V" else "text"
        runs = [getattr(segment, axis) for segment in self.segments]
        paths = [None if path is None else part_path(path, part) for path in self.paths]
        return joined(root, paths, [end - first for first, end in runs], self.reason)

    def _blocks(self, root: Path) -> Iterator[ScoreBlock]:
        """The blocks of pair scores that the segments brought."""
        for number, (path, segment) in enumerate(zip(self.paths, self.segments, strict=True)):
            if path is None:
                continue
            if number == 0:
                yield ScoreBlock(ShardedRows(root, path), segment.video, segment.text)
                continue
            columns = {OWN_VIDEOS: (0, segment.text[1]), EARLIER_VIDEOS: segment.text}
            videos = {OWN_VIDEOS: segment.video, EARLIER_VIDEOS: (0, segment.video[0])}
            for name, text in columns.items():
                if text[1] > text[0]:
                    yield ScoreBlock(ShardedRows(root, f"{path}/{name}"), videos[name], text)


class SignalRows:
    """The stored signals of one teacher below `root`; any number of threads may read at once.

    A signal is one array or several (its parts). When signals are first read, those that fit in what is
    left of `resident_bytes` are loaded whole into RAM, of those asked for together the smallest first; the
    others are read from their shards by every call. Memory: `resident_bytes`, 9 bytes a row of every
    signal, and what is handed out, or the buffers that the caller gives.
    """

    def __init__(self, root: Path, signals: Mapping[str, StoredSignal], resident_bytes: int) -> None:
        self._root = root
        self._signals = signals
        self._bytes_left = resident_bytes
        self._codecs: dict[str, SignalCodec] = {}
        self._parts: dict[str, dict[str, Rows]] = {}
        self._opening = threading.Lock()

    def codec(self, signal: str) -> SignalCodec:
        """What decodes a signal, with the numbers that were fitted to it."""
        if signal not in self._codecs:
            self._codecs[signal] = self._signals[signal].codec(self._root)
        return self._codecs[signal]

    def parts(self, signal: str) -> Mapping[str, Rows]:
        """The arrays of one signal by name, "" where it is one."""
        if signal not in self._parts:
            self.open([signal])
        return self._parts[signal]

    def open(self, signals: Sequence[str]) -> None:
        """Check the indices of `signals`, and load what fits."""
        if self._parts.keys() >= set(signals):
            return
        with self._opening:
            opened: dict[str, dict[str, Rows]] = {}
            for signal in dict.fromkeys(signals):
                if signal not in self._parts:
                    names = self.codec(signal).parts
                    stored = self._signals[signal]
                    opened[signal] = {part: stored.rows(self._root, part) for part in names}
            by_size = sorted(opened, key=lambda signal: _bytes_of(opened[signal]))
            for signal in by_size:
                if _bytes_of(opened[signal]) <= self._bytes_left:
                    self._bytes_left -= _bytes_of(opened[signal])
                    for part in opened[signal].values():
                        part.load()
            self._parts.update(opened)

    def buffers(self, signals: Sequence[str], rows: int) -> BatchBuffers:
        """Room for batches of up to `rows` rows of `signals`."""
        self.open(signals)
        return BatchBuffers(
            rows,
            {
                signal: {name: part.empty(rows) for name, part in self._parts[signal].items()}
                for signal in signals
            },
        )

    def read(self, rows_of: Mapping[str, np.ndarray], buffers: BatchBuffers | None = None) -> Batch:
        """The rows `rows_of[signal]` [N] of each signal as they are stored, [N, ...].

        A signal with fitted numbers comes encoded. buffers: of at least these signals and N rows; without
        them the arrays are new. Raises InputError for a row that is not there or does not fit the buffers,
        DamagedCacheError naming the array and row for bytes that changed.
        """
        self.open(list(rows_of))
        batch: Batch = {}
        for signal, rows in rows_of.items():
            room = None if buffers is None else _room(buffers, signal, len(rows))
            found = {}
            for name, part in self._parts[signal].items():
                found[name] = part.empty(len(rows)) if room is None else room[name][: len(rows)]
                part.read_into(rows, found[name])
            batch[signal] = found[""] if "" in found else EncodedRows(self.codec(signal), found)
        return batch


def _bytes_of(parts: Mapping[str, Rows]) -> int:
    return sum(part.nbytes for part in parts.values())


def _room(buffers: BatchBuffers, signal: str, rows: int) -> Mapping[str, np.ndarray]:
    if signal not in buffers.parts or rows > buffers.rows:
        raise InputError(
            f"buffers of {buffers.rows} rows of {', '.join(buffers.parts)} were given for {rows} rows of "
            f"{signal}; make them with TeacherReader.buffers for what is read"
        )
    return buffers.parts[signal]
