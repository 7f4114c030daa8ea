"""40 clips of other projects: the right frames, or a failure that decoding in order meets as well."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest
from PIL import Image

from store.errors import UndecodableVideoError
from store.inputs.frames import RANDOM_ACCESS, SEQUENTIAL, decode_view
from store.inputs.probe import probe
from store.inputs.view import View
from tests.conftest import ROOT
from tests.store.inputs.clips import frames_in_order

VIEW = View("clip", 12, 112)
FAILURES = {
    "libwebm_invalid_vp9_bitstream-bug_1416.webm": "claims frames of 12336 x 12336",
    "libwebm_matroska_doctype.mkv": "no decoder for the codec of its video stream",
    "moviepy_result_zero_bytes.webm": "empty file (0 bytes)",
    "mp4parse_afconvert-aac-0.5s.mp4": "no video stream",
    "mp4parse_short-cenc.mp4": "no decodable frame (10 packets refused, encrypted)",
    "streamio_broken.mp4": "not a readable video",
}
TEN_BITS = {"torchcodec_h264_10bits.mp4"}
SHOWN_SIZE = {
    "mmaction2_demo.mp4": (256, 427),
    "auto-editor_SAR-2by3.mp4": (360, 427),
    "mp4parse_h264_white_frame_sar_16_9.mp4": (480, 1138),
    "streamio_weird_aspect.small.mpg": (288, 501),
    "decord_video_90.mov": (568, 320),
}
"""Height and width on the screen, where pixels are not square or the video is turned."""


def clip_names():
    folder = ROOT / os.environ.get("SHARED", "../shared") / "data" / "videos"
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".md") or ["absent"]


@pytest.fixture(params=clip_names())
def clip(request, shared):
    path = shared / "data" / "videos" / request.param
    if not path.exists():
        pytest.skip(f"no clip {request.param} in the shared material")
    return path


def expected_square(frame, name):
    """The view's square, by another way than the code under test: make pixels square, resize, crop."""
    height, width = SHOWN_SIZE.get(name, frame.shape[:2])
    scale = VIEW.size / min(height, width)
    size = (max(VIEW.size, int(width * scale)), max(VIEW.size, int(height * scale)))
    image = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - VIEW.size) / 2), round((size[1] - VIEW.size) / 2)
    return np.asarray(image.crop((left, top, left + VIEW.size, top + VIEW.size)), dtype=int)


def test_frames_are_those_of_decoding_in_order(clip):
    if clip.name in FAILURES:
        with pytest.raises(UndecodableVideoError) as caught:
            decode_view(clip, VIEW)
        assert str(caught.value).startswith(FAILURES[clip.name])
        assert count_of(clip) == 0
        return
    count, wanted, reference = reference_of(clip)
    decoded = decode_view(clip, VIEW)
    assert decoded.frame_valid.all()
    for square, index in zip(decoded.frames[0], wanted, strict=True):
        difference = np.abs(square - expected_square(reference[index], clip.name)).mean()
        assert difference < (4 if clip.name in TEN_BITS else 2), f"place of frame {index} of {count}"


def reference_of(clip):
    """Frame count, the view's indices and those frames; decoded twice where damage belies the packets."""
    count = len(probe(clip).packet_time_s)
    while True:
        wanted = VIEW.frame_indices(np.arange(count)).tolist()
        decoded, frames = frames_in_order(clip, set(wanted))
        if decoded == count:
            return count, wanted, frames
        count = decoded


def count_of(clip):
    """How many frames PyAV decodes in order; 0 where it can't begin."""
    try:
        return frames_in_order(clip, ())[0]
    except av.FFmpegError:
        return 0


def test_damaged_packets_are_skipped_and_told(shared):
    folder = shared / "data" / "videos"
    for name, packets in (("decord_corrupted.mp4", 1), ("mp4parse_no_timescale.mp4", 12)):
        decoded = decode_view(folder / name, VIEW)
        assert (decoded.route, decoded.skipped_packets) == (SEQUENTIAL, packets)


def test_ordinary_clips_are_decoded_by_index(shared):
    names = (
        "dataflow_8536919744.mp4",
        "moviepy_chaplin.mp4",
        "decord_flipping_a_pancake.mkv",
        "mmaction2_demo.mp4",
    )
    for name in names:
        assert decode_view(shared / "data" / "videos" / name, View("one", 1, 64)).route == RANDOM_ACCESS
