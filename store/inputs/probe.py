"""How a video file may be decoded, learnt from its packets.

Decoding from the keyframe before a frame instead of from the beginning gives the same frame only where the
packets prove it, so anything else is decoded in order. What they have to say:

- which frame a packet becomes: each has a time of its own and holds a picture, no edit list hides any;
- that a keyframe starts afresh: nothing after it reaches back over it (a closed group of pictures, IDR), what
  is shown before it comes before it, and no parameters were changed on the way to it.

decord 0.6.0, which asks for no memory for the packets, needs more (its `src/video/video_reader.cc`): it seeks
to a keyframe's pts in an index that holds dts in MP4, so that the next keyframe's dts must lie after it, and
it turns pictures and colours otherwise than players do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from store.errors import UndecodableVideoError
from store.inputs.container import frame_period_s, open_video, pixel_aspect, slot_times
from store.inputs.packets import (
    CLOSING_SLICES,
    PARAMETER_SETS,
    SLICES,
    PacketFacts,
    PacketRun,
    group_starts,
    read_run,
    stamps_in_order,
    units_of_keys,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

RANDOM_ACCESS = "random_access"
DECORD = "decord"
SEQUENTIAL = "sequential"

INDEXED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
EXACT_PIXEL_FORMATS = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p")
"""Those that decord and PyAV turn into the same RGB; of 10 bits they make colours 2.5 levels apart."""
PROGRESSIVE = 1
LEAST_WIDTH = 16
"""decord can't make pictures narrower than the rows of its scaler are aligned to."""


@dataclass(frozen=True)
class Probe:
    """A video stream as its container describes it.

    route: RANDOM_ACCESS, DECORD or SEQUENTIAL; why: what speaks for it, in words.
    width, height: in stored pixels, before rotation. pixel_aspect: width of a stored pixel over its height.
    packet_time_s: [N] float64, seconds from the first frame shown, of the packets to be shown, ascending.
        They are the frames' times unless it is SEQUENTIAL, where damage may take some away.
    duration_s: from the first frame shown to the end of the last.
    encrypted: the packets say that they are.
    """

    route: str
    why: str
    codec: str
    width: int
    height: int
    pixel_aspect: Fraction
    packet_time_s: np.ndarray
    duration_s: float
    encrypted: bool


def probe(path: Path) -> Probe:
    """What the packets of the best video stream of `path` say.

    Raises UndecodableVideoError when there is nothing to decode; its message holds no path.
    """
    with open_video(path) as (container, stream):
        return probe_run(container, stream, read_run(container, stream))


def probe_run(container: InputContainer, stream: VideoStream, run: PacketRun) -> Probe:
    """`probe` for a stream whose packets were read; may decode the first of them."""
    if run.first is None:
        raise UndecodableVideoError("no packet in its video stream")
    facts, codec = run.facts, stream.codec_context
    route = RANDOM_ACCESS
    doubt = next(doubts(container, stream, facts), None)
    if doubt is None and run.held is None:
        route = DECORD
        doubt = next(doubts_of_decord(container, stream, facts, run.first), None)
    shown = [packet for packet in facts if not packet.hidden]
    times = slot_times([packet.pts for packet in shown], [packet.dts for packet in shown], stream)
    return Probe(
        route=SEQUENTIAL if doubt else route,
        why=doubt or "one frame a packet, each with its own time, and keyframes that start afresh",
        codec=codec.name,
        width=codec.width,
        height=codec.height,
        pixel_aspect=pixel_aspect(stream),
        packet_time_s=times,
        duration_s=float(times[-1:].sum()) + last_frame_s(shown, stream),
        encrypted=any("encryption_info" in packet.side_data for packet in facts),
    )


def last_frame_s(shown: Sequence[PacketFacts], stream: VideoStream) -> float:
    """Seconds for which the last frame is shown: as its packet says, else the average."""
    timed = [(packet.pts, packet.duration) for packet in shown if packet.pts is not None]
    ticks = max(timed)[1] if timed else 0
    return float(ticks * stream.time_base) if ticks and stream.time_base else frame_period_s(stream)


def doubts(container: InputContainer, stream: VideoStream, packets: Sequence[PacketFacts]) -> Iterator[str]:
    """Why decoding from a keyframe on may give other frames than decoding in order; nothing if it can't."""
    codec = stream.codec_context
    if container.format.name not in INDEXED_CONTAINERS:
        yield f"container {container.format.name} has no index of its frames"
    if codec.name not in SLICES:
        yield f"codec {codec.name} may hide frames in packets"
    if codec.name == "h264" and codec.field_order != PROGRESSIVE:
        yield "interlaced, or not said to be otherwise"
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    pts = stamps_in_order(packets)
    if len(pts) != len(packets):
        yield "packets without a time of their own"
        return
    if any(packet.hidden for packet in packets):
        yield "an edit list hides frames"
    if any(packet.corrupt or packet.side_data for packet in packets):
        yield "packets that are damaged or change the decoder"
    slices = SLICES.get(codec.name, frozenset())
    if any(not packet.units or not packet.units & slices for packet in packets):
        yield "packets without a picture, or not in units with lengths"
    if not packets[0].key:
        yield "does not begin with a keyframe"
    if any(
        not units & slices <= CLOSING_SLICES.get(codec.name, frozenset()) for units in units_of_keys(packets)
    ):
        yield "keyframes that later frames reach back over"
    if any(pts[at] != stamps[at] for at in group_starts(packets)):
        yield "frames shown before a keyframe come after it"
    sets = PARAMETER_SETS.get(codec.name, frozenset())
    if any((packet.units or sets) & sets for packet in packets) and not all(
        sets <= units for units in units_of_keys(packets)
    ):
        yield "parameters that change on the way"


def doubts_of_decord(
    container: InputContainer,
    stream: VideoStream,
    packets: Sequence[PacketFacts],
    first_packet: Packet[VideoStream],
) -> Iterator[str]:
    """Why decord may give other frames although decoding from a keyframe on is right."""
    codec = stream.codec_context
    if len(container.streams.video) > 1:
        yield "several video streams"
    first = first_frame(stream, first_packet)
    if first is None:
        yield "its first packet alone gives no frame"
    elif first.format.name not in EXACT_PIXEL_FORMATS:
        yield f"pixel format {first.format.name}"
    elif (first.width, first.height) != (codec.width, codec.height) or codec.width < LEAST_WIDTH:
        yield "its first frame is of another size than the header says, or tiny"
    elif first.rotation:
        yield "turned, and so may decord or not"
    if any(name.lower() == "rotate" for name in stream.metadata):
        yield "a rotation in the tags, which decord follows and players do not"
    keys = group_starts(packets)
    next_dts = [(packets[at].pts, packets[after].dts) for at, after in pairwise(keys)]
    if any(dts is not None and pts is not None and dts <= pts for pts, dts in next_dts):
        yield "keyframes closer to each other than the decoder's delay"


def first_frame(stream: VideoStream, packet: Packet[VideoStream]) -> VideoFrame | None:
    """The frame of the first packet, None where that alone gives none."""
    import av

    try:
        frames = stream.codec_context.decode(packet) or stream.codec_context.decode(None)
    except av.FFmpegError:
        return None
    return frames[0] if frames else None
