"""python -m store frames: look at what a teacher saw, and check one's own files against it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from store.cli import HelpFormatter, add_debug, at_least_one
from store.errors import InputError, MissingFileError
from store.reader import open_cache
from store.seen_frames import FoundFiles, SeenView, open_seen, row_of

if TYPE_CHECKING:
    from store.inputs.decode_pool import Limits

SHOWN = 5
PICTURES = (".png", ".jpg", ".jpeg")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    frames = commands.add_parser(
        "frames",
        help="draw what a teacher saw of a video, or check your own files against it",
        formatter_class=HelpFormatter,
    )
    frames.set_defaults(execute=execute)
    frames.add_argument("cache", type=Path, help="folder of the cache")
    frames.add_argument("--view", help="which view (default: the only one)")
    what = frames.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--video",
        metavar="ID",
        help="draw a contact sheet of this video (--video=ID for an id that begins with a dash)",
    )
    what.add_argument(
        "--check", type=Path, metavar="DIR",
        help="decode the videos below DIR and tell which differ from what was seen; exit 1 if any does",
    )  # fmt: skip
    frames.add_argument(
        "--out", type=picture_file, default=Path("sheet.png"), help="where the sheet goes, a .png or .jpg"
    )
    frames.add_argument(
        "--data", type=Path, metavar="PATH",
        help="with --video: its file, or a folder with it; decoded again for a sheet in full size",
    )  # fmt: skip
    frames.add_argument("--decoders", type=at_least_one, default=2, help="processes that decode")
    frames.add_argument(
        "--time-limit", type=float, default=60.0, help="seconds that decoding one video may take"
    )
    frames.add_argument(
        "--memory-limit-mb",
        type=at_least_one,
        default=2048,
        help="megabytes that decoding one video may take",
    )
    add_debug(frames)


def picture_file(text: str) -> Path:
    """A path that names a picture, for argparse."""
    path = Path(text)
    if path.suffix.lower() not in PICTURES or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no picture; name a file that ends in .png or .jpg")
    return path


def execute(arguments: argparse.Namespace) -> int:
    from store.inputs.decode_pool import Limits

    seen = open_seen(open_cache(arguments.cache), arguments.view)
    limits = Limits(arguments.time_limit, arguments.memory_limit_mb)
    if arguments.check is not None:
        return check(seen, arguments.check, arguments.decoders, limits)
    return draw(seen, arguments.video, arguments.data, arguments.out, limits)


def draw(seen: SeenView, video_id: str, data: Path | None, out: Path, limits: Limits) -> int:
    """Write the contact sheet of a video to `out`; the exit status is 1 if its file shows something else.

    The frames are those that the cache keeps, else those of the file under `data`, else thumbnails.
    """
    from store.contact_sheet import draw_sheet
    from store.inputs.decode_pool import DecodedVideo, DecodePool

    row = row_of(seen.cache, video_id)
    if seen.failures[row]:
        raise InputError(f"nothing was seen of video {video_id!r}: {seen.failures[row]}")
    frames, source, difference = seen.kept_frames(row), "the frames that the cache keeps", None
    if data is not None:
        path = file_of(video_id, data)
        with DecodePool(seen.view, workers=1, limits=limits) as pool:
            (outcome,) = pool.decode([path], [video_id])
        difference = seen.difference(row, outcome)
        if isinstance(outcome, DecodedVideo) and frames is None and difference is None:
            frames, source = outcome.frames, f"decoded again from {path.name}, as the thumbnails confirm"
    if frames is None:
        frames, source = seen.thumbnails(row), "thumbnails; give your copy with --data for full size"
    view = seen.view
    times = f", {view.renditions} times" if view.renditions > 1 else ""
    title = [
        f"{video_id}, as seen under view {view.name}",
        f"{view.frames} frames ({view.sampling}) of {view.size} x {view.size} pixels{times}; "
        f"decoding: {seen.routes[row]}",
        f"shown: {source}",
    ]
    draw_sheet(out, title, frames, seen.times_s(row), seen.valid(row))
    print(f"{out}: {int(seen.valid(row).sum())} frames of {video_id}; {source}")
    if difference is not None:
        print(f"your file of {video_id} is another: {difference}")
    return 0 if difference is None else 1


def file_of(video_id: str, data: Path) -> Path:
    """`data` itself if it is a file, else the video's file below it."""
    if data.is_file():
        return data
    path = FoundFiles.below(data).of(video_id)
    if path is None:
        raise MissingFileError(
            f"{data} holds no file named {video_id!r}, or several; give the file itself with --data"
        )
    return path


def check(seen: SeenView, folder: Path, decoders: int, limits: Limits) -> int:
    """Print how the videos found below `folder` differ from what was seen; the exit status."""
    from store.inputs.decode_pool import DecodePool

    ids, found = seen.cache.video_ids, FoundFiles.below(folder)
    paths = [found.of(video_id) for video_id in ids]
    there = [(row, path) for row, path in enumerate(paths) if path is not None]
    ambiguous = found.ambiguous(ids)
    if not there:
        raise MissingFileError(
            f"{folder} holds none of the {len(ids)} videos; their files are named by id, e.g. "
            f"{ids[0] if Path(ids[0]).suffix else ids[0] + '.mp4'}"
        )
    differing = failed = 0
    with DecodePool(seen.view, decoders, limits) as pool:
        outcomes = pool.decode((path for _, path in there), [ids[row] for row, _ in there])
        for (row, path), outcome in zip(there, outcomes, strict=True):
            difference = seen.difference(row, outcome)
            if difference is not None:
                differing += 1
                print(f"{ids[row]}: {path.relative_to(folder)} {difference}", flush=True)
            elif seen.failures[row]:
                failed += 1
    if ambiguous:
        shown = ", ".join(ambiguous[:SHOWN])
        print(f"{len(ambiguous)} videos have several files and were not checked: {shown}")
    missing = len(ids) - len(there) - len(ambiguous)
    same = len(there) - differing - failed
    neither = f", {failed} decode neither here nor when the cache was made" if failed else ""
    print(f"view {seen.view.name}: {same} same, {differing} differ, {missing} not here{neither}")
    return 1 if differing else 0
