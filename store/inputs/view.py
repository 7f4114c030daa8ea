"""A view: which frames of a video, and which pixels of them. Part of every label's key."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from store.errors import DamagedCacheError, InputError
from store.inputs.augment import Augmentation, Draws
from store.untrusted import is_path_name, known_fields, shown

UNIFORM = "uniform"
ONE_PER_SECOND = "one_per_second"
RANDOM_SEGMENTS = "random_segments"
DENSE = "dense"
SAMPLINGS = (UNIFORM, ONE_PER_SECOND, RANDOM_SEGMENTS, DENSE)
SHORTEST = "shortest"
SQUASH = "squash"
RESIZES = (SHORTEST, SQUASH)
LARGEST = 1 << 16

ALWAYS_TOLD = ("name", "frames", "size", "sampling", "renditions")
"""Fields that stand in every stored view; another one does where it is not at its default."""


@dataclass(frozen=True)
class View:
    """`frames` M frames of `size` x `size` pixels: shorter side resized (bicubic), then cropped.

    sampling "uniform": the middle frame of M equal parts of the frame sequence, as TSN tests (a short video
    repeats frames); "random_segments": any frame of each of M equal parts, as TSN trains; "dense": M frames
    `stride` apart (a short video repeats its last); "one_per_second": CLIP4Clip's, one frame each second,
    then M of them evenly spaced (a short video leaves the last places invalid).

    renditions R: how often each video is seen: `clips` in time x `crops` in space x draws, in that order from
    the slowest to the fastest axis: draw, clip, crop. clips: "uniform" interleaves them, "dense" spreads
    them. crops: 1 is the centre, more are spread along the longer side. augmentation: instead of crops, each
    rendition draws its own. What is drawn follows from `seed`, the video's id and the rendition. resize:
    "squash" shows the whole frame, each side brought to `size` by itself (ALBEF, SigLIP).
    """

    name: str
    frames: int
    size: int
    sampling: str = UNIFORM
    renditions: int = 1
    clips: int = 1
    crops: int = 1
    stride: int = 1
    seed: int = 0
    augmentation: Augmentation | None = None
    resize: str = SHORTEST

    def __post_init__(self) -> None:
        where = f"view {self.name!r}"
        if self.sampling not in SAMPLINGS:
            raise InputError(f"{where}: sampling is one of {SAMPLINGS}, not {self.sampling!r}")
        counts = (self.frames, self.size, self.renditions, self.clips, self.crops, self.stride)
        if not all(1 <= count <= LARGEST for count in counts):
            raise InputError(f"{where}: frames, size, renditions, clips, crops and stride start at 1")
        if self.clips > 1 and self.sampling not in (UNIFORM, DENSE):
            raise InputError(
                f"{where}: {self.sampling} has one clip; several clips are for uniform and dense"
            )
        if self.crops > 1 and self.augmentation is not None:
            raise InputError(f"{where}: an augmentation draws its own crops; leave crops at 1")
        if self.resize not in RESIZES:
            raise InputError(f"{where}: resize is one of {RESIZES}, not {self.resize!r}")
        if self.resize == SQUASH and (self.crops > 1 or self.augmentation is not None):
            raise InputError(
                f"{where}: a squashed frame is shown whole; leave crops at 1, without augmentation"
            )
        draws, rest = divmod(self.renditions, self.clips * self.crops)
        if rest or (draws > 1 and not self.is_drawn):
            of = "a multiple of" if self.is_drawn else "exactly"
            raise InputError(
                f"{where}: {self.renditions} renditions, expected {of} clips x crops = "
                f"{self.clips * self.crops}: any more would be the same again"
            )

    @property
    def is_drawn(self) -> bool:
        """Whether anything of it is random, so that a video's id is needed to resolve it."""
        return self.sampling == RANDOM_SEGMENTS or self.augmentation is not None

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        """Of the frames of one video: [R, M, Y, X, 3]."""
        return (self.renditions, self.frames, self.size, self.size, 3)

    @property
    def pixel_bytes(self) -> int:
        return math.prod(self.pixel_shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, see ALWAYS_TOLD; it is the view's identity."""
        told = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in ALWAYS_TOLD or getattr(self, field.name) != field.default
        }
        return told | ({"augmentation": self.augmentation.to_dict()} if self.augmentation else {})

    @classmethod
    def from_dict(cls, told: Any) -> View:
        """Parse `to_dict`'s; raises DamagedCacheError naming a field of another type or an absurd size."""
        known = known_fields(cls, told, "a view")
        if not known.keys() >= set(ALWAYS_TOLD) or not is_path_name(known["name"]):
            raise DamagedCacheError(f"{shown(told)} is no view of format 1; pull the cache again")
        drawn = known.get("augmentation")
        view = cls(**{**known, "augmentation": None if drawn is None else Augmentation.from_dict(drawn)})
        if view.frames * view.renditions > LARGEST or view.to_dict() != told:
            raise DamagedCacheError(f"{shown(told)} is no view of format 1; pull the cache again")
        return view

    def draws(self, what: str, rendition: int, video_id: str) -> Draws:
        """Random numbers for one thing about one rendition of a video; raises InputError without its id."""
        if not video_id:
            raise InputError(f"view {self.name!r} draws at random for each video: the video's id is needed")
        return Draws(self.seed, video_id, what, rendition)

    def frame_indices(self, frame_time_s: np.ndarray, rendition: int = 0, video_id: str = "") -> np.ndarray:
        """Indices [m], m <= M, ascending, into the presentation times `frame_time_s` [N] of a video.

        one_per_second follows CLIP4Clip `dataloaders/dataloader_msrvtt_retrieval.py`: the first
        frame of each second, thinned by `linspace(0, n - 1, M)` truncated to integers. Crops of one clip
        see the same frames.
        """
        count = len(frame_time_s)
        if count == 0:
            raise InputError("a video without frames has no view")
        clip = rendition // self.crops % self.clips
        if self.sampling == UNIFORM:
            pictures = np.arange(self.frames) * self.clips + clip
            return (pictures * 2 + 1) * count // (2 * self.frames * self.clips)
        if self.sampling == RANDOM_SEGMENTS:
            draws = self.draws("frames", rendition // self.crops, video_id)
            within = np.array([draws.uniform() for _ in range(self.frames)])
            places = (np.arange(self.frames) + within) * count / self.frames
            return np.minimum(places.astype(np.int64), count - 1)
        if self.sampling == DENSE:
            room = max(0, count - (self.frames - 1) * self.stride - 1)
            start = room * (2 * clip + 1) // (2 * self.clips)
            return np.minimum(start + np.arange(self.frames) * self.stride, count - 1)
        since_start = frame_time_s - frame_time_s[0]
        whole_seconds = np.arange(int(np.floor(since_start[-1])) + 1)
        indices = np.searchsorted(since_start, whole_seconds - 1e-6)
        if len(indices) > self.frames:
            indices = indices[np.linspace(0, len(indices) - 1, self.frames, dtype=int)]
        return indices
