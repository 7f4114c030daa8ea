"""A view that shows the whole frame, whatever its shape (ALBEF, SigLIP)."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from store.errors import InputError
from store.inputs.augment import Augmentation
from store.inputs.cuts import Cutter
from store.inputs.view import SQUASH, View

VIEW = View("whole", 1, 64, resize=SQUASH)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (64, 64), (37, 301), (50, 40)])
def test_pixels_are_those_of_torchvision(height, width):
    transforms = pytest.importorskip("torchvision.transforms")
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resize = transforms.Resize((64, 64), interpolation=transforms.InterpolationMode.BICUBIC)
    expected = np.asarray(resize(Image.fromarray(frame))).astype(int)
    difference = np.abs(Cutter(VIEW, "").cut(frame, 0, Fraction(1)) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("aspect", [Fraction(1, 2), Fraction(1), Fraction(16, 15)])
def test_the_box_is_the_whole_frame_whatever_the_shape_of_its_pixels(aspect):
    assert Cutter(VIEW, "").look(0, 240, 320, aspect).crop_box.tolist() == [0, 0, 320, 240]


def test_it_is_another_view_and_comes_back_from_its_json():
    assert VIEW.to_dict() != View("whole", 1, 64).to_dict()
    assert "resize" not in View("whole", 1, 64).to_dict()
    assert View.from_dict(VIEW.to_dict()) == VIEW


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="resize is one of"):
        View("x", 1, 64, resize="longest")
    with pytest.raises(InputError, match="shown whole"):
        View("x", 1, 64, resize=SQUASH, crops=3, renditions=3)
    with pytest.raises(InputError, match="shown whole"):
        View("x", 1, 64, resize=SQUASH, augmentation=Augmentation())
