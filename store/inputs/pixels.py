"""Frames as JPEG bytes and back, and what that costs: for caches that keep the pixels of a view."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from store.errors import DamagedCacheError, InputError

FINEST_SUBSAMPLING = 90
"""From this quality on colours are kept at full resolution, as cameras do."""
FULL_COLOUR, HALF_COLOUR = 0, 2


def encode_jpeg(frames_MYXC: np.ndarray, quality: int) -> list[bytes]:
    """Each of uint8 RGB frames [M, Y, X, 3] as a baseline JPEG of `quality` 1 to 100.

    Raises InputError for another shape or dtype, or another quality.
    """
    from PIL import Image

    if frames_MYXC.ndim != 4 or frames_MYXC.shape[-1] != 3 or frames_MYXC.dtype != np.uint8:
        raise InputError(
            f"frames to encode are uint8 [M, Y, X, 3], not {frames_MYXC.dtype} {list(frames_MYXC.shape)}"
        )
    if not 1 <= quality <= 100:
        raise InputError(f"a JPEG's quality goes from 1 to 100, not {quality}")
    subsampling = FULL_COLOUR if quality >= FINEST_SUBSAMPLING else HALF_COLOUR
    coded = []
    for frame in frames_MYXC:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling=subsampling)
        coded.append(file.getvalue())
    return coded


def decode_jpeg(coded: Sequence[bytes], height: int, width: int) -> np.ndarray:
    """uint8 RGB [M, Y, X, 3] from the JPEGs of M frames of `height` x `width` pixels.

    Raises DamagedCacheError, naming the frame, for bytes that are no JPEG or claim another size; what a frame
    claims is checked before anything is decoded.
    """
    from PIL import Image

    frames = np.zeros((len(coded), height, width, 3), dtype=np.uint8)
    for number, content in enumerate(coded):
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                claimed = image.size
                if claimed == (width, height):
                    frames[number] = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DamagedCacheError(f"frame {number} of {len(coded)} is no JPEG; pull it again") from error
        if claimed != (width, height):
            raise DamagedCacheError(
                f"frame {number} claims {claimed[1]} x {claimed[0]} pixels, expected {height} x {width}; "
                "pull it again"
            )
    return frames
