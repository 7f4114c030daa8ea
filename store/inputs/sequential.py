"""Decoding in order with PyAV: right for every file that FFmpeg reads, at the price of decoding all of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from store.inputs.container import clockwise_turn, frame_times, open_video, read_packets, refuse_huge

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

Taken = TypeVar("Taken")


@dataclass
class OrderedDecode(Generic[Taken]):
    """What decoding in order gave.

    taken: by index in output order. frame_time_s: [N] float64 of every frame, see container.frame_times.
    skipped_packets: those that the decoder refused.
    """

    taken: dict[int, Taken] = field(default_factory=dict)
    frame_time_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    skipped_packets: int = 0


def decode_in_order(
    path: Path,
    packet_time_s: np.ndarray,
    wanted: Collection[int],
    take: Callable[[np.ndarray], Taken],
) -> OrderedDecode[Taken]:
    """Decode the best video stream to its end and `take` the wanted frames: uint8 RGB [Y, X, 3], rotated.

    Damaged packets are skipped; the frames that remain are numbered on. Raises UndecodableVideoError for a
    frame of absurd size.
    """
    import av
    from av.video.reformatter import VideoReformatter

    done: OrderedDecode[Taken] = OrderedDecode()
    reformatter = VideoReformatter()
    frame_pts: list[int | None] = []
    with open_video(path) as (container, stream):
        for packet in chain(read_packets(container, stream), [None]):
            try:
                frames = stream.codec_context.decode(packet)
            except av.FFmpegError:
                done.skipped_packets += 1
                continue
            for frame in frames:
                if len(frame_pts) in wanted:
                    done.taken[len(frame_pts)] = take(upright_rgb(frame, reformatter))
                frame_pts.append(frame.pts)
        done.frame_time_s = frame_times(frame_pts, packet_time_s, stream)
    return done


def upright_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """uint8 RGB [Y, X, 3], turned as the display matrix asks.

    One reformatter serves all frames: PyAV's `frame.to_ndarray` sets up the conversion anew for each.
    """
    refuse_huge(frame.width, frame.height)
    pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, -(clockwise_turn(frame.rotation) // 90)))
