"""Images: videos of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from store.errors import UndecodableVideoError
from store.inputs.container import refuse_huge, refuse_unreadable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_image(path: Path) -> np.ndarray:
    """uint8 RGB [Y, X, 3], turned upright by EXIF, alpha dropped as CLIP's `convert("RGB")` does.

    Raises UndecodableVideoError for an unreadable or truncated file and for more than 8 bits a channel,
    which Pillow would clip to white.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    refuse_unreadable(path)
    try:
        with Image.open(path) as image:
            refuse_huge(*image.size)
            if image.mode not in EIGHT_BIT_MODES:
                raise UndecodableVideoError(f"image of mode {image.mode}, expected 8 bits a channel")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UndecodableVideoError("not a readable image") from error
    except Image.DecompressionBombError as error:
        raise UndecodableVideoError("an image of too many pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UndecodableVideoError):
            raise
        raise UndecodableVideoError("a truncated or damaged image") from error
