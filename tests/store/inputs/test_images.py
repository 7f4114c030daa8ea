"""Images are videos of one frame; what would come out falsified is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from store.errors import UndecodableVideoError
from store.inputs.frames import IMAGE, decode_view
from store.inputs.view import View
from tests.store.inputs.clips import board, number_of

VIEW = View("test", 2, 64)


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "still.webp", "still.bmp"])
def test_an_image_is_a_video_of_one_frame(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(board(5, 64, 96)).save(path)
    decoded = decode_view(path, VIEW)
    assert decoded.route == IMAGE
    assert [number_of(square) for square in decoded.frames[0]] == [5, 5]
    assert decoded.duration_s == 0


def test_an_image_is_turned_by_its_exif(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(board(9, 64, 96)).save(path, exif=exif)
    back = np.rot90(decode_view(path, VIEW).frames[0, 0], 1)
    assert number_of(back) == 9


def test_an_image_of_16_bits_is_refused_rather_than_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)
    with pytest.raises(UndecodableVideoError, match="expected 8 bits a channel"):
        decode_view(path, VIEW)


def test_a_truncated_image_is_refused(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(board(3, 64, 96)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UndecodableVideoError, match="truncated or damaged image"):
        decode_view(path, VIEW)


def test_a_file_that_is_no_image_tells_why_and_not_where(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    with pytest.raises(UndecodableVideoError, match="not a readable image"):
        decode_view(path, VIEW)
