"""Decoding in order with PyAV: right for every file that FFmpeg reads, at the price of decoding all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Generic

import numpy as np

from store.inputs.container import frame_times, refuse_to_starve
from store.inputs.pictures import Developer
from store.inputs.random_access import Take, Taken

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream


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
    stream: VideoStream,
    packets: Iterable[Packet[VideoStream]],
    packet_time_s: np.ndarray,
    wanted: Collection[int],
    take: Take[Taken],
) -> OrderedDecode[Taken]:
    """Decode all `packets` of a stream and `take` the wanted frames: index, upright RGB, pixel aspect.

    Damaged packets are skipped; the frames that remain are numbered on. Raises UndecodableVideoError for a
    frame of absurd size.
    """
    import av

    done: OrderedDecode[Taken] = OrderedDecode()
    develop, decoder = Developer(stream), stream.codec_context
    frame_pts: list[int | None] = []
    for packet in chain(packets, [None]):
        try:
            frames = decoder.decode(packet)
        except av.FFmpegError as error:
            refuse_to_starve(error)
            done.skipped_packets += 1
            continue
        for frame in frames:
            if len(frame_pts) in wanted:
                done.taken[len(frame_pts)] = take(len(frame_pts), *develop(frame))
            frame_pts.append(frame.pts)
    done.frame_time_s = frame_times(frame_pts, packet_time_s, stream)
    return done
