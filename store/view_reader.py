"""What a teacher saw, as a view of the cache keeps it: frame times, failures, perhaps the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from store.contents import check_view, require_arrays, view_contents
from store.durable import read_json
from store.errors import DamagedCacheError, UnknownNameError
from store.inputs.view import View
from store.joined_rows import Rows, joined
from store.kept_pixels import KeptPixels, PixelRows
from store.layout import view_path
from store.manifest import Manifest
from store.sharded_rows import row_numbers
from store.tables import read_column, read_strings
from store.untrusted import is_count, is_of

RESIDENT_BYTES = 1 << 28
MOST_ABSENT = 16


class ViewReader:
    """One view of the cache at `root`; `lengths` are the videos of each segment, `manifests` of the view's
    groups, one for each segment that the view was extended over.

    Raises DamagedCacheError, IdentityError unless its arrays are those of `view`.
    """

    def __init__(self, root: Path, view: View, manifests: Sequence[Manifest], lengths: Sequence[int]) -> None:
        self._root = root
        self._objects = [record for manifest in manifests for record in manifest.objects]
        self.view = view
        self.path = view_path(view.name)
        self._paths = [view_path(view.name, segment) for segment in range(len(manifests))]
        self._lengths = lengths
        for path, videos in zip(self._paths, lengths, strict=False):
            check_view(root, view, path)
            require_arrays(root, view_contents(root, view, videos, path))

    @cached_property
    def frame_time_s(self) -> np.ndarray:
        """[V, R, M] float64 seconds, NaN where a video has no frame."""
        return self._view_array("frame_time_s")

    @cached_property
    def frame_valid(self) -> np.ndarray:
        """[V, R, M] bool."""
        return self._view_array("frame_valid")

    @cached_property
    def video_usable(self) -> np.ndarray:
        """[V] bool: the video was decoded, so its signals are there."""
        decoded = [~read_column(self._root, f"{path}/failed") for path in self._paths]
        beyond = np.zeros(sum(self._lengths[len(decoded) :]), dtype=bool)
        return np.concatenate([*decoded, beyond])

    @cached_property
    def failures(self) -> dict[int, str]:
        """Video row -> reason, for the videos that did not decode."""
        return {row: reason for row, reason in enumerate(self.reasons) if reason}

    @cached_property
    def reasons(self) -> list[str]:
        """Why each video that the view was extended over has no frames; empty where it has."""
        return [reason for path in self._paths for reason in read_strings(self._root, f"{path}/failure")]

    @cached_property
    def routes(self) -> list[str]:
        """How each of those videos was decoded, see store.inputs.frames."""
        return [route for path in self._paths for route in read_strings(self._root, f"{path}/decoding_route")]

    def rows(self, name: str) -> Rows:
        """One of the view's arrays, over all segments."""
        beyond = [None] * (len(self._lengths) - len(self._paths))
        paths = [*(f"{path}/{name}" for path in self._paths), *beyond]
        return joined(self._root, paths, self._lengths, "was appended after the view was dumped")

    def _view_array(self, name: str) -> np.ndarray:
        rows = self.rows(name)
        present = int(rows.present.sum()) * rows.array.row_bytes
        if rows.nbytes > max(MOST_ABSENT * present, RESIDENT_BYTES):
            raise DamagedCacheError(f"{rows.path} is larger than its files warrant; pull it again")
        return rows.load()

    @cached_property
    def kept_pixels(self) -> Mapping[str, Any] | None:
        """How the view's frames are kept: encoding, quality, frames, bytes, psnr_db; None if they are not.

        psnr_db is None where nothing was lost. Raises DamagedCacheError for anything else.
        """
        kept, frames, losses = None, 0, []
        for path in self._paths:
            told = read_json(self._root / path / "zarr.json")["attributes"].get("pixels")
            if told is None:
                return None
            kept, psnr = KeptPixels.from_dict(told), told.get("psnr_db")
            if not is_count(told.get("frames")) or not (psnr is None or is_of(psnr, float)):
                raise DamagedCacheError(f"{path}/zarr.json garbles its pixels; pull it again")
            frames += told["frames"]
            losses += [] if psnr is None else [psnr]
        assert kept is not None
        psnr = min(losses, default=None)  # of the segment that lost most
        stored = sum(
            record.bytes for record in self._objects if "/pixel" in record.path and "/c/" in record.path
        )
        return {**kept.to_dict(), "frames": frames, "bytes": stored, "psnr_db": psnr}

    @cached_property
    def pixels(self) -> JoinedPixels:
        """The frames that the view keeps; raises UnknownNameError, with the way out, if it keeps none."""
        told = self.kept_pixels
        if told is None:
            raise UnknownNameError(
                f"view {self.view.name!r} of {self._root.name} keeps no frames; dump it with --keep-pixels"
            )
        kept = KeptPixels(told["encoding"], told["quality"])
        return JoinedPixels(
            [PixelRows(self._root, path, self.view, kept) for path in self._paths], self._lengths
        )


class JoinedPixels:
    """The kept frames of a view, over all segments; any number of threads may read at once."""

    def __init__(self, pieces: Sequence[PixelRows], lengths: Sequence[int]) -> None:
        self._pieces = pieces
        self._starts = np.concatenate([[0], np.cumsum(lengths)])[: len(pieces) + 1]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, R, M, Y, X, 3] of the videos `rows` [N], see `PixelRows.read`."""
        if len(self._pieces) == 1:
            return self._pieces[0].read(rows)
        rows = row_numbers(rows, int(self._starts[-1]), "the view keeps no frames of video row")
        number = np.searchsorted(self._starts, rows, side="right") - 1
        found = [self._pieces[n].read(rows[number == n] - self._starts[n]) for n in range(len(self._pieces))]
        order = np.argsort(number, kind="stable")
        frames = np.empty((len(rows), *found[0].shape[1:]), dtype=np.uint8)
        frames[order] = np.concatenate(found)
        return frames
