"""What a teacher saw, as a view of the cache keeps it: frame times, failures, perhaps the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from store.contents import check_view, require_arrays, view_contents
from store.durable import ObjectRecord, read_json
from store.errors import DamagedCacheError, UnknownNameError
from store.inputs.view import View
from store.kept_pixels import KeptPixels, PixelRows
from store.layout import view_path
from store.sharded_rows import ShardedRows
from store.tables import read_column, read_strings
from store.untrusted import is_count, is_of

RESIDENT_BYTES = 1 << 28
MOST_ABSENT = 16


class ViewReader:
    """One view of the cache at `root` over V videos, whose manifest lists `objects`.

    Raises DamagedCacheError, IdentityError unless its arrays are those of `view`.
    """

    def __init__(self, root: Path, view: View, objects: Sequence[ObjectRecord], videos: int) -> None:
        self._root = root
        self._objects = objects
        self.view = view
        self.path = view_path(view.name)
        check_view(root, view)
        require_arrays(root, view_contents(root, view, videos))

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
        return ~read_column(self._root, f"{self.path}/failed")

    @cached_property
    def failures(self) -> dict[int, str]:
        """Video row -> reason, for the videos that did not decode."""
        reasons = read_strings(self._root, f"{self.path}/failure")
        return {int(row): reasons[row] for row in np.flatnonzero(~self.video_usable)}

    def _view_array(self, name: str) -> np.ndarray:
        rows = ShardedRows(self._root, f"{self.path}/{name}")
        present = int(rows.present.sum()) * rows.array.row_bytes
        if rows.nbytes > max(MOST_ABSENT * present, RESIDENT_BYTES):
            raise DamagedCacheError(f"{rows.path} is larger than its files warrant; pull it again")
        return rows.load()

    @cached_property
    def kept_pixels(self) -> Mapping[str, Any] | None:
        """How the view's frames are kept: encoding, quality, frames, bytes, psnr_db; None if they are not.

        psnr_db is None where nothing was lost. Raises DamagedCacheError for anything else.
        """
        told = read_json(self._root / self.path / "zarr.json")["attributes"].get("pixels")
        if told is None:
            return None
        kept = KeptPixels.from_dict(told)
        frames, psnr = told.get("frames"), told.get("psnr_db")
        if not is_count(frames) or not (psnr is None or is_of(psnr, float)):
            raise DamagedCacheError(f"{self.path}/zarr.json garbles its pixels; pull it again")
        stored = sum(
            record.bytes for record in self._objects if "/pixel" in record.path and "/c/" in record.path
        )
        return {**kept.to_dict(), "frames": frames, "bytes": stored, "psnr_db": psnr}

    @cached_property
    def pixels(self) -> PixelRows:
        """The frames that the view keeps; raises UnknownNameError, with the way out, if it keeps none."""
        told = self.kept_pixels
        if told is None:
            raise UnknownNameError(
                f"view {self.view.name!r} of {self._root.name} keeps no frames; dump it with --keep-pixels"
            )
        kept = KeptPixels(told["encoding"], told["quality"])
        return PixelRows(self._root, self.path, self.view, kept)
