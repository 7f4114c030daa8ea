"""Cutting the squares of a view from upright frames, and cutting them again from what was stored."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from store.inputs.augment import NEUTRAL_COLOUR, recolour
from store.inputs.preprocess import crop_places, fit, place
from store.inputs.view import SQUASH, View


@dataclass(frozen=True)
class Look:
    """How one rendition is cut from frames of one size: what a cache stores of it.

    crop_box [4] float32: left, top, right, bottom in pixels of the upright frame. colour [4] float32:
    augment.NEUTRAL_COLOUR where it is left alone.
    """

    crop_box: np.ndarray
    flip: bool
    colour: np.ndarray


def replay(
    frame_YXC: np.ndarray, view: View, crop_box: np.ndarray, flip: bool, colour: np.ndarray | None = None
) -> np.ndarray:
    """What a teacher saw of an upright frame, uint8 [Y, X, 3] RGB: uint8 [size, size, 3], the same pixels.

    crop_box [4], flip, colour [4] are those that the cache stores for the video and rendition; colour is
    None where the view has no augmentation. A plain crop looks at the pixels around it while resizing, as
    resizing first and cropping then does; an augmented one is cut out first, as RandomResizedCrop does.
    """
    if view.augmentation is None:
        square = fit(frame_YXC, crop_box, view.size)
    else:
        left, top, right, bottom = np.asarray(crop_box).astype(int).tolist()
        whole = np.array([0, 0, right - left, bottom - top], dtype=np.float32)
        square = fit(np.ascontiguousarray(frame_YXC[top:bottom, left:right]), whole, view.size)
    if flip:
        square = np.ascontiguousarray(square[:, ::-1])
    if colour is not None and tuple(colour) != NEUTRAL_COLOUR:
        from PIL import Image

        square = np.asarray(recolour(Image.fromarray(square), colour))
    return square


class Cutter:
    """Cuts frames of one video as a view asks; a video may change its frame size halfway."""

    def __init__(self, view: View, video_id: str) -> None:
        self.view = view
        self._video_id = video_id
        self._places = crop_places(view.crops)
        self._looks: dict[tuple[int, int, int, Fraction], Look] = {}

    def look(self, rendition: int, height: int, width: int, pixel_aspect: Fraction) -> Look:
        """How `rendition` is cut from frames [height, width]; pixel_aspect: width of a pixel over height."""
        key = (rendition, height, width, pixel_aspect)
        if key not in self._looks:
            self._looks[key] = self._resolve(*key)
        return self._looks[key]

    def _resolve(self, rendition: int, height: int, width: int, pixel_aspect: Fraction) -> Look:
        view, drawn = self.view, self.view.augmentation
        if drawn is None:
            along = self._places[rendition % view.crops]
            if view.resize == SQUASH:
                box = np.array([0, 0, width, height], dtype=np.float32)
            else:
                box = place(height, width, view.size, pixel_aspect, along).source_box()
            return Look(box, False, np.array(NEUTRAL_COLOUR, dtype=np.float32))
        draws = [view.draws(what, rendition, self._video_id) for what in ("box", "flip", "colour")]
        return Look(
            np.array(drawn.draw_box(draws[0], height, width, pixel_aspect), dtype=np.float32),
            drawn.draw_flip(draws[1]),
            np.array(drawn.draw_colour(draws[2]), dtype=np.float32),
        )

    def cut(self, frame_YXC: np.ndarray, rendition: int, pixel_aspect: Fraction) -> np.ndarray:
        """uint8 [size, size, 3] of an upright frame, uint8 RGB [Y, X, 3]."""
        height, width = frame_YXC.shape[:2]
        look = self.look(rendition, height, width, pixel_aspect)
        return replay(frame_YXC, self.view, look.crop_box, look.flip, look.colour)
