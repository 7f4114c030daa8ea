"""The view's square has the pixels that CLIP's own transform makes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from store.inputs import preprocess
from store.inputs.preprocess import fit, place

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
    assert np.array_equal(fit(frame, place(height, width, 224)), np.asarray(clip(Image.fromarray(frame))))


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


@settings(max_examples=25)
@given(height=st.integers(20, 90), width=st.integers(20, 90), size=st.integers(8, 64))
def test_a_frame_too_long_to_resize_whole_gives_the_same_square(height, width, size):
    frame = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    placement = place(height, width, size)
    whole = fit(frame, placement)
    limit, preprocess.MAX_PIXELS = preprocess.MAX_PIXELS, 0
    try:
        within = fit(frame, placement)
    finally:
        preprocess.MAX_PIXELS = limit
    assert np.abs(whole.astype(int) - within).mean() < 1


def test_a_frame_of_the_right_size_is_left_alone():
    frame = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(fit(frame, place(32, 32, 32)), frame)
