"""A view: which frames of a video, and which pixels of them. Part of every label's key."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from store.errors import DamagedCacheError, InputError
from store.untrusted import exact_fields, is_path_name, shown

UNIFORM = "uniform"
ONE_PER_SECOND = "one_per_second"
SAMPLINGS = (UNIFORM, ONE_PER_SECOND)
LARGEST = 1 << 16


@dataclass(frozen=True)
class View:
    """`frames` M frames of `size` x `size` pixels: shorter side resized (bicubic), centre crop.

    sampling "uniform": the middle frame of M equal parts of the frame sequence (a short video
    repeats frames); "one_per_second": CLIP4Clip's, one frame each second, then M of them evenly
    spaced (a short video leaves the last places invalid).
    """

    name: str
    frames: int
    size: int
    sampling: str = UNIFORM
    renditions: int = 1

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise InputError(f"view {self.name!r}: sampling is one of {SAMPLINGS}, not {self.sampling!r}")
        if self.frames < 1 or self.size < 1 or self.renditions < 1:
            raise InputError(f"view {self.name!r}: frames, size and renditions start at 1")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> View:
        """Parse `to_dict`'s; raises DamagedCacheError naming a field of another type or an absurd size."""
        view = cls(**exact_fields(cls, fields, "a view"))
        if not is_path_name(view.name) or max(view.frames * view.renditions, view.size) > LARGEST:
            raise DamagedCacheError(f"{shown(fields)} is no view of format 1; pull the cache again")
        return view

    def frame_indices(self, frame_time_s: np.ndarray) -> np.ndarray:
        """Indices [m], m <= M, ascending, into the presentation times `frame_time_s` [N] of a video.

        one_per_second follows CLIP4Clip `dataloaders/dataloader_msrvtt_retrieval.py`: the first
        frame of each second, thinned by `linspace(0, n - 1, M)` truncated to integers.
        """
        count = len(frame_time_s)
        if count == 0:
            raise InputError("a video without frames has no view")
        if self.sampling == UNIFORM:
            return (np.arange(self.frames) * 2 + 1) * count // (2 * self.frames)
        since_start = frame_time_s - frame_time_s[0]
        whole_seconds = np.arange(int(np.floor(since_start[-1])) + 1)
        indices = np.searchsorted(since_start, whole_seconds - 1e-6)
        if len(indices) > self.frames:
            indices = indices[np.linspace(0, len(indices) - 1, self.frames, dtype=int)]
        return indices
