"""How a video file may be decoded, learnt from its packets.

Random access by decord 0.6.0 returns wrong frames without an error for many files, so it is used only where
the packets prove it right; anything else is decoded in order by PyAV. What decord does (its
`src/video/video_reader.cc`), and what is hence asked of a file:

- it numbers frames by sorting the packets' pts: each packet must have a pts of its own, and none may be
  hidden by an edit list;
- it numbers keyframes by their place in the *file*: that must be their place in presentation order too, and
  nothing after a keyframe may reach back over it (a closed group of pictures, IDR);
- it seeks to a keyframe's pts in an index that holds dts in MP4: the next keyframe's dts must lie after it;
- it counts one frame a packet: a packet without a picture, or with a field of one, shifts all later frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from store.errors import UndecodableVideoError
from store.inputs.container import (
    clockwise_turn,
    frame_period_s,
    open_video,
    pixel_aspect,
    read_packets,
    slot_times,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

RANDOM_ACCESS = "random_access"
SEQUENTIAL = "sequential"

INDEXED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
EXACT_PIXEL_FORMATS = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p")
"""Those that decord and PyAV turn into the same RGB; of 10 bits they make colours 2.5 levels apart."""

# Types of the network abstraction layer units that hold a slice, and of those that end all reaching back:
# Rec. ITU-T H.264 table 7-1, H.265 table 7-1.
SLICES = {"h264": {1, 5}, "hevc": set(range(32))}
CLOSING_SLICES = {"h264": {5}, "hevc": {19, 20}}
HEADER_BYTES = {"h264": 5, "hevc": 22}
"""Of the decoder configuration record, up to the byte with the length size (ISO/IEC 14496-15)."""
PROGRESSIVE = 1


@dataclass(frozen=True)
class Probe:
    """A video stream as its container describes it.

    route: RANDOM_ACCESS or SEQUENTIAL; why: what speaks for it, in words.
    width, height: in stored pixels, before rotation. rotation: degrees to turn it clockwise.
    pixel_aspect: width of a stored pixel over its height.
    packet_time_s: [N] float64, seconds from the first frame shown, of the packets to be shown, ascending.
        They are the frames' times on the random access route; damage may take some away on the other.
    duration_s: from the first frame shown to the end of the last.
    encrypted: the packets say that they are.
    """

    route: str
    why: str
    codec: str
    width: int
    height: int
    rotation: int
    pixel_aspect: Fraction
    packet_time_s: np.ndarray
    duration_s: float
    encrypted: bool


class PacketFacts(NamedTuple):
    """What is kept of a packet. slices: types of its units that hold a picture, None where not looked for."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    hidden: bool
    corrupt: bool
    side_data: tuple[str, ...]
    slices: set[int] | None


def probe(path: Path) -> Probe:
    """Read all packets of the container's best video stream and decode its first frame, for the rotation.

    Raises UndecodableVideoError when there is nothing to decode; its message holds no path.
    """
    with open_video(path) as (container, stream):
        codec = stream.codec_context
        length_size = unit_length_size(codec.name, codec.extradata or b"")
        packets: list[PacketFacts] = []
        first = None
        for packet in read_packets(container, stream):
            if not packets:
                first = packet
            packets.append(facts_of(packet, codec.name, length_size))
        if first is None:
            raise UndecodableVideoError("no packet in its video stream")
        frame = first_frame(stream, first)
        doubt = next(reasons_for_doubt(container, stream, frame, packets), None)
        shown = [packet for packet in packets if not packet.hidden]
        times = slot_times([packet.pts for packet in shown], [packet.dts for packet in shown], stream)
        return Probe(
            route=SEQUENTIAL if doubt else RANDOM_ACCESS,
            why=doubt or "one frame a packet, each with its own time, and keyframes that start afresh",
            codec=codec.name,
            width=codec.width,
            height=codec.height,
            rotation=clockwise_turn(frame.rotation) if frame else 0,
            pixel_aspect=pixel_aspect(stream),
            packet_time_s=times,
            duration_s=float(times[-1:].sum()) + last_frame_s(shown, stream),
            encrypted=any("encryption_info" in packet.side_data for packet in packets),
        )


