"""Pixels of a view: a decoded frame -> `size` x `size` RGB, and which part of the frame that was.

The numbers are those of CLIP's own transform (openai/CLIP `clip/clip.py`, `_transform`) as torchvision runs
it on Pillow images: shorter side to `size` (bicubic, antialiased), the longer one truncated to an integer,
crop. Only what the crop shows is computed, which takes half the time and rounds one value in a thousand to
the level beside it. CLIP's mean and standard deviation are kept apart: frames stay uint8 until a model takes
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

MAX_PIXELS = 1 << 26
"""No array of more pixels (8192 x 8192) is ever made of one frame: a few bytes may claim any size."""

THUMBNAIL_SIZE = 16
SQUARE = Fraction(1)
CENTRE = Fraction(1, 2)
BICUBIC_REACH = 2
"""Pixels to each side of a point that bicubic interpolation looks at, at a scale of 1 or larger."""


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


def place(
    height: int, width: int, size: int, pixel_aspect: Fraction = SQUARE, along: Fraction = CENTRE
) -> Placement:
    """Where the square lies in a frame; `pixel_aspect` is the width of a pixel over its height.

    along: which share of what does not fit lies before the square: 0 is the left or top end of the frame.
    Pixels that are not square are made so by the width, as players do; that and the view's resize are one
    resampling.
    """
    shown_width = max(1, round(width * pixel_aspect))
    if shown_width <= height:
        resized_height, resized_width = int(size * height / shown_width), size
    else:
        resized_height, resized_width = size, int(size * shown_width / height)
    top = round((resized_height - size) * along)
    left = round((resized_width - size) * along)
    return Placement(height, width, resized_height, resized_width, top, left, size)


def crop_places(crops: int) -> list[Fraction]:
    """`along` of each of `crops` crops: the centre, or from one end of the frame to the other."""
    return [CENTRE] if crops == 1 else [Fraction(crop, crops - 1) for crop in range(crops)]


def fit(frame_YXC: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The square of the view: uint8 [size, size, 3] from uint8 RGB [Y, X, 3].

    box: `Placement.source_box`. A frame that the square covers as it is comes back unchanged. Rows first,
    then columns, as Pillow resizes a whole frame; left to itself, it orders the two passes by the box.
    """
    from PIL import Image

    height, width = frame_YXC.shape[:2]
    if frame_YXC.shape == (size, size, 3) and np.array_equal(box, (0, 0, size, size)):
        return frame_YXC
    left, top, right, bottom = (float(value) for value in np.minimum(box, (width, height, width, height)))
    reach = math.ceil(BICUBIC_REACH * max(1.0, (bottom - top) / size)) + 1
    first, last = max(0, math.floor(top) - reach), min(height, math.ceil(bottom) + reach)
    rows = Image.fromarray(frame_YXC[first:last])
    narrow = rows.resize((size, rows.height), Image.Resampling.BICUBIC, box=(left, 0, right, rows.height))
    shown = (0, top - first, size, bottom - first)
    return np.asarray(narrow.resize((size, size), Image.Resampling.BICUBIC, box=shown))


def thumbnails(frames_MYXC: np.ndarray) -> np.ndarray:
    """uint8 [M, 16, 16, 3]: the mean colour of each tile of a view's frames, to recognise them by."""
    from PIL import Image

    count, size = frames_MYXC.shape[:2]
    small = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    if size % THUMBNAIL_SIZE == 0:
        # Tiles do not cross frames, so all are reduced as one tall image.
        column = Image.fromarray(frames_MYXC.reshape(count * size, size, 3))
        return np.asarray(column.reduce(size // THUMBNAIL_SIZE)).reshape(count, *small, 3)
    return np.stack(
        [np.asarray(Image.fromarray(frame).resize(small, Image.Resampling.BOX)) for frame in frames_MYXC]
    )
