"""Images: videos of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from store.errors import UndecodableVideoError
from store.inputs.container import refuse_huge, refuse_unreadable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")


def read_image(path: Path) -> np.ndarray:
    """uint8 RGB [Y, X, 3], turned upright by EXIF, alpha dropped as CLIP's `convert("RGB")` does.

    Of 16 bits a channel the upper eight are taken: what Pillow does with colours, while it clips grey to
    white. Raises UndecodableVideoError for an unreadable or truncated file, for one of more pixels than any
    array is made of (before it is decoded), and for numbers that are no grey levels (32 bits, floats).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    refuse_unreadable(path)
    try:
        with Image.open(path) as image:
            refuse_huge(*image.size)
            if image.mode not in EIGHT_BIT_MODES + SIXTEEN_BIT_MODES:
                raise UndecodableVideoError(f"image of mode {image.mode}, expected 8 or 16 bits a channel")
            upright = ImageOps.exif_transpose(image)
            if upright.mode in SIXTEEN_BIT_MODES:
                grey = (np.asarray(upright) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise UndecodableVideoError("not a readable image") from error
    except Image.DecompressionBombError as error:
        raise UndecodableVideoError("an image of too many pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UndecodableVideoError):
            raise
        raise UndecodableVideoError("a truncated or damaged image") from error
