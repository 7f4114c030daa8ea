"""A video file opened with PyAV: its best stream, its packets, and the times at which it shows frames."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import UndecodableVideoError
from store.inputs.preprocess import MAX_PIXELS, SQUARE

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

MOST_STRETCHED_PIXEL = 10


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its best video stream, set up so that damaged frames too are the same on any machine.

    That means one thread, since what frame threads report of a damaged packet depends on their timing, and no
    concealment. Raises UndecodableVideoError; its message holds no path.
    """
    import av

    refuse_unreadable(path)
    try:
        # An absolute path can't be taken for a URL; names of tracks may be in any character set.
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except av.FFmpegError as error:
        refuse_to_starve(error)
        raise UndecodableVideoError(f"not a readable video ({spoken(error)})") from error
    with container:
        yield container, best_stream(container)


def refuse_unreadable(path: Path) -> None:
    """Raise UndecodableVideoError for what no decoder needs to look at."""
    try:
        status = path.stat()
        if not path.is_file():
            raise UndecodableVideoError("not a file")
        if status.st_size == 0:
            raise UndecodableVideoError("empty file (0 bytes)")
        with path.open("rb"):
            os.fspath(path).encode()
    except OSError as error:
        raise UndecodableVideoError(f"can't be read ({spoken(error)})") from error
    except UnicodeEncodeError as error:
        raise UndecodableVideoError("its file name is not UTF-8") from error


def best_stream(container: InputContainer) -> VideoStream:
    """The stream that players show: FFmpeg's own choice, which may be any but a cover image."""
    from av.stream import Disposition

    stream: Any = container.streams.best("video")
    if stream is None:
        raise UndecodableVideoError("no video stream")
    if Disposition.attached_pic in Disposition(stream.disposition):
        raise UndecodableVideoError("no video stream but a cover image")
    codec = stream.codec_context
    if codec is None:
        raise UndecodableVideoError("no decoder for the codec of its video stream")
    refuse_huge(codec.width, codec.height)
    codec.thread_count = 1
    # A packet may claim what the header does not; FFmpeg then refuses it before it takes the memory.
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    if codec.name == "h264":
        # FFmpeg paints over missing macroblocks if, and only if, it runs without slice threads.
        codec.options |= {"enable_er": "0"}
    return stream


def refuse_to_starve(error: Exception) -> None:
    """Raise MemoryError where FFmpeg got no memory: that says nothing of the packet that it was for."""
    if getattr(error, "errno", None) == errno.ENOMEM:
        raise MemoryError from error


def refuse_huge(width: int, height: int) -> None:
    """Raise UndecodableVideoError before anybody makes an array of such a size."""
    if width * height > MAX_PIXELS:
        raise UndecodableVideoError(f"claims frames of {width} x {height}, the limit is {MAX_PIXELS} pixels")


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """All packets of the stream that hold data, in decoding order, up to the end or to where the file is cut.

    Raises UndecodableVideoError when the medium fails: half a video is not the video.
    """
    import av

    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.error.InvalidDataError:
        return
    except av.FFmpegError as error:
        refuse_to_starve(error)
        raise UndecodableVideoError(f"reading stopped ({spoken(error)})") from error


def slot_times(pts: Sequence[int | None], dts: Sequence[int | None], stream: VideoStream) -> np.ndarray:
    """Seconds [N] from the first frame shown, ascending, of the packets to be shown, given in any order.

    By pts; by dts where pts are missing or repeat (AVI: one slot a frame); by the frame rate where both do.
    """
    for stamps in (pts, dts):
        present = [stamp for stamp in stamps if stamp is not None]
        if len(set(present)) == len(stamps):
            return seconds_from_first(sorted(present), stream)
    return evenly_spaced(len(pts), stream)


def frame_times(frame_pts: Sequence[int | None], slot_s: np.ndarray, stream: VideoStream) -> np.ndarray:
    """Seconds [N] from the first frame shown, of decoded frames in output order.

    Their own pts where these rise; where they repeat or step back (AVI with B-frames) the slots of the
    packets, if there are as many, and else the frame rate.
    """
    present = [pts for pts in frame_pts if pts is not None]
    if len(present) == len(frame_pts) and all(before < after for before, after in pairwise(present)):
        return seconds_from_first(present, stream)
    if len(frame_pts) == len(slot_s):
        return slot_s
    return evenly_spaced(len(frame_pts), stream)


def seconds_from_first(stamps: Sequence[int], stream: VideoStream) -> np.ndarray:
    """Ascending stamps in units of the stream's time base -> seconds from the first of them."""
    if not stamps:
        return np.zeros(0)
    base = stream.time_base or Fraction(0)
    return (np.array(stamps, dtype=np.int64) - stamps[0]) * base.numerator / base.denominator


def evenly_spaced(count: int, stream: VideoStream) -> np.ndarray:
    """Seconds of `count` frames at the frame rate of the header."""
    return np.arange(count) * frame_period_s(stream)


def frame_period_s(stream: VideoStream) -> float:
    """Seconds that a frame is shown on average, as the header says; a 25th where it says nothing."""
    rate = stream.average_rate or stream.base_rate
    return float(1 / rate) if rate else 1 / 25


def clockwise_turn(rotation: int) -> int:
    """Degrees (0, 90, 180, 270) by which to turn a frame clockwise, from PyAV's `frame.rotation`.

    A damaged display matrix gives garbage there (-2147483648): all but quarter turns count as none.
    """
    return -rotation % 360 if rotation % 90 == 0 else 0


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a stored pixel over its height; nonsense (over 10 to 1) counts as square."""
    aspect = stream.sample_aspect_ratio
    if not aspect or not Fraction(1, MOST_STRETCHED_PIXEL) <= aspect <= MOST_STRETCHED_PIXEL:
        return SQUARE
    return Fraction(aspect)


def spoken(error: Exception) -> str:
    """The system's or FFmpeg's words for an error, without the path that would come with them."""
    words = getattr(error, "strerror", None) or type(error).__name__
    return words[:1].lower() + words[1:]
