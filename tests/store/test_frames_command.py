"""python -m store frames: the sheet shows what the teacher saw, the check which files show other things."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from store.__main__ import build_parser
from store.cli import run_cli
from store.errors import InputError, UnknownNameError
from store.inputs.augment import Augmentation
from store.inputs.cuts import replay
from store.inputs.frames import ROUTES, decode_view
from store.inputs.view import RANDOM_SEGMENTS, View
from store.kept_pixels import KeptPixels
from store.reader import open_cache
from store.seen_frames import FoundFiles, open_seen
from store.sharded_rows import ShardedRows
from store.signals import SignalSpec
from teacher_dump.dump import dump
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from tests.store.inputs.clips import frames_in_order
from tests.store.inputs.clips import write_clip as encode
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples, write_clip

SETTINGS = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=3, decoders=1)
KEPT = replace(SETTINGS, storage=StorageOptions(pixels=KeptPixels.parse("raw")))
BROKEN, RED = "4_red.mp4", "0_red.mp4"


class DrawingTeacher(ColourTeacher):
    """Sees three augmented renditions of random segments."""

    def __init__(self):
        super().__init__("drawing")
        jitter = Augmentation(min_area=0.3, brightness=0.4, saturation=0.4, hue=0.2)
        self.view = View("drawn", 4, 16, RANDOM_SEGMENTS, renditions=3, seed=5, augmentation=jitter)
        self.signals = (
            SignalSpec("frame_embedding", {"R": 3, "M": 4, "D": 3}),
            SignalSpec("text_embedding", {"D": 3}),
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    colour_samples(folder, broken=(4,))
    return folder


@pytest.fixture(scope="module")
def cache(folder, tmp_path_factory):
    """With two views: of a plain teacher, and of one that draws."""
    path = tmp_path_factory.mktemp("caches") / "c.zarr"
    samples = colour_samples(folder, broken=(4,))
    dump(path, samples, ColourTeacher(), SETTINGS, {})
    dump(path, samples, DrawingTeacher(), SETTINGS, {})
    return path


@pytest.fixture
def mine(folder, tmp_path):
    """My own copy of the videos, in a layout of its own."""
    return shutil.copytree(folder, tmp_path / "mine" / "videos")


def frames(*arguments):
    return run_cli(build_parser(), ["frames", *map(str, arguments)])


def cells(path, count=4, side=96):
    """The pictures of a sheet with one line of frames."""
    sheet = np.asarray(Image.open(path)).astype(int)
    lower = sheet.shape[0]
    top = next(y for y in range(lower) if (np.abs(sheet[y, 8 : 8 + side] - sheet[y, 8]) < 9).all() and y > 40
               and np.abs(sheet[y, 8] - (250, 250, 248)).max() > 9)  # fmt: skip
    return [sheet[top : top + side, 8 + n * (side + 8) : 8 + n * (side + 8) + side] for n in range(count)]


def test_the_sheet_shows_thumbnails_in_order_and_says_so(cache, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert frames(cache, "--view", "uniform_4x16", "--video", RED, "--out", out) == 0
    assert "4 frames of 0_red.mp4; thumbnails; give your copy" in capsys.readouterr().out
    shown = [cell.mean(axis=(0, 1)) for cell in cells(out)]
    assert [colour[0] > colour[1] + 100 for colour in shown] == [True, True, False, False]


def test_the_sheet_shows_ones_own_copy_once_it_is_confirmed(cache, mine, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    for data in (mine, mine.parent, mine / RED):
        assert frames(cache, "--view", "uniform_4x16", "--video", RED, "--out", out, "--data", data) == 0
        assert "decoded again from 0_red.mp4, as the thumbnails confirm" in capsys.readouterr().out
    assert out.stat().st_size > 0


def test_the_sheet_does_not_show_a_copy_that_is_another_video(cache, mine, tmp_path, capsys):
    write_clip(mine / RED, ["blue", "grey"])
    out = tmp_path / "sheet.png"
    assert frames(cache, "--view", "uniform_4x16", "--video", RED, "--out", out, "--data", mine) == 1
    told = capsys.readouterr().out
    assert "your file of 0_red.mp4 is another: 2 of 4 frames show other pictures, first frame 0" in told
    assert cells(out)[0].mean(axis=(0, 1))[0] > 180


def test_kept_frames_need_no_file(folder, tmp_path, capsys):
    samples = colour_samples(folder, broken=(4,))
    dump(tmp_path / "kept.zarr", samples, ColourTeacher(), KEPT, {})
    assert frames(tmp_path / "kept.zarr", "--video", RED, "--out", tmp_path / "sheet.png") == 0
    assert "the frames that the cache keeps" in capsys.readouterr().out


def test_the_check_finds_the_files_that_differ_and_only_those(cache, mine, capsys):
    view = ("--view", "uniform_4x16")
    assert frames(cache, *view, "--check", mine) == 0
    both = "1 decode neither here nor when the cache was made"
    assert capsys.readouterr().out == f"view uniform_4x16: 7 same, 0 differ, 0 not here, {both}\n"
    write_clip(mine / "1_green.mp4", ["red", "grey"])
    write_clip(mine / "2_blue.mp4", ["blue", "grey"], frames_each=5)
    (mine / "3_grey.mp4").write_bytes(b"spoilt")
    write_clip(mine / BROKEN, ["red", "grey"])
    (mine / "5_green.mp4").unlink()
    assert frames(cache, *view, "--check", mine) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told[:4]] == ["1_green.mp4", "2_blue.mp4", "3_grey.mp4", BROKEN]
    assert "show other pictures" in told[0]
    assert "lie at other times" in told[1]
    assert "does not decode here (not a readable video" in told[2]
    assert "decodes here, failed when the cache was made" in told[3]
    assert told[4] == "view uniform_4x16: 3 same, 4 differ, 1 not here"


def test_views_that_draw_are_checked_as_they_were_drawn(cache, mine, capsys):
    assert frames(cache, "--view", "drawn", "--check", mine) == 0
    write_clip(mine / RED, ["blue", "grey"])
    assert frames(cache, "--view", "drawn", "--check", mine) == 1
    assert "0_red.mp4: 0_red.mp4 6 of 12 frames show other pictures" in capsys.readouterr().out


def test_the_cache_stores_all_that_a_student_needs_to_see_the_same(cache, folder):
    """From times, box, flip and colour in the cache, and a decoder of its own."""
    seen = open_seen(open_cache(cache), "drawn")
    stored = {
        name: ShardedRows(cache, f"{seen.path}/{name}").read(np.array([0]))[0]
        for name in ("frame_time_s", "crop_box", "flip", "colour")
    }
    _, pictures = frames_in_order(folder / RED)
    taught = decode_view(folder / RED, seen.view, RED).frames
    for rendition in range(3):
        for place, time_s in enumerate(stored["frame_time_s"][rendition]):
            picture = pictures[round(time_s * 8)]
            how = (stored["crop_box"][rendition], stored["flip"][rendition], stored["colour"][rendition])
            assert np.array_equal(replay(picture, seen.view, *how), taught[rendition, place])


def test_the_route_of_every_kind_of_file_is_recorded(folder, tmp_path):
    samples = colour_samples(folder, broken=(4,))
    made = {
        1: encode(tmp_path / "clip.avi", codec="mpeg4", options={"bf": "2"}),
        2: tmp_path / "still.png",
    }
    Image.fromarray(np.full((32, 32, 3), 90, dtype=np.uint8)).save(made[2])
    videos = tuple(replace(video, path=made.get(row, video.path)) for row, video in enumerate(samples.videos))
    path = tmp_path / "c.zarr"
    dump(path, replace(samples, videos=videos), ColourTeacher(), SETTINGS, {})
    routes = open_seen(open_cache(path), None).routes
    assert routes == ["random_access", "sequential", "image", "random_access", "", *["random_access"] * 3]
    assert set(routes) - {""} <= set(ROUTES)


def test_what_is_asked_wrongly_is_told(cache, mine, tmp_path, capsys):
    with pytest.raises(InputError, match=r"--view drawn \| uniform_4x16"):
        open_seen(open_cache(cache), None)
    with pytest.raises(UnknownNameError, match="view 'dawn'; did you mean 'drawn'"):
        open_seen(open_cache(cache), "dawn")
    for arguments, words in (
        (("--video", "0_rot.mp4"), "did you mean '0_red.mp4'"),
        (("--video", BROKEN), "nothing was seen of video '4_red.mp4': not a readable video"),
        (("--video", RED, "--data", tmp_path / "none"), "is no folder"),
        (("--video", RED, "--data", tmp_path), "several; give the file itself"),
        (("--check", tmp_path / "mine" / "none"), "is no folder"),
        (("--check", tmp_path / "empty"), "holds none of the 8 videos"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        shutil.copytree(mine, tmp_path / "twice", dirs_exist_ok=True)
        assert frames(cache, "--view", "drawn", *arguments) == 2
        assert words in capsys.readouterr().err


def test_files_are_found_by_path_name_or_stem_and_never_guessed(tmp_path):
    for name in ("a/v1.mp4", "a/v2.avi", "b/v2.mkv", "b/-x.1.mp4", "b/v1.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = FoundFiles.below(tmp_path)
    names = ("v1", "v1.mp4", "a/v1", "elsewhere/v1.mp4", "-x.1", "a/v2.avi")
    assert [found.of(name).name for name in names] == ["v1.mp4"] * 4 + ["-x.1.mp4", "v2.avi"]
    assert found.of("v2") is None
    assert found.ambiguous(["v1", "v2", "v3"]) == ["v2"]
