"""Augmentations that can be replayed: drawn from a key alone, kept as box, flip and colour, applied again.

A student that is to see exactly what its teacher saw needs the same pixels, so nothing here draws from the
state of a generator: the same key gives the same numbers on any machine, in any order, with any library.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import InputError
from store.untrusted import exact_fields

if TYPE_CHECKING:
    from PIL.Image import Image

NEUTRAL_COLOUR = (1.0, 1.0, 1.0, 0.0)
"""Factors of brightness, contrast and saturation, and the turn of the hue: those that change nothing."""

TRIES = 10
MANTISSA_BITS = 53

Box = tuple[int, int, int, int]


class Draws:
    """Numbers that depend on `key` and on how many were drawn before: sha256 in counter mode."""

    def __init__(self, *key: int | str) -> None:
        self._key = json.dumps(key)
        self._count = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """From [low, high)."""
        digest = hashlib.sha256(f"{self._key} {self._count}".encode()).digest()
        self._count += 1
        share = (int.from_bytes(digest[:8], "big") >> (64 - MANTISSA_BITS)) / (1 << MANTISSA_BITS)
        return low + (high - low) * share

    def whole(self, stop: int) -> int:
        """From 0 to stop - 1."""
        return min(int(self.uniform() * stop), stop - 1)


@dataclass(frozen=True)
class Augmentation:
    """What may happen to the frames of a rendition; all of its frames share one draw.

    The crop covers a share from `min_area` to `max_area` of the picture as shown, its width over its height
    lies between 1 / `stretch` and `stretch`; it is mirrored with probability `flip`; factors of brightness,
    contrast and saturation lie up to that much around 1, the turn of the hue within +-`hue` of the circle.
    As torchvision's RandomResizedCrop, RandomHorizontalFlip and ColorJitter (colours in that order always).
    """

    min_area: float = 0.08
    max_area: float = 1.0
    stretch: float = 4 / 3
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.min_area <= self.max_area <= 1 and self.stretch >= 1 and 0 <= self.flip <= 1):
            raise InputError(
                f"{self}: expected 0 < min_area <= max_area <= 1, stretch >= 1, flip from 0 to 1"
            )
        strengths = (self.brightness, self.contrast, self.saturation)
        if not (all(0 <= strength <= 1 for strength in strengths) and 0 <= self.hue <= 0.5):
            raise InputError(f"{self}: expected brightness, contrast, saturation from 0 to 1, hue to 0.5")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> Augmentation:
        """Parse `to_dict`'s; raises DamagedCacheError for other fields or types."""
        return cls(**exact_fields(cls, fields, "an augmentation"))

    def draw_box(self, draws: Draws, height: int, width: int, pixel_aspect: Fraction) -> Box:
        """(left, top, right, bottom), whole stored pixels of a frame [height, width]."""
        shown = width * float(pixel_aspect)
        for _ in range(TRIES):
            area = shown * height * draws.uniform(self.min_area, self.max_area)
            ratio = math.exp(draws.uniform(-math.log(self.stretch), math.log(self.stretch)))
            box_width = round(math.sqrt(area * ratio) / float(pixel_aspect))
            box_height = round(math.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                left, top = draws.whole(width - box_width + 1), draws.whole(height - box_height + 1)
                return left, top, left + box_width, top + box_height
        return self.centre_box(height, width, pixel_aspect)

    def centre_box(self, height: int, width: int, pixel_aspect: Fraction) -> Box:
        """The largest box of an admitted shape, in the middle: for frames too long for any draw."""
        shown = width * float(pixel_aspect)
        box_width = min(width, max(1, round(height * self.stretch / float(pixel_aspect))))
        box_height = min(height, max(1, round(shown * self.stretch)))
        left, top = (width - box_width) // 2, (height - box_height) // 2
        return left, top, left + box_width, top + box_height

    def draw_flip(self, draws: Draws) -> bool:
        return draws.uniform() < self.flip

    def draw_colour(self, draws: Draws) -> tuple[float, float, float, float]:
        """As NEUTRAL_COLOUR is; representable in float32, so that stored numbers replay the same pixels."""
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [draws.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths]
        brightness, contrast, saturation, hue = (
            float(np.float32(value)) for value in (*factors, draws.uniform(-self.hue, self.hue))
        )
        return brightness, contrast, saturation, hue


def recolour(image: Image, colour: np.ndarray | tuple[float, ...]) -> Image:
    """`image` (RGB) with brightness, contrast, saturation and hue changed by `colour` [4], in that order."""
    from PIL import ImageEnhance

    steps = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for step, factor in zip(steps, colour[:3], strict=True):
        if factor != 1.0:
            image = step(image).enhance(float(factor))
    return turn_hue(image, float(colour[3])) if colour[3] else image


def turn_hue(image: Image, turn: float) -> Image:
    """`image` (RGB) with the hue turned by `turn` of the circle, from -0.5 to 0.5."""
    import PIL.Image

    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int64) + int(turn * 255)) % 256
    channels = (PIL.Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return PIL.Image.merge("HSV", channels).convert("RGB")
