"""Decoding by index with decord, for long files of which `probe` has shown that this gives the right frames.

It keeps an index of the packets instead of the packets, so a stream too large to be held goes this way.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from store.inputs.preprocess import MAX_PIXELS
from store.inputs.probe import Probe
from store.inputs.random_access import RandomAccessError, Take, Taken

TIME_TOLERANCE_S = 2e-3
"""decord tells times in float32 seconds: 1 ms apart at two and a half hours."""


HARMLESS = "[swscaler"
"""The scaler warns of every video in full range that its pixel format has an old name."""


def decode_by_index(path: Path, facts: Probe, wanted: Iterable[int], take: Take[Taken]) -> dict[int, Taken]:
    """`take(index, uint8 RGB [Y, X, 3], pixel aspect)` of the wanted frames, in presentation order.

    Raises RandomAccessError where decord can't read the file after all or sees another stream, and where the
    frames came but FFmpeg complained of them.
    """
    import decord

    decord.logging.set_level(decord.logging.INFO)
    try:
        with native_complaints() as complaints:
            taken = read_frames(path, facts, sorted(set(wanted)), take)
    except (decord.DECORDError, RuntimeError, AssertionError, OSError) as error:
        raise RandomAccessError(str(error)) from error
    damage = [line for line in complaints if not line.startswith(HARMLESS)]
    if damage:
        raise RandomAccessError(damage[0])
    return taken


def read_frames(path: Path, facts: Probe, wanted: list[int], take: Take[Taken]) -> dict[int, Taken]:
    """In batches that fit in memory. One thread: the workers of a pool are as many as there are cores."""
    import decord

    reader = decord.VideoReader(str(path.absolute()), num_threads=1)
    check_stream(reader, facts)
    taken: dict[int, Taken] = {}
    at_once = max(1, MAX_PIXELS // (facts.width * facts.height))
    for begin in range(0, len(wanted), at_once):
        indices = wanted[begin : begin + at_once]
        frames = reader.get_batch(indices).asnumpy()
        check_shape(frames.shape, facts)
        for index, frame in zip(indices, frames, strict=True):
            taken[index] = take(index, frame, facts.pixel_aspect)
    return taken


@contextmanager
def native_complaints() -> Iterator[list[str]]:
    """Lines that native code meanwhile writes to the standard error of this process.

    decord hands out what FFmpeg has patched up of a damaged frame as if it were the frame; that it was
    damaged is told nowhere but in FFmpeg's log, which goes there. What other threads of the process write
    in the meantime is taken for a complaint as well, and costs that video the slower route.
    """
    lines: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
                file.seek(0)
                lines.extend(file.read().decode(errors="replace").splitlines())
    finally:
        os.close(kept)


def check_stream(reader: Any, facts: Probe) -> None:
    """decord has to see as many frames as we do, at the same times."""
    expected = facts.packet_time_s
    if len(reader) != len(expected):
        raise RandomAccessError(f"decord sees {len(reader)} frames, the packets are {len(expected)}")
    times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    if not np.allclose(times - times[0], expected, rtol=1e-6, atol=TIME_TOLERANCE_S):
        raise RandomAccessError("decord's frame times are not those of the packets")


def check_shape(shape: tuple[int, ...], facts: Probe) -> None:
    """Frames have to come as they are stored: files that ask to be turned are not given to decord."""
    expected = (facts.height, facts.width, 3)
    if shape[1:] != expected:
        raise RandomAccessError(f"decord's frames are {shape[1:]}, expected {expected}")
