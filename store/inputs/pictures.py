"""From a decoded frame to an upright picture, and what FFmpeg complained of while it decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from store.inputs.container import clockwise_turn, pixel_aspect, refuse_huge

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class Developer:
    """Makes pictures of the frames of one stream.

    One reformatter serves all frames: PyAV's `frame.to_ndarray` sets up the conversion anew for each.
    """

    def __init__(self, stream: VideoStream) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._pixel_aspect = pixel_aspect(stream)

    def __call__(self, frame: VideoFrame) -> tuple[np.ndarray, Fraction]:
        """uint8 RGB [Y, X, 3], turned as the display matrix asks, and the aspect of its pixels then.

        Raises UndecodableVideoError for a frame of absurd size.
        """
        refuse_huge(frame.width, frame.height)
        pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = clockwise_turn(frame.rotation) // 90
        aspect = 1 / self._pixel_aspect if turns % 2 else self._pixel_aspect
        return np.ascontiguousarray(np.rot90(pixels, -turns)), aspect


def frames_of(stream: VideoStream, packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    """The frames of `packets` in output order, the last ones drained; raises what the decoder raises."""
    for packet in chain(packets, [None]):
        yield from stream.codec_context.decode(packet)


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Lines in which FFmpeg meanwhile reports errors in this thread.

    It hands out what it has patched up of a damaged frame as if it were the frame; that it was damaged is
    told nowhere but in its log.
    """
    import av.logging

    heard: list[str] = []
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as logged:
            yield heard
            heard.extend(f"{name}: {line.strip()}" for _, name, line in logged)
    finally:
        av.logging.set_level(level)
