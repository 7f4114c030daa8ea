"""make test-clips CLIPS=DIR: our frames of every file in a folder against a plain decode in order by PyAV.

A file is *equal* if, under views of 1, 4 and 12 uniform frames, each frame is the one of that number of a
plain decode and shows the same picture; a *listed failure* if we refuse it and the plain decode gives no
frame either; anything else is *wrong*. The plain decode shares no code with ours. The last line counts the
three; the exit status is 1 if any file is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from store.inputs.decode_pool import DecodedVideo, DecodePool, Limits
from store.inputs.view import View

VIEWS = tuple(View(f"uniform_{frames}", frames, 112) for frames in (1, 4, 12))
LEAST_EQUAL, LEAST_EQUAL_DEEP = 2.0, 4.0
"""Mean absolute difference, of 255, from which on pictures differ; the other is for more than 8 bits."""
EQUAL, FAILURE, WRONG = "equal", "listed failure", "WRONG"
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
NOT_CLIPS = {".md", ".txt", ".json", ".csv"}
HUGE = 1 << 26


@dataclass(frozen=True)
class Plain:
    """What a plain decode gave: how many frames, the wanted ones upright, and whether they are of 8 bits."""

    count: int
    frames: dict[int, np.ndarray]
    pixel_aspect: Fraction = Fraction(1)
    deep: bool = False
    reason: str = ""


def plain_decode(path: Path, wanted: Collection[int]) -> Plain:
    """Frames of the best video stream, packet by packet, refused packets skipped; or the still picture."""
    if path.suffix.lower() in PICTURES:
        try:
            with Image.open(path) as image:
                return Plain(1, {0: plain_rgb(ImageOps.exif_transpose(image))}, deep=":" in image.mode)
        except Exception as error:
            return Plain(0, {}, reason=type(error).__name__)
    try:
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            return plain_stream(container, wanted)
    except (av.FFmpegError, OSError) as error:
        return Plain(0, {}, reason=type(error).__name__)


def plain_rgb(image: Image.Image) -> np.ndarray:
    """uint8 RGB; grey of 16 bits by its upper eight, which Pillow's own conversion clips."""
    if image.mode.startswith("I"):
        return np.repeat((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def plain_stream(container: av.container.InputContainer, wanted: Collection[int]) -> Plain:
    stream = container.streams.best("video")
    if stream is None or stream.codec_context is None:
        return Plain(0, {}, reason="no video stream that can be decoded")
    if stream.disposition & av.stream.Disposition.attached_pic:
        return Plain(0, {}, reason="a cover image")
    if stream.width * stream.height > HUGE:
        return Plain(0, {}, reason=f"claims {stream.width} x {stream.height}")
    count, frames, deep, turned = 0, {}, False, False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.InvalidDataError):
            packet = None
        try:
            decoded = stream.codec_context.decode(packet)
        except av.FFmpegError:
            decoded = []
        for frame in decoded:
            deep = deep or any(component.bits > 8 for component in frame.format.components)
            turned = frame.rotation in (90, -90)
            if count in wanted:
                frames[count] = upright(frame)
            count += 1
        if packet is None:
            break
    aspect = stream.sample_aspect_ratio or Fraction(1)
    aspect = aspect if Fraction(1, 10) <= aspect <= 10 else Fraction(1)
    return Plain(count, frames, 1 / aspect if turned else aspect, deep)


def upright(frame: av.VideoFrame) -> np.ndarray:
    turns = {-90: 3, 90: 1, 180: 2, -180: 2}.get(frame.rotation, 0)
    return np.rot90(frame.to_ndarray(format="rgb24"), turns)


def expected_square(picture: np.ndarray, pixel_aspect: Fraction, size: int) -> np.ndarray:
    """Shown with square pixels, the shorter side resized to `size`, the middle cut out."""
    height, width = picture.shape[0], max(1, round(picture.shape[1] * pixel_aspect))
    scale = size / min(height, width)
    shown = (max(size, int(width * scale + 1e-9)), max(size, int(height * scale + 1e-9)))
    image = Image.fromarray(np.ascontiguousarray(picture)).resize(shown, Image.Resampling.BICUBIC)
    left, top = round((shown[0] - size) / 2), round((shown[1] - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)), dtype=int)


def numbers_of(view: View, count: int) -> list[int]:
    """The middle frames of M equal parts of `count` frames."""
    return [(2 * place + 1) * count // (2 * view.frames) for place in range(view.frames)]


def judge(path: Path, outcomes: list, decode: Callable[[Path, Collection[int]], Plain]) -> tuple[str, str]:
    """(EQUAL, FAILURE or WRONG, why) of one file, `outcomes` being what came of it under VIEWS."""
    count = decode(path, ()).count
    wanted = {number for view in VIEWS for number in numbers_of(view, count)} if count else set()
    plain = decode(path, wanted)
    routes, skipped = set(), 0
    for view, outcome in zip(VIEWS, outcomes, strict=True):
        if not isinstance(outcome, DecodedVideo):
            if plain.count:
                return WRONG, f"refused ({outcome.reason}), a plain decode gives {plain.count} frames"
            return FAILURE, outcome.reason
        if not plain.count:
            return WRONG, f"gives frames, a plain decode none ({plain.reason})"
        least = LEAST_EQUAL_DEEP if plain.deep else LEAST_EQUAL
        for place, number in enumerate(numbers_of(view, plain.count)):
            square = expected_square(plain.frames[number], plain.pixel_aspect, view.size)
            difference = float(np.abs(outcome.frames[0, place] - square).mean())
            if not outcome.frame_valid[0, place] or difference >= least:
                return WRONG, f"{view.name}: frame {number} of {plain.count} differs by {difference:.1f}"
        routes.add(outcome.route)
        skipped = max(skipped, outcome.skipped_packets)
    damage = f", {skipped} damaged packets skipped" if skipped else ""
    return EQUAL, f"{plain.count} frames, {' and '.join(sorted(routes))}{damage}"


def clips_below(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in NOT_CLIPS
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make test-clips CLIPS=DIR", description=__doc__)
    parser.add_argument("folder", type=Path, help="with the clips, in any depth")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for one clip under one view")
    arguments = parser.parse_args(argv)
    paths = clips_below(arguments.folder)
    if not paths:
        print(f"error: no clip in {arguments.folder}; give a folder with CLIPS=DIR", file=sys.stderr)
        return 2
    by_view = []
    for view in VIEWS:
        with DecodePool(view, limits=Limits(arguments.time_limit)) as pool:
            by_view.append(list(pool.decode(paths)))
    verdicts = []
    for path, *outcomes in zip(paths, *by_view, strict=True):
        verdict, why = judge(path, outcomes, plain_decode)
        verdicts.append(verdict)
        print(f"{verdict:<15} {path.relative_to(arguments.folder)}: {why}", flush=True)
    counts = [verdicts.count(verdict) for verdict in (EQUAL, FAILURE, WRONG)]
    print("{} equal, {} listed failures, {} wrong".format(*counts))
    return 1 if counts[2] else 0


if __name__ == "__main__":
    sys.exit(main())
