"""Frames of a view: the right ones, from every kind of file that can be made here."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from store.errors import UndecodableVideoError
from store.inputs import packets
from store.inputs.decord_access import decode_by_index
from store.inputs.frames import DECORD, RANDOM_ACCESS, SEQUENTIAL, decode_view
from store.inputs.preprocess import thumbnails
from store.inputs.probe import probe
from store.inputs.random_access import RandomAccessError
from store.inputs.view import ONE_PER_SECOND, View
from tests.store.inputs.clips import (
    board,
    frames_in_order,
    hide_first_frames,
    number_of,
    turn_mp4,
    write_clip,
)

FRAMES = 40
GROUPS_OF_12 = {"g": "12", "bf": "3"}
CLOSED_HEVC = {"x265-params": "keyint=12:bframes=3:open-gop=0:log-level=none"}
LATE_ALT_REF = {"g": "12", "b": "1M", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16"}

BY_INDEX = {
    "b-frames.mp4": {"options": GROUPS_OF_12},
    "b-frames.mov": {"options": GROUPS_OF_12},
    "b-frames.mkv": {"options": GROUPS_OF_12},
    "one-group.mp4": {"options": {"g": "250"}},
    "all-key.mp4": {"options": {"g": "1"}},
    "groups-of-3.mp4": {"options": {"x264-params": "keyint=3:min-keyint=1:bframes=2:scenecut=0"}},
    "fragmented.mp4": {"options": GROUPS_OF_12, "muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "variable-rate.mp4": {"options": GROUPS_OF_12, "times": [2 * i + i % 2 for i in range(FRAMES)]},
    "odd-size.mp4": {"size": (67, 97), "pix_fmt": "yuv444p"},
    "full-range.mp4": {"pix_fmt": "yuvj420p", "options": GROUPS_OF_12},
    "bt709.mp4": {"options": {"x264-params": "colormatrix=bt709:keyint=12"}},
    "closed-hevc.mp4": {"codec": "libx265", "options": CLOSED_HEVC},
    "ten-bits.mp4": {"pix_fmt": "yuv420p10le", "options": GROUPS_OF_12},
}
NOT_BY_DECORD = {"ten-bits.mp4": "pixel format yuv420p10le"}
IN_ORDER = {
    "h264.avi": {"options": GROUPS_OF_12},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "motion-jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264.ts": {"options": GROUPS_OF_12},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "4M"}},
    "h264.flv": {"options": GROUPS_OF_12},
    "vp9.webm": {"codec": "libvpx-vp9", "options": LATE_ALT_REF},
    "vp8.webm": {"codec": "libvpx", "options": LATE_ALT_REF | {"auto-alt-ref": "1"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "wmv2.wmv": {"codec": "wmv2", "options": {"g": "12"}},
    "open-groups.mp4": {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}},
    "open-hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=none"}},
    "intra-refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "interlaced.mp4": {"options": {"x264-params": "tff=1:keyint=12:bframes=2"}},
    "animated.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}


def uniform(frames, size=64):
    return View("test", frames, size)


def numbers(decoded):
    return [number_of(square) for square in decoded.frames[0][decoded.frame_valid[0]]]


def expected_numbers(view, count):
    return view.frame_indices(np.arange(count)).tolist()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Makes each clip once."""
    folder = tmp_path_factory.mktemp("clips")

    def clip(name):
        path = folder / name
        if not path.exists():
            write_clip(path, **{"frames": FRAMES} | (BY_INDEX | IN_ORDER)[name])
        return path

    return clip


@pytest.mark.parametrize("name", sorted(BY_INDEX))
def test_random_access_gives_the_frames_that_were_asked_for(clips, name):
    for frames in (1, 3, 7, FRAMES, 90):
        decoded = decode_view(clips(name), uniform(frames))
        assert decoded.route == RANDOM_ACCESS
        assert numbers(decoded) == expected_numbers(uniform(frames), FRAMES)


