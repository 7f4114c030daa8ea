"""Finding video files by name: one pass over every directory."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError, MissingFileError
from store.inputs.video_folder import VideoFolder, split_name


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.mp4", ("a", ".mp4")),
        ("a.MP4", ("a", ".mp4")),
        ("0001_Film_00.00.51.926-00.00.54.129.avi", ("0001_Film_00.00.51.926-00.00.54.129", ".avi")),
        ("0001_Film_00.00.51.926-00.00.54.129", ("0001_Film_00.00.51.926-00.00.54.129", "")),
        ("name.", ("name", ".")),
        ("-.x.webm", ("-.x", ".webm")),
        (".mp4", (".mp4", "")),
        ("captions.json", ("captions.json", "")),
    ],
)
def test_only_the_suffix_of_a_video_is_cut(name, parts):
    assert split_name(name) == parts


@given(st.text(min_size=1))
def test_a_name_is_its_stem_and_its_suffix(name):
    stem, suffix = split_name(name)
    assert stem
    assert (stem + suffix).lower() == name.lower() or name.lower().startswith(stem.lower())


def test_files_are_found_in_any_folder_under_any_suffix(tmp_path):
    touch(tmp_path, "a.avi", "sub/deep/-b.webm", "sub/c.", "sub/notes.txt")
    folder = VideoFolder(tmp_path)
    assert folder.find(["a"]) == tmp_path / "a.avi"
    assert folder.find(["absent", "-b.mp4"]) == tmp_path / "sub/deep/-b.webm"
    assert folder.find(["c"]) == tmp_path / "sub/c."
    assert folder.find(["d"]) is None
    assert folder.file_count == 4


@pytest.mark.parametrize("id", ["../outside", "..", "sub/../../outside", "/", "", "sub/a"])
def test_no_name_leads_out_of_the_folder(tmp_path, id):
    inside = tmp_path / "inside"
    touch(tmp_path, "outside.mp4", "inside/sub/a.mp4")
    assert VideoFolder(inside).find([id, f"{id}.mp4", str(tmp_path / "outside.mp4")]) is None


def test_the_exact_name_wins_over_another_suffix_and_mp4_over_avi(tmp_path):
    touch(tmp_path, "a.avi", "a.mp4", "a.mov")
    folder = VideoFolder(tmp_path)
    assert folder.find(["a.mov"]).name == "a.mov"
    assert folder.find(["a.3gp"]).name == "a.mp4"


def test_a_name_in_two_folders_is_refused_unless_one_is_preferred(tmp_path):
    touch(tmp_path, "videos/a.mp4", "compressed/a.mp4")
    with pytest.raises(InputError, match=r"compressed/a\.mp4 and at .*videos/a\.mp4"):
        VideoFolder(tmp_path).find(["a"])
    assert VideoFolder(tmp_path, ["videos"]).find(["a"]) == tmp_path / "videos" / "a.mp4"
    assert (
        VideoFolder(tmp_path, ["", "absent", "compressed", "videos"]).find(["a"]).parent.name == "compressed"
    )


def test_a_folder_whose_name_begins_as_a_preferred_one_is_not_it(tmp_path):
    touch(tmp_path, "videos/a.mp4", "videos_small/a.mp4")
    assert VideoFolder(tmp_path, ["videos"]).find(["a"]).parent.name == "videos"


def test_links_are_followed_and_a_loop_ends(tmp_path):
    touch(tmp_path, "elsewhere/real.mp4", "data/plain.mp4")
    data = tmp_path / "data"
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "loop").symlink_to(data)
    (data / "one.mp4").symlink_to(tmp_path / "elsewhere" / "real.mp4")
    folder = VideoFolder(data)
    assert folder.find(["real"]) == data / "linked" / "real.mp4"
    assert folder.find(["one"]) == data / "one.mp4"
    assert folder.file_count == 3


def test_hidden_folders_are_left_alone_but_files_may_begin_with_a_dot(tmp_path):
    touch(tmp_path, ".git/a.mp4", ".a.mp4")
    folder = VideoFolder(tmp_path)
    assert folder.find(["a"]) is None
    assert folder.find([".a"]).name == ".a.mp4"


def test_a_cache_below_the_folder_holds_no_videos(tmp_path):
    """The chunks of a Zarr array are files named 0, 1, ..., and so are ids of Something-Something."""
    touch(tmp_path, "c.zarr/videos/id_utf8/c/0", "c.zarr/texts/kind/c/1", "videos/1.webm")
    folder = VideoFolder(tmp_path)
    assert folder.find(["0"]) is None
    assert folder.find(["1"]) == tmp_path / "videos" / "1.webm"


def test_names_that_are_not_utf8_do_no_harm(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / os.fsdecode(b"\xff\xfe")).mkdir()
    (tmp_path / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"\xff.mp4")).touch()
    folder = VideoFolder(tmp_path)
    assert folder.find(["a"]).name == "a.mp4"
    assert all(name.encode() for name in folder.folders_with_files())


def test_no_file_is_looked_into_or_asked_for_its_size(tmp_path, monkeypatch):
    touch(tmp_path, *(f"sub{n}/{m}.mp4" for n in range(3) for m in range(50)))
    calls = []
    for name in ("stat", "lstat", "open"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, **k: (calls.append(a), real(*a, **k))[1])
    folder = VideoFolder(tmp_path)
    assert folder.file_count == 150
    assert not [call for call in calls if str(call[0]).endswith(".mp4")]
    assert folder.find(["sub1"]) is None


def test_an_absent_folder_is_told(tmp_path):
    with pytest.raises(MissingFileError, match="no folder at"):
        VideoFolder(tmp_path / "absent")


def test_folders_with_most_files_come_first(tmp_path):
    touch(tmp_path, "b/1.mp4", "b/2.mp4", "a/3.mp4", "a/list.txt", "4.jpg")
    assert VideoFolder(tmp_path).folders_with_files() == {"b": 2, ".": 1, "a": 1}
