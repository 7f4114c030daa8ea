"""A contact sheet: the frames of one video as a teacher saw them, with their times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

LARGEST_CELL, SMALLEST_CELL = 224, 96
MOST_COLUMNS = 6
GAP, LABEL, TITLE, TEXT = 8, 18, 26, 13
PAPER, INK, PALE, EMPTY = (250, 250, 248), (25, 25, 28), (110, 110, 116), (226, 226, 222)


def draw_sheet(
    path: Path, title: list[str], frames: np.ndarray, times_s: np.ndarray, valid: np.ndarray
) -> None:
    """Write an image of `frames` [R, M, Y, X, 3] uint8 with `times_s` [R, M] below each to `path`.

    A place that is not `valid` [R, M] is an empty field. Renditions stand below each other, each in as many
    lines as its frames need. The kind of image follows from the suffix of `path`.
    """
    from PIL import Image, ImageDraw, ImageFont

    renditions, count, size = frames.shape[:3]
    cell = min(LARGEST_CELL, max(SMALLEST_CELL, size))
    lines = -(-count // MOST_COLUMNS)
    columns = -(-count // lines)
    block = lines * (cell + LABEL + GAP) + (LABEL if renditions > 1 else 0)
    letters = ImageFont.load_default(TEXT)
    widest = max(int(letters.getlength(latin(line))) for line in title)
    width = max(widest + 2 * GAP, columns * (cell + GAP) + GAP)
    top = GAP + TITLE + LABEL * (len(title) - 1) + GAP
    sheet = Image.new("RGB", (width, top + renditions * block + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        write(
            draw,
            (GAP, GAP + number * LABEL + (TITLE - LABEL if number else 0)),
            line,
            INK if not number else PALE,
        )
    for rendition in range(renditions):
        y = top + rendition * block
        if renditions > 1:
            write(draw, (GAP, y), f"rendition {rendition}", PALE)
            y += LABEL
        for place in range(count):
            left = GAP + place % columns * (cell + GAP)
            upper = y + place // columns * (cell + LABEL + GAP)
            if valid[rendition, place]:
                picture = Image.fromarray(frames[rendition, place])
                # Enlarged without smoothing, so that nobody takes a thumbnail for what the teacher saw.
                how = Image.Resampling.NEAREST if size < cell else Image.Resampling.LANCZOS
                sheet.paste(picture.resize((cell, cell), how), (left, upper))
                write(draw, (left, upper + cell + 2), f"{place}: {times_s[rendition, place]:.2f} s", INK)
            else:
                draw.rectangle((left, upper, left + cell - 1, upper + cell - 1), EMPTY)
                write(draw, (left, upper + cell + 2), f"{place}: no frame", PALE)
    sheet.save(path)


def latin(text: str) -> str:
    """`text` in the letters that the default font has."""
    return text.encode("latin-1", "replace").decode("latin-1")


def write(draw: ImageDraw, at: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    from PIL import ImageFont

    draw.text(at, latin(text), fill=colour, font=ImageFont.load_default(TEXT))