@pytest.mark.parametrize("name", sorted(IN_ORDER))
def test_a_file_that_random_access_may_get_wrong_is_decoded_in_order(clips, name):
    decoded = decode_view(clips(name), uniform(7))
    assert decoded.route == SEQUENTIAL
    assert numbers(decoded) == expected_numbers(uniform(7), FRAMES)


@pytest.fixture
def nothing_is_held(monkeypatch):
    """As if every stream were too large to be held in memory."""
    monkeypatch.setattr(packets, "HELD_BYTES", 0)


@pytest.mark.usefixtures("nothing_is_held")
@pytest.mark.parametrize("name", sorted(BY_INDEX))
def test_a_stream_too_large_to_be_held_goes_by_decord_where_that_is_right(clips, name):
    for frames in (1, 7, FRAMES):
        decoded = decode_view(clips(name), uniform(frames))
        assert decoded.route == (SEQUENTIAL if name in NOT_BY_DECORD else DECORD)
        assert numbers(decoded) == expected_numbers(uniform(frames), FRAMES)
    assert NOT_BY_DECORD.get(name, "one frame a packet") in probe(clips(name)).why


@pytest.mark.usefixtures("nothing_is_held")
@pytest.mark.parametrize("name", sorted(IN_ORDER))
def test_a_stream_too_large_to_be_held_is_decoded_in_order_as_well(clips, name):
    decoded = decode_view(clips(name), uniform(7))
    assert (decoded.route, numbers(decoded)) == (SEQUENTIAL, expected_numbers(uniform(7), FRAMES))


def just_the_picture(index, picture, pixel_aspect):
    return picture.copy()


@pytest.mark.parametrize("name", sorted(BY_INDEX.keys() - {"ten-bits.mp4"}))
def test_decord_makes_the_same_colours_as_pyav(clips, name):
    path, wanted = clips(name), (0, 13, 26, FRAMES - 1)
    _, reference = frames_in_order(path, wanted)
    taken = decode_by_index(path, probe(path), wanted, just_the_picture)
    for index in wanted:
        assert np.abs(taken[index].astype(int) - reference[index]).mean() < 2


@pytest.mark.parametrize("name", sorted(BY_INDEX | IN_ORDER))
def test_times_count_from_the_first_frame_shown(clips, name):
    path = clips(name)
    decoded = decode_view(path, uniform(FRAMES))
    units = np.array((BY_INDEX | IN_ORDER)[name].get("times", range(FRAMES)))
    assert decoded.frame_time_s[0] == pytest.approx(units / 25, abs=2e-3)
    assert decoded.duration_s == pytest.approx((units[-1] + 1) / 25, abs=0.01)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "webm"])
def test_a_video_of_one_frame_repeats_it_under_a_uniform_view(tmp_path, suffix):
    codec = "libvpx" if suffix == "webm" else "libx264"
    path = write_clip(tmp_path / f"one.{suffix}", frames=1, codec=codec)
    decoded = decode_view(path, uniform(3))
    assert numbers(decoded) == [0, 0, 0]
    assert decoded.frame_time_s.tolist() == [[0, 0, 0]]


def test_places_beyond_a_short_video_hold_nothing(tmp_path):
    path = write_clip(tmp_path / "short.mp4", frames=60)
    decoded = decode_view(path, View("clip4clip", 5, 64, ONE_PER_SECOND))
    assert numbers(decoded) == [0, 25, 50]
    assert decoded.frame_valid.tolist() == [[True, True, True, False, False]]
    assert np.isnan(decoded.frame_time_s[0, 3:]).all()
    assert not decoded.frames[0, 3:].any()
    assert not decoded.thumbnail[0, 3:].any()


