"""Clips for decoder tests whose frames say in their pixels which they are.

The centre square of frame i is a board of 4 x 4 fields that spell i in binary: a frame that is off by one,
from another group of pictures, or not turned upright reads as another number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

FIELDS = 4
BITS = FIELDS * FIELDS
CORNER = 1 << (BITS - 1)
"""Always lit, so that a board turned or black is not read as a number."""


def board(number: int, height: int, width: int) -> np.ndarray:
    """Frame `number`: uint8 RGB [Y, X, 3]."""
    frame = np.full((height, width, 3), 96, dtype=np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    edges = np.linspace(0, side, FIELDS + 1).astype(int)
    for bit in range(BITS):
        y, x = divmod(bit, FIELDS)
        lit = (number | CORNER) >> bit & 1
        rows = slice(top + edges[y], top + edges[y + 1])
        frame[rows, left + edges[x] : left + edges[x + 1]] = (235, 220, 200) if lit else (20, 30, 40)
    return frame


def number_of(square: np.ndarray) -> int:
    """The number on a square cut from a board; raises ValueError where it can't be read."""
    size = square.shape[0]
    number = 0
    for bit in range(BITS):
        y, x = ((np.array(divmod(bit, FIELDS)) + 0.5) * size / FIELDS).astype(int)
        reach = max(1, size // 16)
        mean = square[y - reach : y + reach, x - reach : x + reach].mean()
        if 90 < mean < 160:
            raise ValueError(f"field {bit} is neither dark nor light: {mean}")
        number |= int(mean > 125) << bit
    if not number & CORNER:
        raise ValueError("the corner that is always lit is dark: the board is turned or black")
    return number & ~CORNER


def write_clip(
    path: Path,
    frames: int = 40,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 96),
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    options: Mapping[str, str] = {},
    muxing: Mapping[str, str] = {},
    times: Sequence[int] | None = None,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Encode boards 0 to frames - 1. size: height, width. times: pts in units of 1 / rate."""
    height, width = size
    with av.open(str(path), "w", options=dict(muxing)) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(board(number, height, width), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frames_in_order(path: Path, wanted: Collection[int] | None = None) -> tuple[int, dict[int, np.ndarray]]:
    """The reference: PyAV as it comes, packet by packet, refused packets skipped.

    Returns the number of frames of the best video stream and the wanted ones (all, if None) by index, uint8
    RGB [Y, X, 3], upright. Each is converted before the next is decoded, since FFmpeg leaves in the gaps of a
    damaged frame what its buffer held before.
    """
    count, frames = 0, {}
    reformatter = VideoReformatter()
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        if stream is None:
            return count, frames
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                continue
            for frame in decoded:
                if wanted is None or count in wanted:
                    pixels = reformatter.reformat(frame, format="rgb24").to_ndarray()
                    turns = {-90: -1, 90: 1, 180: 2, -180: 2}.get(frame.rotation, 0)
                    frames[count] = np.ascontiguousarray(np.rot90(pixels, turns))
                count += 1
    return count, frames


def turn_mp4(path: Path, clockwise: int) -> None:
    """Write a rotation into the track header of an mp4 (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    one = 1 << 16
    matrix = [cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30]
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(content)


def hide_first_frames(path: Path, frames: int, ticks_per_frame: int) -> None:
    """Let the edit list of an mp4 begin later (ISO/IEC 14496-12, 8.6.6), as cutting by stream copy does."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 4 + 4 + 4 + 4
    media_time = int.from_bytes(content[at : at + 4], "big") + frames * ticks_per_frame
    content[at : at + 4] = media_time.to_bytes(4, "big")
    path.write_bytes(content)