def facts_of(packet: Packet[VideoStream], codec: str, length_size: int | None) -> PacketFacts:
    slices = None
    if length_size is not None:
        slices = unit_types(memoryview(packet), length_size, codec) & SLICES[codec]
    return PacketFacts(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        key=packet.is_keyframe,
        hidden=packet.is_discard,
        corrupt=packet.is_corrupt,
        side_data=tuple(item.data_type for item in packet.iter_sidedata()),
        slices=slices,
    )


def last_frame_s(shown: Sequence[PacketFacts], stream: VideoStream) -> float:
    """Seconds for which the last frame is shown: as its packet says, else the average."""
    timed = [(packet.pts, packet.duration) for packet in shown if packet.pts is not None]
    ticks = max(timed)[1] if timed else 0
    return float(ticks * stream.time_base) if ticks and stream.time_base else frame_period_s(stream)


def first_frame(stream: VideoStream, packet: Packet[VideoStream]) -> VideoFrame | None:
    """The frame of the first packet, None where that alone gives none."""
    import av

    try:
        frames = stream.codec_context.decode(packet) or stream.codec_context.decode(None)
    except av.FFmpegError:
        return None
    return frames[0] if frames else None


def reasons_for_doubt(
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame | None,
    packets: Sequence[PacketFacts],
) -> Iterator[str]:
    """Why decord may give other frames than decoding in order does; nothing where it can't."""
    codec = stream.codec_context
    if container.format.name not in INDEXED_CONTAINERS:
        yield f"container {container.format.name} has no index of its frames"
    if codec.name not in SLICES:
        yield f"codec {codec.name} may hide frames in packets"
    if len(container.streams.video) > 1:
        yield "several video streams"
    if codec.name == "h264" and codec.field_order != PROGRESSIVE:
        yield "interlaced, or not said to be otherwise"
    if first is None:
        yield "its first packet alone gives no frame"
    elif first.format.name not in EXACT_PIXEL_FORMATS:
        yield f"pixel format {first.format.name}"
    elif (first.width, first.height) != (codec.width, codec.height):
        yield "its first frame is of another size than the header says"
    elif first.rotation and (first.rotation not in (-90, 90) or codec.width == codec.height):
        yield "whether decord turns it as well can't be seen from the shape"
    if any(name.lower() == "rotate" for name in stream.metadata):
        yield "a rotation in the tags, which decord follows and players do not"
    yield from doubts_of_packets(packets, codec.name)


def doubts_of_packets(packets: Sequence[PacketFacts], codec: str) -> Iterator[str]:
    """Times, order and pictures of the packets; see the head of this file."""
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    pts = sorted(set(stamps))
    if len(pts) != len(packets):
        yield "packets without a time of their own"
        return
    if any(packet.hidden for packet in packets):
        yield "an edit list hides frames"
    if any(packet.corrupt or packet.side_data for packet in packets):
        yield "packets that are damaged or change the decoder"
    if any(not packet.slices for packet in packets):
        yield "packets without a picture, or not in units with lengths"
    if not packets[0].key:
        yield "does not begin with a keyframe"
    keys = [at for at, packet in enumerate(packets) if packet.key]
    if any(not (packets[at].slices or set()) <= CLOSING_SLICES.get(codec, set()) for at in keys):
        yield "keyframes that later frames reach back over"
    if any(pts[at] != stamps[at] for at in keys):
        yield "frames shown before a keyframe come after it"
    next_dts = [(at, packets[after].dts) for at, after in pairwise(keys)]
    if any(dts is not None and dts <= stamps[at] for at, dts in next_dts):
        yield "keyframes closer to each other than the decoder's delay"


def unit_length_size(codec: str, extradata: bytes) -> int | None:
    """Bytes of the length before each unit of a packet; None where there are no such lengths."""
    header = HEADER_BYTES.get(codec)
    if header is None or len(extradata) < header or extradata[0] != 1:
        return None
    return (extradata[header - 1] & 3) + 1


def unit_types(data: memoryview, length_size: int, codec: str) -> set[int]:
    """Types of the length-prefixed units of one packet."""
    types, at = set(), 0
    while at + length_size < len(data):
        head = data[at + length_size]
        types.add(head & 0x1F if codec == "h264" else head >> 1 & 0x3F)
        at += length_size + int.from_bytes(data[at : at + length_size], "big")
    return types