@pytest.mark.parametrize("held_bytes", [0, 1 << 20])
@pytest.mark.parametrize(
    ("clockwise", "size"), [(90, (64, 96)), (270, (64, 96)), (180, (64, 96)), (90, (64, 64))]
)
def test_a_turned_video_is_shown_upright(tmp_path, monkeypatch, clockwise, size, held_bytes):
    """decord turns some and not others, so it is not asked."""
    monkeypatch.setattr(packets, "HELD_BYTES", held_bytes)
    path = write_clip(tmp_path / "turned.mp4", frames=12, size=size)
    turn_mp4(path, clockwise)
    decoded = decode_view(path, uniform(3))
    back = decoded.frames[0]
    for _ in range(clockwise // 90):
        back = np.rot90(back, 1, axes=(1, 2))
    assert [number_of(square) for square in back] == [2, 6, 10]
    assert decoded.route == (RANDOM_ACCESS if held_bytes else SEQUENTIAL)


def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path):
    path = write_clip(tmp_path / "cut.mp4", frames=FRAMES, options={"g": "12", "bf": "0"})
    hide_first_frames(path, 5, probe_ticks(path))
    decoded = decode_view(path, uniform(35))
    assert decoded.route == SEQUENTIAL
    assert numbers(decoded) == list(range(5, FRAMES))
    assert decoded.frame_time_s[0, :2] == pytest.approx([0, 1 / 25])


def probe_ticks(path):
    """Units of the track's time base in one frame at 25 a second."""
    with av.open(str(path)) as container:
        return round(1 / container.streams.video[0].time_base / 25)


def test_pixels_that_are_not_square_are_shown_square(tmp_path):
    """72 stored columns of pixels 4 wide to 3 high make a square of 96."""
    path = tmp_path / "wide-pixels.mp4"
    write_clip(path, frames=4, size=(96, 72), pixel_aspect=Fraction(4, 3))
    decoded = decode_view(path, uniform(2, size=48))
    assert decoded.crop_box.tolist() == [[0, 0, 72, 96]]
    frame = Image.fromarray(frames_in_order(path)[1][1]).resize((48, 48), Image.Resampling.BICUBIC)
    assert np.abs(decoded.frames[0, 0].astype(int) - np.asarray(frame)).mean() < 1


def test_the_crop_box_is_the_centre_of_the_stored_frame(clips):
    decoded = decode_view(clips("b-frames.mp4"), uniform(2, size=32))
    assert decoded.crop_box.dtype == np.float32
    assert decoded.crop_box.tolist() == [[16, 0, 80, 64]]
    assert decoded.flip.tolist() == [False]


