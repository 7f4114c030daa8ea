"""What a cache stores of the frames that its teachers saw, and whether a file still decodes to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from store.durable import read_json
from store.errors import InputError, MissingFileError, UnknownNameError
from store.inputs.view import View
from store.joined_rows import Rows
from store.layout import view_path
from store.lookup import check_name
from store.parts import VIEWS, groups_of
from store.reader import Cache

if TYPE_CHECKING:
    from store.inputs.decode_pool import Outcome

TIME_TOLERANCE_S = 1e-3
THUMBNAIL_TOLERANCE = 4.0
"""Of 255, mean over a frame's thumbnail: builds of FFmpeg make colours of 10 bits this far apart, no more."""

NO_CLIPS = frozenset({".json", ".txt", ".csv", ".tsv", ".md", ".pkl", ".npy", ".wav", ".mp3", ".srt", ".vtt"})


class SeenView:
    """One view of a cache: for each video the times and thumbnails of its frames, and the frames if kept."""

    def __init__(self, cache: Cache, name: str) -> None:
        self.cache = cache
        self.path = view_path(name)
        cache.group_manifest(self.path)
        attributes: dict[str, Any] = read_json(cache.path / self.path / "zarr.json")["attributes"]
        self.view = View.from_dict(attributes["view"])
        self._stored = cache.view(self.view)

    @cached_property
    def failures(self) -> list[str]:
        """[V] why a video has no frames; empty where it has."""
        return self._stored.reasons

    @cached_property
    def routes(self) -> list[str]:
        """[V] how it was decoded, see store.inputs.frames."""
        return self._stored.routes

    @cached_property
    def _arrays(self) -> dict[str, Rows]:
        names = ("frame_time_s", "frame_valid", "frame_thumbnail")
        return {name: self._stored.rows(name) for name in names}

    def _row(self, name: str, row: int) -> np.ndarray:
        values: np.ndarray = self._arrays[name].read(np.array([row]))[0]
        return values

    def times_s(self, row: int) -> np.ndarray:
        """[R, M] float64 seconds, nan where there is no frame."""
        return self._row("frame_time_s", row)

    def valid(self, row: int) -> np.ndarray:
        """[R, M] bool."""
        return self._row("frame_valid", row)

    def thumbnails(self, row: int) -> np.ndarray:
        """[R, M, 16, 16, 3] uint8."""
        return self._row("frame_thumbnail", row)

    def kept_frames(self, row: int) -> np.ndarray | None:
        """[R, M, Y, X, 3] uint8, None where the cache keeps no pixels."""
        if self._stored.kept_pixels is None:
            return None
        frames: np.ndarray = self._stored.pixels.read(np.array([row]))[0]
        return frames

    def difference(self, row: int, outcome: Outcome) -> str | None:
        """How what a file decodes to now differs from what was seen of video `row`; None if it does not."""
        from store.inputs.decode_pool import DecodeFailure

        failed = self.failures[row]
        if isinstance(outcome, DecodeFailure):
            return None if failed else f"does not decode here ({outcome.reason})"
        if failed:
            return f"decodes here, failed when the cache was made ({failed})"
        return frames_apart(outcome.frame_time_s, outcome.thumbnail, self.times_s(row), self.thumbnails(row))


def frames_apart(
    times_s: np.ndarray, thumbnails: np.ndarray, seen_times_s: np.ndarray, seen_thumbnails: np.ndarray
) -> str | None:
    """How frames differ from those that were seen, in words: at other times, or other pictures; None if not.

    times [R, M] float64, nan without a frame; thumbnails [R, M, 16, 16, 3] uint8.
    """
    same = np.isclose(times_s, seen_times_s, rtol=0, atol=TIME_TOLERANCE_S, equal_nan=True)
    if not same.all():
        rendition, place = np.argwhere(~same)[0]
        here, there = times_s[rendition, place], seen_times_s[rendition, place]
        return (
            f"{int((~same).sum())} of {same.size} frames lie at other times, first frame {place} of "
            f"rendition {rendition}: at {here:.3f} s, seen at {there:.3f} s"
        )
    apart = np.abs(thumbnails.astype(np.float32) - seen_thumbnails).mean(axis=(2, 3, 4))
    other = apart > THUMBNAIL_TOLERANCE
    if not other.any():
        return None
    rendition, place = np.argwhere(other)[0]
    return (
        f"{int(other.sum())} of {other.size} frames show other pictures, first frame {place} of "
        f"rendition {rendition}: {apart[rendition, place]:.1f} of 255 apart on average"
    )


def open_seen(cache: Cache, name: str | None) -> SeenView:
    """The view `name`, or the only one that there is; raises errors that list what there is."""
    names = sorted({group.name for group in groups_of(cache.manifest.groups, VIEWS)})
    if name is None and len(names) > 1:
        raise InputError(f"{cache.path.name} holds several views: choose one with --view {' | '.join(names)}")
    if not names:
        raise UnknownNameError(f"{cache.path.name} has no view: no teacher is in it")
    chosen = names[0] if name is None else name
    check_name("view", chosen, names)
    return SeenView(cache, chosen)


def row_of(cache: Cache, video_id: str) -> int:
    """The row of a video; raises UnknownNameError with what comes close."""
    check_name("video", video_id, cache.video_ids)
    return cache.video_ids.index(video_id)


@dataclass(frozen=True)
class FoundFiles:
    """Files below a folder, by every name under which a dataset may know them."""

    folder: Path
    by_name: dict[str, list[PurePosixPath]]

    @classmethod
    def below(cls, folder: Path) -> FoundFiles:
        """One pass over the folder, asking nothing of single files; raises MissingFileError if it is none."""
        if not folder.is_dir():
            raise MissingFileError(f"{folder} is no folder; give the one with your copy of the videos")
        by_name: dict[str, list[PurePosixPath]] = {}
        for place, _, names in os.walk(folder, followlinks=True):
            within = PurePosixPath(Path(place).relative_to(folder).as_posix())
            for name in names:
                path = within / name
                if path.suffix.lower() not in NO_CLIPS:
                    for key in {name, path.stem, str(path), str(path.with_suffix(""))}:
                        by_name.setdefault(key, []).append(path)
        return cls(folder, by_name)

    def of(self, video_id: str) -> Path | None:
        """The file of a video whose id is its path or name, suffix or not; None if none or several."""
        found = self._named(video_id)
        return self.folder / found[0] if len(found) == 1 else None

    def ambiguous(self, video_ids: Sequence[str]) -> list[str]:
        """Ids that are the name of several files."""
        return [video_id for video_id in video_ids if len(self._named(video_id)) > 1]

    def _named(self, video_id: str) -> list[PurePosixPath]:
        """By the whole id, else by its last part: DIR may be any folder of a dataset's layout."""
        return self.by_name.get(video_id) or self.by_name.get(PurePosixPath(video_id).name, [])
