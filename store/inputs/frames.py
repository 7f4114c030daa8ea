"""(file, view) -> the frames of the view, with their times: the one way in which videos become pixels.

Each file takes the fastest route that is proven right for it (`probe`), and the route is recorded:

    random_access   PyAV, from the keyframe before each frame on: ordinary MP4, MOV, MKV with H.264 or HEVC
    decord          the same by decord, for those too long to be held in memory
    sequential      PyAV, in order to the end: all else, damaged files included
    image           Pillow: a video of one frame

Frames are numbered in presentation order, and a frame's time counts from the first frame shown. A damaged
packet that no wanted frame depends on is not looked at on the first two routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from store.errors import UndecodableVideoError
from store.inputs.container import open_video, read_packets
from store.inputs.cuts import Cutter, Look
from store.inputs.decord_access import decode_by_index
from store.inputs.images import IMAGE_SUFFIXES, read_image
from store.inputs.packets import PacketRun, read_run
from store.inputs.preprocess import SQUARE, THUMBNAIL_SIZE, thumbnails
from store.inputs.probe import DECORD, RANDOM_ACCESS, SEQUENTIAL, Probe, probe_run
from store.inputs.random_access import RandomAccessError, decode_groups
from store.inputs.sequential import OrderedDecode, decode_in_order
from store.inputs.view import View

if TYPE_CHECKING:
    from av.video.stream import VideoStream

IMAGE = "image"
ROUTES = (RANDOM_ACCESS, DECORD, SEQUENTIAL, IMAGE)


@dataclass(frozen=True)
class DecodedVideo:
    """The frames of one video under a view; a place without a frame holds zeros and the time nan.

    frames [R, M, Y, X, 3] uint8 RGB. frame_time_s [R, M] float64. frame_valid [R, M] bool.
    thumbnail [R, M, 16, 16, 3] uint8. crop_box [R, 4] float32: left, top, right, bottom of the square in
    pixels of the upright frame (of the rendition's first, should the size change halfway). flip [R] bool.
    colour [R, 4] float32, see augment.NEUTRAL_COLOUR. duration_s: 0 for an image. skipped_packets: those
    that were too damaged to decode.
    """

    frames: np.ndarray
    frame_time_s: np.ndarray
    frame_valid: np.ndarray
    thumbnail: np.ndarray
    crop_box: np.ndarray
    flip: np.ndarray
    colour: np.ndarray
    route: str
    duration_s: float
    skipped_packets: int


@dataclass(frozen=True)
class Cut:
    """One frame as the renditions that show it see it: by rendition, squares and how they were cut."""

    squares: Mapping[int, np.ndarray]
    looks: Mapping[int, Look]


class Selection:
    """Which frames of a video with frames at `frame_time_s` [N] its renditions show, and their cuts."""

    def __init__(self, view: View, video_id: str, frame_time_s: np.ndarray) -> None:
        self.view = view
        self.frame_time_s = frame_time_s
        self.indices = [
            view.frame_indices(frame_time_s, rendition, video_id).tolist()
            for rendition in range(view.renditions)
        ]
        self.wanted = frozenset(index for of_rendition in self.indices for index in of_rendition)
        self._cutter = Cutter(view, video_id)

    def take(self, index: int, frame_YXC: np.ndarray, pixel_aspect: Fraction) -> Cut:
        """Cut frame `index`, upright uint8 RGB [Y, X, 3], for every rendition that shows it."""
        renditions = [rendition for rendition, shown in enumerate(self.indices) if index in shown]
        height, width = frame_YXC.shape[:2]
        return Cut(
            {which: self._cutter.cut(frame_YXC, which, pixel_aspect) for which in renditions},
            {which: self._cutter.look(which, height, width, pixel_aspect) for which in renditions},
        )


def decode_view(path: Path, view: View, video_id: str = "") -> DecodedVideo:
    """Decode the frames that `view` selects of the video or image `path`, all renditions in one pass.

    video_id: of the video in its dataset, needed where the view draws at random. Raises
    UndecodableVideoError with a one-line reason that holds no path.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        selection = Selection(view, video_id, np.zeros(1))
        return assemble(selection, {0: selection.take(0, read_image(path), SQUARE)}, IMAGE, duration_s=0.0)
    done: OrderedDecode[Cut] | None = None
    with open_video(path) as (container, stream):
        run = read_run(container, stream)
        facts = probe_run(container, stream, run)
        foretold = Selection(view, video_id, facts.packet_time_s if len(facts.packet_time_s) else np.zeros(1))
        if facts.route == RANDOM_ACCESS:
            decoded = decode_randomly(stream, run, foretold, facts)
            if decoded is not None:
                return decoded
        elif facts.route == SEQUENTIAL and run.held is not None:
            done = decode_in_order(stream, run.held, facts.packet_time_s, foretold.wanted, foretold.take)
    if facts.route == DECORD:
        decoded = decode_by_decord(path, foretold, facts)
        if decoded is not None:
            return decoded
    return finish_in_order(
        path, foretold, video_id, facts, done or decode_file_in_order(path, facts, foretold)
    )


def decode_randomly(
    stream: VideoStream, run: PacketRun, selection: Selection, facts: Probe
) -> DecodedVideo | None:
    """By PyAV from keyframes on; None where damage shows, which decoding in order and the route then tell."""
    try:
        cuts = decode_groups(stream, run, selection.wanted, selection.take)
    except RandomAccessError:
        return None
    return assemble(selection, cuts, RANDOM_ACCESS, facts.duration_s)


def decode_by_decord(path: Path, selection: Selection, facts: Probe) -> DecodedVideo | None:
    """By decord; None where it stumbles, which decoding in order and the route then tell."""
    try:
        cuts = decode_by_index(path, facts, selection.wanted, selection.take)
    except RandomAccessError:
        return None
    return assemble(selection, cuts, DECORD, facts.duration_s)


def decode_file_in_order(path: Path, facts: Probe, selection: Selection) -> OrderedDecode[Cut]:
    """Read and decode the file once more, with a fresh decoder."""
    with open_video(path) as (container, stream):
        packets = read_packets(container, stream)
        return decode_in_order(stream, packets, facts.packet_time_s, selection.wanted, selection.take)


def finish_in_order(
    path: Path, foretold: Selection, video_id: str, facts: Probe, done: OrderedDecode[Cut]
) -> DecodedVideo:
    """The view of what decoding in order gave; decodes again where damage moved the selection."""
    if not len(done.frame_time_s):
        hint = ", encrypted" if facts.encrypted else ""
        raise UndecodableVideoError(f"no decodable frame ({done.skipped_packets} packets refused{hint})")
    selection = Selection(foretold.view, video_id, done.frame_time_s)
    if selection.indices != foretold.indices:
        done = decode_file_in_order(path, facts, selection)
    return assemble(selection, done.taken, SEQUENTIAL, facts.duration_s, done.skipped_packets)


def assemble(
    selection: Selection,
    cuts: Mapping[int, Cut],
    route: str,
    duration_s: float,
    skipped_packets: int = 0,
) -> DecodedVideo:
    """Put the cuts of a video, by frame index, into the view's R x M places."""
    view = selection.view
    shape = (view.renditions, view.frames)
    frames = np.zeros(view.pixel_shape, dtype=np.uint8)
    small = np.zeros((*shape, THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), dtype=np.uint8)
    times, valid = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    looks = [cuts[shown[0]].looks[rendition] for rendition, shown in enumerate(selection.indices)]
    for rendition, shown in enumerate(selection.indices):
        for at, index in enumerate(shown):
            frames[rendition, at] = cuts[index].squares[rendition]
            times[rendition, at] = selection.frame_time_s[index]
            valid[rendition, at] = True
        small[rendition] = thumbnails(frames[rendition])
    return DecodedVideo(
        frames=frames,
        frame_time_s=times,
        frame_valid=valid,
        thumbnail=small,
        crop_box=np.stack([look.crop_box for look in looks]),
        flip=np.array([look.flip for look in looks]),
        colour=np.stack([look.colour for look in looks]),
        route=route,
        duration_s=duration_s,
        skipped_packets=skipped_packets,
    )