def test_a_damaged_packet_costs_its_frames_and_no_others(tmp_path):
    path = write_clip(tmp_path / "damaged.mp4", frames=FRAMES, options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    begin, length = unit_of(content, keyframe=2)
    content[begin : begin + length] = b"\xff" * length
    path.write_bytes(content)
    count, reference = frames_in_order(path)
    assert count < FRAMES
    decoded = decode_view(path, uniform(count))
    assert decoded.route == SEQUENTIAL
    assert decoded.skipped_packets > 0
    assert decoded.frame_valid.all()
    for at, square in enumerate(decoded.frames[0]):
        assert np.abs(square.astype(int) - reference[at][:, 16:80]).mean() < 2


def unit_of(content, keyframe):
    """Where the IDR slice of a keyframe lies in an mp4 by libx264: first byte and length."""
    slices = [at for at in range(4, len(content)) if content[at : at + 2] == b"\x65\x88"]
    begin = slices[keyframe]
    return begin, int.from_bytes(content[begin - 4 : begin], "big")


def test_a_frame_that_decord_patches_up_is_taken_from_pyav(tmp_path):
    """Its packet looks whole from outside; only FFmpeg's log, which decord drops, knows better."""
    path = write_clip(tmp_path / "patched.mp4", frames=FRAMES, options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    begin, length = unit_of(content, keyframe=1)
    content[begin + length // 2 : begin + length] = bytes(length - length // 2)
    path.write_bytes(content)
    assert probe(path).route == RANDOM_ACCESS
    decoded = decode_view(path, uniform(FRAMES))
    assert decoded.route == SEQUENTIAL
    count, reference = frames_in_order(path)
    assert count == FRAMES
    for at, square in enumerate(decoded.frames[0]):
        assert np.abs(square.astype(int) - reference[at][:, 16:80]).mean() < 2


def test_a_file_cut_short_gives_the_frames_that_it_holds(tmp_path):
    muxing = {"movflags": "faststart"}
    path = write_clip(tmp_path / "cut.mp4", frames=FRAMES, options={"g": "10"}, muxing=muxing)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    count, _ = frames_in_order(path)
    assert 0 < count < FRAMES
    assert numbers(decode_view(path, uniform(5))) == expected_numbers(uniform(5), count)


def test_decord_is_refused_when_it_counts_other_frames(clips):
    path = clips("b-frames.mp4")
    facts = probe(path)
    shorter = type(facts)(**vars(facts) | {"packet_time_s": facts.packet_time_s[:-1]})
    with pytest.raises(RandomAccessError, match="decord sees 40 frames, the packets are 39"):
        decode_by_index(path, shorter, [0], just_the_picture)
    later = type(facts)(**vars(facts) | {"packet_time_s": facts.packet_time_s * 1.1})
    with pytest.raises(RandomAccessError, match="times"):
        decode_by_index(path, later, [0], just_the_picture)
    turned = type(facts)(**vars(facts) | {"height": 96, "width": 64})
    with pytest.raises(RandomAccessError, match="frames are"):
        decode_by_index(path, turned, [0], just_the_picture)


def test_the_thumbnail_is_the_mean_colour_of_each_tile(clips):
    decoded = decode_view(clips("b-frames.mp4"), uniform(2))
    tiles = decoded.frames[0, 0].reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(decoded.thumbnail[0, 0] - tiles).max() <= 1
    odd = np.stack([board(number, 50, 50) for number in range(3)])
    assert [number_of(small) for small in thumbnails(odd)] == [0, 1, 2]


def break_header(path):
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b""), "empty file (0 bytes)"),
        ("folder.mp4", lambda path: path.mkdir(), "not a file"),
        ("absent.mp4", lambda path: None, "can't be read (no such file or directory)"),
        ("header.mp4", break_header, "not a readable video (invalid data found when processing input)"),
        ("text.mp4", lambda path: path.write_text("hello " * 99), "not a readable video"),
    ],
)
def test_an_undecodable_file_tells_why_and_not_where(tmp_path, name, spoil, reason):
    path = tmp_path / name
    spoil(path)
    with pytest.raises(UndecodableVideoError) as caught:
        decode_view(path, uniform(2))
    assert str(caught.value).startswith(reason)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["-i.mp4", "frame%03d.mp4", "http:x.mp4", "concat:a|b.mp4", "猫 ü.mp4", "a\nb.mp4"]
)
def test_a_file_name_is_nothing_but_a_name(clips, tmp_path, name):
    shutil.copyfile(clips("b-frames.mp4"), tmp_path / name)
    assert numbers(decode_view(tmp_path / name, uniform(2))) == [10, 30]


def test_a_file_name_that_is_no_text_is_told(clips, tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.mp4")
    shutil.copyfile(clips("b-frames.mp4"), path)
    with pytest.raises(UndecodableVideoError, match="file name is not UTF-8"):
        decode_view(path, uniform(2))


def test_the_cover_of_a_song_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        song, cover = container.add_stream("aac", rate=8000), container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(board(1, 64, 64), format="rgb24")
        container.mux([*cover.encode(picture), *cover.encode()])
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux([*song.encode(silence), *song.encode()])
    with pytest.raises(UndecodableVideoError, match="no video stream but a cover image"):
        decode_view(path, uniform(2))
