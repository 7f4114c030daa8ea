"""Files of every awkward kind, made here: each is equal to a plain decode in order, frame by frame."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from store.errors import UndecodableVideoError
from store.inputs import packets
from store.inputs.decode_pool import DecodeFailure
from store.inputs.frames import decode_view
from tests import clips
from tests.store.inputs.clips import board, hide_first_frames, turn_mp4, write_clip

GROUPS = {"g": "12", "bf": "3"}
OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}
HEVC = {"x265-params": "keyint=12:bframes=3:log-level=none"}
QUICK_VP9 = {"g": "12", "b": "1M", "deadline": "realtime", "cpu-used": "8"}

ENCODED = {
    "h264.mp4": {"options": GROUPS},
    "h264-odd.mkv": {"options": GROUPS, "size": (67, 99), "pix_fmt": "yuv444p"},
    "h264-narrow.mp4": {"options": GROUPS, "size": (64, 6)},
    "h264-one-pixel.mp4": {"size": (1, 1), "pix_fmt": "yuv444p"},
    "h264-variable-rate.mkv": {"options": GROUPS, "times": [i * i // 8 + i for i in range(40)]},
    "h264-422.mov": {"options": GROUPS, "pix_fmt": "yuv422p"},
    "h264-10-bits-422.mp4": {"options": GROUPS, "pix_fmt": "yuv422p10le"},
    "h264-lossless.mp4": {"options": {"qp": "0", "g": "10"}, "pix_fmt": "yuv444p"},
    "h264-open.ts": {"options": OPEN_GROUPS},
    "h264-open.mkv": {"options": OPEN_GROUPS},
    "h264-interlaced.ts": {"options": {"x264-params": "tff=1:keyint=12:bframes=2"}},
    "h264-slices.mp4": {"options": {"x264-params": "slices=4:keyint=12:bframes=2"}},
    "h264-headers.mp4": {"options": {"x264-params": "repeat-headers=1:keyint=12:bframes=2"}},
    "h264-headers.mkv": {"options": {"x264-params": "repeat-headers=1:keyint=12:bframes=2"}},
    "h264-stretched.mp4": {"options": GROUPS, "pixel_aspect": Fraction(3, 2)},
    "h264-raw.h264": {"options": GROUPS},
    "h264.3gp": {"options": GROUPS},
    "h264-negative.mkv": {"options": GROUPS, "times": list(range(-9, 31))},
    "h264-late.ts": {"options": GROUPS, "times": list(range(500, 540))},
    "hevc.mp4": {"codec": "libx265", "options": HEVC},
    "hevc.ts": {"codec": "libx265", "options": HEVC},
    "hevc-10-bits.mkv": {"codec": "libx265", "options": HEVC, "pix_fmt": "yuv420p10le"},
    "mpeg4-packed.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg4.mkv": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "msmpeg4.avi": {"codec": "msmpeg4", "options": {"g": "12"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": {"g": "12", "bf": "2", "b": "4M"}},
    "mpeg2-open.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "4M"}},
    "mpeg2-422.mkv": {"codec": "mpeg2video", "options": {"g": "12", "b": "4M"}, "pix_fmt": "yuv422p"},
    "vp9.mkv": {"codec": "libvpx-vp9", "options": QUICK_VP9 | {"lag-in-frames": "16"}},
    "vp9.mp4": {"codec": "libvpx-vp9", "options": QUICK_VP9},
    "vp9-444.webm": {"codec": "libvpx-vp9", "options": QUICK_VP9, "pix_fmt": "yuv444p"},
    "alpha.mkv": {"codec": "ffv1", "pix_fmt": "yuva420p"},
    "av1.mp4": {"codec": "libsvtav1", "options": {"g": "12", "preset": "12", "svtav1-params": "lp=1"}},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "alpha.mov": {"codec": "qtrle", "pix_fmt": "argb"},
    "png.mov": {"codec": "png", "pix_fmt": "rgba"},
    "grey.mkv": {"codec": "ffv1", "pix_fmt": "gray"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
    "flash.flv": {"codec": "flv", "options": {"g": "12"}},
    "animated.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}
SINGLE = {
    "one.ts": {}, "one.mkv": {}, "one.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "one.mpg": {"codec": "mpeg2video"}, "one-vp9.webm": {"codec": "libvpx-vp9", "options": QUICK_VP9},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("torture")


def verdict_of(path):
    outcomes = []
    for view in clips.VIEWS:
        try:
            outcomes.append(decode_view(path, view))
        except UndecodableVideoError as error:
            outcomes.append(DecodeFailure(str(error)))
    return clips.judge(path, outcomes, clips.plain_decode)


def require_equal(path, frames=None):
    verdict, why = verdict_of(path)
    assert verdict == clips.EQUAL, why
    assert frames is None or why.startswith(f"{frames} frames")


def encoded(folder, name, **changes):
    try:
        return write_clip(folder / name, **ENCODED[name] | changes)
    except (av.codec.codec.UnknownCodecError, av.error.EncoderNotFoundError):
        pytest.skip(f"this FFmpeg has no encoder {ENCODED[name].get('codec')}")


@pytest.mark.parametrize("held_bytes", [0, 1 << 26], ids=["streamed", "held"])
@pytest.mark.parametrize("name", ENCODED)
def test_frames_of_every_codec_and_container_are_those_of_a_plain_decode(
    folder, monkeypatch, name, held_bytes
):
    monkeypatch.setattr(packets, "HELD_BYTES", held_bytes)
    path = folder / name
    require_equal(path if path.exists() else encoded(folder, name))


@pytest.mark.parametrize("name", SINGLE)
def test_one_frame_is_enough(folder, name):
    require_equal(write_clip(folder / name, frames=1, **SINGLE[name]), frames=1)


@pytest.mark.parametrize("name", ["h264.mp4", "h264-open.mkv", "mpeg4.mkv"])
@pytest.mark.parametrize("frames", [5, 14])
def test_an_edit_list_in_the_middle_of_a_group_hides_what_lies_before(folder, name, frames):
    path = folder / f"edit-{frames}-{name.split('.')[0]}.mp4"
    write_clip(path, **ENCODED[name])
    with av.open(str(path)) as container:
        ticks = round(1 / container.streams.video[0].time_base / 25)
    hide_first_frames(path, frames, ticks)
    require_equal(path)


@pytest.mark.parametrize("clockwise", [90, 180, 270])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_turned_and_stretched_frames_are_shown_as_players_do(folder, clockwise, codec):
    path = folder / f"turned-{clockwise}-{codec}.mp4"
    write_clip(path, codec=codec, options={"g": "12"}, pixel_aspect=Fraction(4, 3))
    turn_mp4(path, clockwise)
    require_equal(path)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "avi"])
@pytest.mark.parametrize("dropped", [1, 7])
def test_a_stream_that_begins_without_a_keyframe(folder, suffix, dropped):
    source = folder / f"whole-{dropped}.{suffix}"
    write_clip(source, options={"g": "12", "bf": "0"})
    require_equal(copied(source, folder / f"headless-{dropped}.{suffix}", dropped))


def copied(source, path, dropped):
    """The stream of `source` without its first packets."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if number >= dropped and packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "name", ["h264-open.ts", "mpeg4-packed.avi", "vp9.mkv", "h264-headers.mkv", "mpeg1.mpg"]
)
def test_a_truncated_file_gives_what_is_left(folder, name, share):
    whole, path = folder / f"whole-{name}", folder / f"cut-{share}-{name}"
    write_clip(whole, **ENCODED[name] | {"size": (128, 160), "frames": 60})
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    verdict, why = verdict_of(path)
    assert verdict == clips.EQUAL or (share == 0.3 and verdict == clips.FAILURE), why


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264-slices.mp4", "mpeg4-packed.avi", "h264-open.ts", "vp9.mkv"]
)
@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_never_give_a_wrong_frame(folder, name, seed):
    """Whatever the damage does, frames are those of a plain decode or the file is refused as it is there."""
    whole = folder / f"whole-{seed}-{name}"
    write_clip(whole, **ENCODED[name])
    content, draw = bytearray(whole.read_bytes()), np.random.default_rng(seed)
    for at in draw.integers(len(content) // 3, len(content) * 2 // 3, 2 + seed):
        content[at] ^= int(draw.integers(1, 256))
    path = folder / f"flipped-{seed}-{name}"
    path.write_bytes(content)
    verdict, why = verdict_of(path)
    assert verdict != clips.WRONG, why


def test_a_size_that_changes_halfway(folder):
    """Two streams of TS one after the other, as recorders leave them."""
    parts = [write_clip(folder / f"{size[0]}.ts", frames=20, size=size) for size in ((64, 96), (128, 128))]
    path = folder / "changes.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    require_equal(path)


def hevc_in_avi(folder):
    """FFmpeg's muxer refuses HEVC in AVI; files of it say so in a four-letter code, which is put in here."""
    path = folder / "hevc.avi"
    with av.open(str(folder / "stream.hevc"), "w") as raw:
        stream = raw.add_stream("libx265", rate=25, options=HEVC)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        with av.open(str(path), "w") as container:
            shell = container.add_stream("libx264", rate=25)
            shell.height, shell.width, shell.pix_fmt = 64, 96, "yuv420p"
            for number in range(41):
                picture = av.VideoFrame.from_ndarray(board(number, 64, 96), format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                for packet in stream.encode(picture if number < 40 else None):
                    packet.stream = shell
                    container.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"H264", b"HEVC").replace(b"h264", b"HEVC"))
    return path


def test_hevc_in_avi(folder):
    require_equal(hevc_in_avi(folder), frames=40)


def test_the_check_sees_a_wrong_frame(folder):
    path = folder / "seen.mp4"
    write_clip(path, options=GROUPS)
    outcomes = [decode_view(path, view) for view in clips.VIEWS]
    assert clips.judge(path, outcomes, clips.plain_decode)[0] == clips.EQUAL
    outcomes[2].frames[0, 5] = outcomes[2].frames[0, 4]
    verdict, why = clips.judge(path, outcomes, clips.plain_decode)
    assert (verdict, why.split(" differs")[0]) == (clips.WRONG, "uniform_12: frame 18 of 40")
    assert clips.judge(path, [DecodeFailure("no")] * 3, clips.plain_decode)[0] == clips.WRONG


def test_the_last_line_counts_and_the_status_tells(folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "good.mp4", frames=5)
    (tmp_path / "in" / "empty.webm").touch()
    assert clips.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 equal, 1 listed failures, 0 wrong"
    assert clips.main([str(tmp_path / "in" / "nothing")]) == 2
