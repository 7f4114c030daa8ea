"""Frames that a cache keeps are those that the teacher saw: all bits of them, or what JPEG leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from store.errors import DamagedCacheError, IdentityError, InputError, UnknownNameError
from store.info import describe
from store.inputs.frames import decode_view
from store.kept_pixels import KeptPixels
from store.reader import open_cache
from teacher_dump.dump import dump
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples

PLAIN = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=3, decoders=1)


def keeping(words):
    return replace(PLAIN, storage=StorageOptions(pixels=KeptPixels.parse(words)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    colour_samples(folder, broken=(4,))
    return folder


@pytest.fixture(scope="module")
def samples(clips):
    return colour_samples(clips, broken=(4,))


ROWS = np.array([7, 0, 3, 3])


def seen(samples, teacher, rows=ROWS):
    return np.stack([decode_view(samples.videos[row].path, teacher.view).frames for row in rows])


@pytest.mark.parametrize("frames", [{"frames": 4}, {"frames": 3, "sampling": "one_per_second"}])
def test_raw_pixels_are_those_that_the_teacher_saw(samples, tmp_path, frames):
    teacher = ColourTeacher(**frames)
    cache = dump(tmp_path / "c.zarr", samples, teacher, keeping("raw"), {})
    np.testing.assert_array_equal(cache.teacher("colour").pixels.read(ROWS), seen(samples, teacher))


@pytest.mark.parametrize("frames", [{"frames": 4}, {"frames": 3, "sampling": "one_per_second"}])
def test_jpeg_pixels_tell_their_psnr_and_have_it(samples, tmp_path, frames):
    teacher = ColourTeacher(**frames)
    cache = dump(tmp_path / "c.zarr", samples, teacher, keeping("jpeg:92"), {}).teacher("colour")
    usable = np.flatnonzero(cache.video_usable)
    read, wanted = cache.pixels.read(usable), seen(samples, teacher, usable)
    valid = cache.frame_valid[usable]
    assert not read[~valid].any()
    told = cache.kept_pixels
    assert (told["encoding"], told["quality"], told["frames"]) == ("jpeg", 92, int(valid.sum()))
    error = np.square(read[valid].astype(float) - wanted[valid]).mean()
    assert told["psnr_db"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)
    assert told["psnr_db"] > 35
    shards = (cache.cache.path / "views").rglob("pixel_jpeg*/c/**/*")
    assert told["bytes"] == sum(file.stat().st_size for file in shards if file.is_file())
    assert f"as jpeg of quality 92, PSNR {told['psnr_db']:.6g} dB" in describe(cache.cache.path)
    np.testing.assert_array_equal(cache.pixels.read(ROWS), read[np.searchsorted(usable, ROWS)])


def test_a_resume_keeps_the_same_bytes(samples, tmp_path, monkeypatch):
    from store.writer import CacheWriter

    whole = tree(dump(tmp_path / "whole.zarr", samples, ColourTeacher(), keeping("jpeg:80"), {}).path)
    counted = []

    def stop_early(self, done, commit=CacheWriter.commit):
        counted.append(done)
        if len(counted) > 2:
            raise KeyboardInterrupt
        commit(self, done)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", stop_early)
        with pytest.raises(KeyboardInterrupt):
            dump(tmp_path / "c.zarr", samples, ColourTeacher(), keeping("jpeg:80"), {})
    again = tree(dump(tmp_path / "c.zarr", samples, ColourTeacher(), keeping("jpeg:80"), {}).path)
    del whole["reports/dump.json"], again["reports/dump.json"]
    assert again == whole


def test_a_view_without_pixels_says_how_to_keep_them(samples, tmp_path):
    cache = dump(tmp_path / "c.zarr", samples, ColourTeacher(), PLAIN, {})
    with pytest.raises(UnknownNameError, match="keeps no frames; dump it with --keep-pixels"):
        _ = cache.teacher("colour").pixels
    with pytest.raises(IdentityError, match="kept pixels of view"):
        dump(tmp_path / "c.zarr", samples, ColourTeacher("second"), keeping("raw"), {})


def test_a_second_teacher_shares_what_the_first_one_kept(samples, tmp_path):
    dump(tmp_path / "c.zarr", samples, ColourTeacher(), keeping("jpeg:90"), {})
    before = tree(tmp_path / "c.zarr" / "views")
    cache = dump(tmp_path / "c.zarr", samples, ColourTeacher("second"), keeping("jpeg:90"), {})
    assert tree(tmp_path / "c.zarr" / "views") == before
    assert cache.teacher("second").pixels.read(ROWS).shape == (4, 1, 4, 16, 16, 3)


def test_a_damaged_jpeg_is_named(samples, tmp_path):
    root = dump(tmp_path / "c.zarr", samples, ColourTeacher(), keeping("jpeg:90"), {}).path
    shard = next((root / "views").rglob("pixel_jpeg/c/0/0"))
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedCacheError, match=r"pixel_jpeg, row 0: the crc32c is wrong"):
        open_cache(root).teacher("colour").pixels.read(np.array([0]))


@pytest.mark.parametrize("words", ["jpg:90", "jpeg", "jpeg:0", "jpeg:101", "jpeg:x", "raw:1", ""])
def test_other_words_are_refused(words):
    with pytest.raises(InputError, match="raw or jpeg:QUALITY"):
        KeptPixels.parse(words)
