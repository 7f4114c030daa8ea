"""A view's frames from one's own video files, where the cache keeps none: the frames that the teacher saw.

Each file is decoded by the same view, ahead of the reader, and every time held to the times and thumbnails
that the cache stores: another file of the same name is refused, never trained on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from store.errors import IdentityError, InputError, MissingFileError
from store.inputs.decode_pool import DecodePool, Limits
from store.reader import Cache
from store.seen_frames import FoundFiles, SeenView

NAMED = 3


class DecodedFrames:
    """The frames of `view` of `cache`, from the videos below `folder`; a context manager.

    Any number of threads may read at once; they share `decoders` processes, which start at the first read.
    Memory: besides what is returned, 3 videos a process and reader. Raises MissingFileError for a folder
    without these videos.
    """

    def __init__(
        self, cache: Cache, view: str, folder: Path, decoders: int = 2, limits: Limits | None = None
    ) -> None:
        self._seen = SeenView(cache, view)
        self._files = FoundFiles.below(folder)
        self._ids = cache.video_ids
        self._decoders = decoders
        self._limits = limits or Limits()
        self._pool: DecodePool | None = None
        self._lock = threading.Lock()

    def require(self, rows: np.ndarray) -> None:
        """Raise MissingFileError if one of the videos `rows` has no file, or several of its name."""
        absent = [
            self._ids[row] for row in np.unique(rows).tolist() if self._files.of(self._ids[row]) is None
        ]
        if absent:
            named = ", ".join(absent[:NAMED]) + (", ..." if len(absent) > NAMED else "")
            raise MissingFileError(
                f"{self._files.folder} lacks {len(absent)} of {len(np.unique(rows))} videos, or holds "
                f"several files of one name: {named}; complete your copy, or dump with --keep-pixels"
            )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, R, M, Y, X, 3] of the videos `rows` [N]; a place without a frame holds zeros.

        Raises MissingFileError for a video without a file, InputError for one that failed when the cache was
        made, IdentityError for a file that shows anything else than what the teacher saw.
        """
        self.require(rows)
        wanted = [int(row) for row in rows]
        for row in wanted:
            if self._seen.failures[row]:
                raise InputError(f"video {self._ids[row]!r} failed: {self._seen.failures[row]}")
        ids = [self._ids[row] for row in wanted]
        return self._frames(wanted, ids, [self._file(video_id) for video_id in ids])

    def _file(self, video_id: str) -> Path:
        found = self._files.of(video_id)
        assert found is not None
        return found

    def _frames(self, rows: Sequence[int], ids: Sequence[str], paths: Sequence[Path]) -> np.ndarray:
        from store.inputs.frames import DecodedVideo

        frames = np.empty((len(rows), *self._seen.view.pixel_shape), dtype=np.uint8)
        for place, outcome in enumerate(self._started().decode(paths, ids)):
            different = self._seen.difference(rows[place], outcome)
            if different is not None:
                raise IdentityError(
                    f"{paths[place].name} is not the video {ids[place]!r} that the teacher saw under view "
                    f"{self._seen.view.name!r}: {different}; find the original file (python -m store frames "
                    "--check tells of all of them), or dump with --keep-pixels"
                )
            assert isinstance(outcome, DecodedVideo)
            frames[place] = outcome.frames
        return frames

    def _started(self) -> DecodePool:
        with self._lock:
            if self._pool is None:
                self._pool = DecodePool(self._seen.view, self._decoders, self._limits).__enter__()
            return self._pool

    def __enter__(self) -> DecodedFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.__exit__(kind, error, trace)
                self._pool = None
