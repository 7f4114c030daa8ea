"""(file, view) -> the frames of the view, with their times: the one way in which videos become pixels.

Each file takes the fastest route that is proven right for it (`probe`), and the route is recorded:

    random_access   decord, by index: ordinary MP4, MOV, MKV with H.264 or HEVC
    sequential      PyAV, in order to the end: all else, damaged files included
    image           Pillow: a video of one frame

Frames are numbered in presentation order, and a frame's time counts from the first frame shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from store.errors import InputError, UndecodableVideoError
from store.inputs.images import IMAGE_SUFFIXES, read_image
from store.inputs.preprocess import SQUARE, THUMBNAIL_SIZE, Placement, fit, place, thumbnail
from store.inputs.probe import RANDOM_ACCESS, SEQUENTIAL, Probe, probe
from store.inputs.random_access import RandomAccessError, decode_by_index
from store.inputs.sequential import decode_in_order
from store.inputs.view import View

IMAGE = "image"
ROUTES = (RANDOM_ACCESS, SEQUENTIAL, IMAGE)


@dataclass(frozen=True)
class DecodedVideo:
    """The frames of one video under a view; a place without a frame holds zeros and the time nan.

    frames [R, M, Y, X, 3] uint8 RGB. frame_time_s [R, M] float64. frame_valid [R, M] bool.
    thumbnail [R, M, 16, 16, 3] uint8. crop_box [R, 4] float32: left, top, right, bottom of the square in
    pixels of the upright frame. flip [R] bool. duration_s: 0 for an image. skipped_packets: those that were
    too damaged to decode.
    """

    frames: np.ndarray
    frame_time_s: np.ndarray
    frame_valid: np.ndarray
    thumbnail: np.ndarray
    crop_box: np.ndarray
    flip: np.ndarray
    route: str
    duration_s: float
    skipped_packets: int


Cut = tuple[np.ndarray, Placement]
"""One frame under the view, uint8 [Y, X, 3], and the placement by which it was cut."""


def decode_view(path: Path, view: View) -> DecodedVideo:
    """Decode the frames that `view` selects of the video or image `path`.

    Raises UndecodableVideoError with a one-line reason that holds no path; InputError for a view of several
    renditions.
    """
    if view.renditions != 1:
        raise InputError(
            f"view {view.name!r} has {view.renditions} renditions, decoding knows one: the centre"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        cuts = {0: cutter(view, SQUARE)(read_image(path))}
        return assemble(view, np.zeros(1), cuts, IMAGE, duration_s=0.0)
    facts = probe(path)
    if facts.route == RANDOM_ACCESS:
        try:
            return decode_randomly(path, view, facts)
        except RandomAccessError:
            # decord stumbles over a damaged packet; that it was left for PyAV is told by the result's route.
            return decode_sequentially(path, view, facts)
    return decode_sequentially(path, view, facts)


def decode_randomly(path: Path, view: View, facts: Probe) -> DecodedVideo:
    """By decord; raises RandomAccessError."""
    times = facts.packet_time_s
    wanted = set(view.frame_indices(times).tolist())
    cuts = decode_by_index(path, facts, wanted, cutter(view, upright_aspect(facts)))
    return assemble(view, times, cuts, RANDOM_ACCESS, facts.duration_s)


def decode_sequentially(path: Path, view: View, facts: Probe) -> DecodedVideo:
    """By PyAV, once where the packets foretell the frames' times, twice where damage moved the selection."""
    take = cutter(view, upright_aspect(facts))
    foretold = facts.packet_time_s
    wanted = set(view.frame_indices(foretold).tolist()) if len(foretold) else {0}
    done = decode_in_order(path, foretold, wanted, take)
    if not len(done.frame_time_s):
        hint = ", encrypted" if facts.encrypted else ""
        raise UndecodableVideoError(f"no decodable frame ({done.skipped_packets} packets refused{hint})")
    wanted = set(view.frame_indices(done.frame_time_s).tolist())
    if not wanted <= done.taken.keys():
        done = decode_in_order(path, foretold, wanted, take)
    return assemble(view, done.frame_time_s, done.taken, SEQUENTIAL, facts.duration_s, done.skipped_packets)


def upright_aspect(facts: Probe) -> Fraction:
    """Width over height of a pixel after rotation."""
    return facts.pixel_aspect if facts.rotation % 180 == 0 else 1 / facts.pixel_aspect


def cutter(view: View, pixel_aspect: Fraction) -> Callable[[np.ndarray], Cut]:
    """A function from an upright frame to its cut; a video may change its frame size halfway."""

    def cut(frame_YXC: np.ndarray) -> Cut:
        height, width = frame_YXC.shape[:2]
        placement = place(height, width, view.size, pixel_aspect)
        return fit(frame_YXC, placement), placement

    return cut


def assemble(
    view: View,
    frame_time_s: np.ndarray,
    cuts: Mapping[int, Cut],
    route: str,
    duration_s: float,
    skipped_packets: int = 0,
) -> DecodedVideo:
    """Put the cuts of a video, by frame index, into the view's M places."""
    places, size, small = view.frames, view.size, THUMBNAIL_SIZE
    frames = np.zeros((1, places, size, size, 3), dtype=np.uint8)
    thumbnails = np.zeros((1, places, small, small, 3), dtype=np.uint8)
    times = np.full((1, places), np.nan)
    valid = np.zeros((1, places), dtype=bool)
    for at, index in enumerate(view.frame_indices(frame_time_s).tolist()):
        frames[0, at], placement = cuts[index]
        thumbnails[0, at] = thumbnail(frames[0, at])
        times[0, at] = frame_time_s[index]
        valid[0, at] = True
    return DecodedVideo(
        frames=frames,
        frame_time_s=times,
        frame_valid=valid,
        thumbnail=thumbnails,
        crop_box=placement.source_box()[np.newaxis],
        flip=np.zeros(1, dtype=bool),
        route=route,
        duration_s=duration_s,
        skipped_packets=skipped_packets,
    )
