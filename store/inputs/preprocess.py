"""Pixels of a view: a decoded frame -> `size` x `size` RGB, and which part of the frame that was.

The numbers are those of CLIP's own transform (openai/CLIP `clip/clip.py`, `_transform`) as torchvision runs
it on Pillow images: shorter side to `size` (bicubic, antialiased), the longer one truncated to an integer,
centre crop. CLIP's mean and standard deviation are kept apart: frames stay uint8 until a model takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

MAX_PIXELS = 1 << 26
"""No array of more pixels (8192 x 8192) is ever made of one frame: a few bytes may claim any size."""

THUMBNAIL_SIZE = 16
SQUARE = Fraction(1)


@dataclass(frozen=True)
class Placement:
    """How a frame of `height` x `width` stored pixels comes to lie under the square of a view.

    The frame is resized to `resized_height` x `resized_width`; the square begins at (`top`, `left`).
    """

    height: int
    width: int
    resized_height: int
    resized_width: int
    top: int
    left: int
    size: int

    def source_box(self) -> np.ndarray:
        """(left, top, right, bottom) of the square in pixels of the frame, float32 [4]."""
        x, y = self.width / self.resized_width, self.height / self.resized_height
        right, bottom = self.left + self.size, self.top + self.size
        return np.array([self.left * x, self.top * y, right * x, bottom * y], dtype=np.float32)


def place(height: int, width: int, size: int, pixel_aspect: Fraction = SQUARE) -> Placement:
    """Where the centre square of a frame lies; `pixel_aspect` is the width of a pixel over its height.

    Pixels that are not square are made so by the width, as players do; that and the view's resize are one
    resampling.
    """
    shown_width = max(1, round(width * pixel_aspect))
    if shown_width <= height:
        resized_height, resized_width = int(size * height / shown_width), size
    else:
        resized_height, resized_width = size, int(size * shown_width / height)
    top = round((resized_height - size) / 2.0)
    left = round((resized_width - size) / 2.0)
    return Placement(height, width, resized_height, resized_width, top, left, size)


def fit(frame_YXC: np.ndarray, placement: Placement) -> np.ndarray:
    """The square of the view: uint8 [size, size, 3] from uint8 RGB [Y, X, 3].

    A ribbon so long that resizing it whole would take more than MAX_PIXELS is resized within the square
    only; Pillow rounds otherwise then, by a level on average at most.
    """
    from PIL import Image

    size, left, top = placement.size, placement.left, placement.top
    resized = (placement.resized_width, placement.resized_height)
    if frame_YXC.shape == (size, size, 3) and resized == (size, size):
        return frame_YXC
    image = Image.fromarray(frame_YXC)
    if resized[0] * resized[1] > MAX_PIXELS:
        box = tuple(placement.source_box().tolist())
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def thumbnail(frame_YXC: np.ndarray) -> np.ndarray:
    """uint8 [16, 16, 3]: the mean colour of each tile of a view's frame, to recognise it by."""
    from PIL import Image

    shape = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    return np.asarray(Image.fromarray(frame_YXC).resize(shape, Image.Resampling.BOX))
