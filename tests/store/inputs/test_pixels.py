"""Frames kept as JPEG come back about as they were, and it is told how nearly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from store.encodings import ErrorSum
from store.errors import DamagedCacheError, InputError
from store.inputs.pixels import decode_jpeg, encode_jpeg
from store.kept_pixels import psnr_db
from tests.store.inputs.clips import board


def smooth_frames(count=3, size=64):
    y, x = np.mgrid[:size, :size]
    frames = [np.stack([y * 3 + number * 9, x * 2, (x + y) % 256], axis=-1) for number in range(count)]
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def kept_psnr(frames, quality):
    decoded = decode_jpeg(encode_jpeg(frames, quality), *frames.shape[1:3])
    return psnr_db(ErrorSum.between(frames, decoded), frames.size)


def test_frames_come_back_in_order_and_better_at_higher_quality():
    frames = np.stack([board(number, 64, 64) for number in range(4)])
    qualities = [kept_psnr(frames, quality) for quality in (50, 75, 95)]
    assert qualities == sorted(qualities)
    assert kept_psnr(smooth_frames(), 95) > 38


def test_the_same_frames_give_the_same_bytes_and_fewer_than_raw():
    frames = smooth_frames()
    coded = encode_jpeg(frames, 90)
    assert coded == encode_jpeg(frames, 90)
    assert sum(map(len, coded)) < frames.nbytes / 3


def test_psnr_is_that_of_the_definition():
    frames = np.full((1, 4, 4, 3), 100, dtype=np.uint8)
    assert psnr_db(ErrorSum.between(frames, frames), frames.size) is None
    off_by_5 = ErrorSum.between(frames, frames + np.uint8(5))
    assert psnr_db(off_by_5, frames.size) == pytest.approx(20 * math.log10(255 / 5))


def test_what_can_not_be_encoded_is_refused():
    with pytest.raises(InputError, match=r"uint8 \[M, Y, X, 3\]"):
        encode_jpeg(smooth_frames()[0], 90)
    with pytest.raises(InputError, match="1 to 100"):
        encode_jpeg(smooth_frames(), 0)


def test_damaged_bytes_name_their_frame():
    coded = encode_jpeg(smooth_frames(), 90)
    with pytest.raises(DamagedCacheError, match="frame 1 of 3 is no JPEG"):
        decode_jpeg([coded[0], coded[1][:100], coded[2]], 64, 64)
    with pytest.raises(DamagedCacheError, match="frame 1 claims 32 x 32 pixels, expected 64 x 64"):
        decode_jpeg([coded[0], *encode_jpeg(smooth_frames(1, 32), 90)], 64, 64)


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_is_decoded():
    coded = encode_jpeg(smooth_frames(1), 90)[0]
    height_and_width = coded.index(b"\xff\xc0") + 5
    bomb = coded[:height_and_width] + b"\xff\xdc\xff\xdc" + coded[height_and_width + 4 :]
    with pytest.raises(DamagedCacheError, match="frame 0"):
        decode_jpeg([bomb], 64, 64)
