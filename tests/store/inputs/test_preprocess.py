"""The view's square has the pixels that CLIP's own transform makes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from store.inputs.preprocess import crop_places, fit, place

SIZES = [(240, 320), (320, 240), (224, 224), (225, 400), (37, 301), (1080, 1920), (1, 1), (112, 500)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pixels_are_those_of_torchvision(height, width):
    transforms = pytest.importorskip("torchvision.transforms")
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    clip = transforms.Compose(
        [
            transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    )
    square = fit(frame, place(height, width, 224).source_box(), 224).astype(int)
    difference = np.abs(square - np.asarray(clip(Image.fromarray(frame))))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.003


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    size=st.integers(1, 512),
    aspect=st.fractions(Fraction(1, 10), 10),
)
def test_the_square_lies_within_the_frame(height, width, size, aspect):
    placement = place(height, width, size, aspect)
    left, top, right, bottom = placement.source_box().tolist()
    assert -1e-3 <= left < right <= width * (1 + 1e-6)
    assert -1e-3 <= top < bottom <= height * (1 + 1e-6)
    assert min(placement.resized_height, placement.resized_width) == size


def test_a_ribbon_is_not_resized_whole():
    """Its 60,000 columns at 224 rows would be a gigabyte."""
    frame = np.zeros((8, 60_000, 3), dtype=np.uint8)
    frame[:, 29_990:30_010] = 200
    square = fit(frame, place(8, 60_000, 224).source_box(), 224)
    assert square.shape == (224, 224, 3)
    assert (square == 200).all()


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    size=st.integers(1, 512),
    crops=st.integers(2, 5),
)
def test_several_crops_reach_from_end_to_end(height, width, size, crops):
    placements = [place(height, width, size, along=along) for along in crop_places(crops)]
    starts = [placement.left + placement.top for placement in placements]
    last = placements[-1]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[-1] == max(last.resized_width, last.resized_height) - size


def test_a_frame_of_the_right_size_is_left_alone():
    frame = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(fit(frame, place(32, 32, 32).source_box(), 32), frame)
