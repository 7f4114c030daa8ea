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


def decode_jpeg(coded: Sequence[bytes]) -> np.ndarray:
    """uint8 RGB [M, Y, X, 3] from the JPEGs of M frames of one size, M >= 1.

    Raises DamagedCacheError, naming the frame, for bytes that are no JPEG or a frame of another size.
    """
    from PIL import Image

    if not coded:
        raise InputError("no frame to decode: expected at least one JPEG")
    frames = []
    for number, content in enumerate(coded):
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                frames.append(np.asarray(image.convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:
            raise DamagedCacheError(f"frame {number} of {len(coded)} is no JPEG; pull it again") from error
        if frames[-1].shape != frames[0].shape:
            raise DamagedCacheError(
                f"frame {number} is {frames[-1].shape[:2]}, frame 0 {frames[0].shape[:2]}; pull them again"
            )
    return np.stack(frames)


def psnr(frames: np.ndarray, others: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pixels against others of the same shape; inf if equal.

    10 log10(255^2 / mean squared error), the mean over all pixels and channels. Raises InputError for
    different shapes.
    """
    if frames.shape != others.shape:
        raise InputError(f"frames to compare are of shapes {frames.shape} and {others.shape}")
    error = np.square(frames.astype(np.float64) - others).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))
