"""Images are videos of one frame; what would come out falsified is refused."""

from __future__ import annotations

import struct
import zlib

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


def test_the_upper_half_of_16_bits_is_taken(tmp_path):
    path = tmp_path / "deep.png"
    grey = board(7, 64, 64)[:, :, 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    decoded = decode_view(path, VIEW)
    assert np.array_equal(decoded.frames[0, 0], np.repeat(grey[:, :, None], 3, axis=2))


def test_colours_of_16_bits_are_taken_likewise(tmp_path):
    """Pillow can't write them, so the chunks are put together here (PNG specification, 11.2)."""
    path = tmp_path / "deep.png"
    picture = board(7, 64, 64)
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in picture)
    header = struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    assert np.array_equal(decode_view(path, VIEW).frames[0, 0], picture)


def png_chunk(kind, content):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_the_colours_that_it_shows(tmp_path, mode):
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    options = {"quality": 95} if mode == "CMYK" else {}
    Image.fromarray(board(9, 64, 96)).convert(mode).save(path, **options)
    decoded = decode_view(path, VIEW)
    assert [number_of(square) for square in decoded.frames[0]] == [9, 9]


def test_transparent_pixels_keep_the_colour_below(tmp_path):
    picture = np.dstack([board(9, 64, 64), np.zeros((64, 64), dtype=np.uint8)])
    Image.fromarray(picture).save(tmp_path / "clear.png")
    assert np.array_equal(decode_view(tmp_path / "clear.png", VIEW).frames[0, 0], board(9, 64, 64))


def test_floats_are_refused_rather_than_guessed(tmp_path):
    path = tmp_path / "levels.png"
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(path, "TIFF")
    with pytest.raises(UndecodableVideoError, match="expected 8 or 16 bits"):
        decode_view(path, VIEW)


@pytest.mark.parametrize(("side", "reason"), [(9_000, "claims frames of 9000 x 9000"), (60_000, "too many")])
def test_a_few_bytes_that_claim_a_huge_picture_are_refused_before_it_is_made(tmp_path, side, reason):
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20))), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    with pytest.raises(UndecodableVideoError, match=reason):
        decode_view(path, VIEW)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_exif_is_undone(tmp_path, orientation):
    upright = Image.fromarray(board(5, 64, 64))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(turn[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decode_view(tmp_path / "turned.png", VIEW).frames[0, 0], upright)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_truncated_image_is_refused(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(board(3, 64, 96)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UndecodableVideoError, match="truncated or damaged image"):
        decode_view(path, VIEW)


def test_a_file_that_is_no_image_tells_why_and_not_where(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    with pytest.raises(UndecodableVideoError, match="not a readable image"):
        decode_view(path, VIEW)
