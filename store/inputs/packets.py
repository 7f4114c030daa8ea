"""The packets of a stream: what each says of itself, read once, and held where they are few enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from store.inputs.container import read_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

HELD_BYTES = 1 << 26
"""Streams of up to 64 MB stay in memory between looking at them and decoding them."""

# Types of the network abstraction layer units that hold a slice, of those slices that end all reaching back,
# and of the parameter sets: Rec. ITU-T H.264 table 7-1, H.265 table 7-1.
SLICES = {"h264": frozenset({1, 5}), "hevc": frozenset(range(32))}
CLOSING_SLICES = {"h264": frozenset({5}), "hevc": frozenset({19, 20})}
PARAMETER_SETS = {"h264": frozenset({7, 8}), "hevc": frozenset({33, 34})}
HEADER_BYTES = {"h264": 5, "hevc": 22}
"""Of the decoder configuration record, up to the byte with the length size (ISO/IEC 14496-15)."""
FORBIDDEN_BIT = 0x80
"""Of a unit's first byte: never set but by damage."""


class PacketFacts(NamedTuple):
    """What is kept of a packet. units: types of its units, None where they were not looked for."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    hidden: bool
    corrupt: bool
    side_data: tuple[str, ...]
    units: frozenset[int] | None


@dataclass(frozen=True)
class PacketRun:
    """All packets of a stream that hold data, in decoding order.

    held: the packets themselves, None where they were more than HELD_BYTES. first: the first of them.
    """

    facts: Sequence[PacketFacts]
    held: Sequence[Packet[VideoStream]] | None
    first: Packet[VideoStream] | None


def read_run(container: InputContainer, stream: VideoStream) -> PacketRun:
    """Read the stream to its end; raises UndecodableVideoError when the medium fails."""
    codec = stream.codec_context
    length_size = unit_length_size(codec.name, codec.extradata or b"")
    facts: list[PacketFacts] = []
    held: list[Packet[VideoStream]] = []
    first, room = None, HELD_BYTES
    for packet in read_packets(container, stream):
        first = first or packet
        facts.append(facts_of(packet, codec.name, length_size))
        room -= packet.size
        if room >= 0:
            held.append(packet)
        else:
            held.clear()
    return PacketRun(facts, held if room >= 0 else None, first)


def facts_of(packet: Packet[VideoStream], codec: str, length_size: int | None) -> PacketFacts:
    units = None if length_size is None else unit_types(bytes(packet), length_size, codec)
    return PacketFacts(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        key=packet.is_keyframe,
        hidden=packet.is_discard,
        corrupt=packet.is_corrupt,
        side_data=tuple([item.data_type for item in packet.iter_sidedata()]),
        units=units,
    )


def unit_length_size(codec: str, extradata: bytes) -> int | None:
    """Bytes of the length before each unit of a packet; None where there are no such lengths."""
    header = HEADER_BYTES.get(codec)
    if header is None or len(extradata) < header or extradata[0] != 1:
        return None
    return (extradata[header - 1] & 3) + 1


def unit_types(data: bytes, length_size: int, codec: str) -> frozenset[int]:
    """Types of the length-prefixed units of one packet; none where the lengths do not add up.

    A packet with a damaged length is one that a decoder refuses, so that later frames are numbered otherwise.
    """
    heads, at, end = bytearray(), 0, len(data)
    while at + length_size < end:
        begin = at + length_size
        heads.append(data[begin])
        at = begin + int.from_bytes(data[at:begin], "big")
        if at == begin:
            break
    return types_of_heads(bytes(heads), codec) if at == end else frozenset()


@lru_cache
def types_of_heads(heads: bytes, codec: str) -> frozenset[int]:
    """Types of units by the first byte of each; most packets of a stream have the same few."""
    if max(heads, default=0) & FORBIDDEN_BIT:
        return frozenset()
    return frozenset(head & 0x1F if codec == "h264" else head >> 1 & 0x3F for head in heads)


def group_starts(facts: Sequence[PacketFacts]) -> list[int]:
    """Places of the keyframes among the packets."""
    return [at for at, packet in enumerate(facts) if packet.key]


def stamps_in_order(facts: Sequence[PacketFacts]) -> list[int]:
    """Different presentation times of the packets, ascending."""
    return sorted({packet.pts for packet in facts if packet.pts is not None})


def units_of_keys(facts: Sequence[PacketFacts]) -> Iterator[frozenset[int]]:
    return (packet.units or frozenset() for packet in facts if packet.key)
