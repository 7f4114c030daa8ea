"""Frames for students that read pixels, from one's own copy of the videos where the cache keeps none."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from store.cli import at_least_one
from store.errors import InputError
from store.reader import Cache

if TYPE_CHECKING:
    import numpy as np

    from store.decoded_frames import DecodedFrames


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--videos",
        metavar="DIR",
        type=Path,
        help="decode frames from the videos below DIR, each held to what the teacher saw, instead of reading "
        "what the cache keeps of them",
    )
    parser.add_argument(
        "--decoders", metavar="N", type=at_least_one, default=2, help="processes that decode (default: 2)"
    )


@contextmanager
def opened_videos(
    options: argparse.Namespace, cache: Cache, teachers: list[str]
) -> Iterator[Mapping[str, DecodedFrames]]:
    """The frames of the teachers' views, by its name, from the videos that the user named; {} if none.

    Raises MissingFileError if they are in no such folder.
    """
    with ExitStack() as opened:
        if options.videos is None:
            yield {}
            return
        # Decoders are needed by nobody who trains from what a cache keeps.
        from store.decoded_frames import DecodedFrames

        views = {cache.teacher(name).view.name for name in teachers}
        yield {
            view: opened.enter_context(DecodedFrames(cache, view, options.videos, options.decoders))
            for view in sorted(views)
        }


def require_videos(
    frames: Mapping[str, DecodedFrames], student: str, reads_frames: bool, rows: np.ndarray
) -> None:
    """Raise InputError for videos that `student` does not read, or that do not hold all of `rows` [N]."""
    if frames and not reads_frames:
        raise InputError(f"student {student!r} reads no frames so made; leave out --videos")
    for decoded in frames.values():
        decoded.require(rows)
