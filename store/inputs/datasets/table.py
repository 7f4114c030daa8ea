"""The user's own dataset: a csv or jsonl with one caption a row.

    video    path of the file, relative to the table's folder, with "/"; it becomes the video's id
    text     a caption; a video may have several rows
    split    any name, e.g. train, val, test; the same for all rows of a video
    start_s, end_s    optional: the moment of the video that its captions describe; empty where unknown

Other columns are ignored.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from store.errors import InputError, MissingFileError
from store.inputs.datasets.base import refuse_missing_videos
from store.inputs.protocol import EQUAL_CAPTIONS, EVERY_CAPTION
from store.inputs.samples import NOT_STATED, DatasetCard, Samples, Split, Text, Video
from store.inputs.table_file import Row, read_rows

NEEDS = "a csv or jsonl with the columns video, text, split (paths of videos relative to it)"

COLUMNS = ("video", "text", "split")
MOMENT = ("start_s", "end_s")
SPLIT_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


class Caption(NamedTuple):
    """One checked row. path: as written, normalised. moment_s: None where the row names none."""

    line: int
    id: str
    path: PurePosixPath
    text: str
    split: str
    moment_s: tuple[float, float] | None


def load(data: Path, allow_missing: bool = False) -> Samples:
    """All rows of the table, videos in the order of their first row.

    allow_missing: leave out the rows of videos that are not there, and record how many. Raises
    MissingFileError for the table or video files that are not there; InputError, with file and line, for a
    row that can't be used: an empty or repeated caption, a video in two splits or with two moments.
    """
    if not data.is_file():
        raise MissingFileError(f"no table at {data}; DATASET=table needs DATA={NEEDS}")
    captions = [caption_of(data, row) for row in read_rows(data, COLUMNS, MOMENT)]
    refuse_contradictions(data, captions)
    first_row: dict[str, Caption] = {}
    for caption in captions:
        first_row.setdefault(caption.id, caption)
    missing = [id for id, row in first_row.items() if not (data.parent / row.path).is_file()]
    if not allow_missing or len(missing) == len(first_row):
        refuse_missing_videos(f"{data} (paths are relative to its folder)", missing, len(first_row))
    absent = set(missing)
    there = [caption for caption in captions if caption.id not in absent]
    videos = tuple(
        Video(id, data.parent / row.path, row.moment_s) for id, row in first_row.items() if id not in absent
    )
    row_of = {video.id: row for row, video in enumerate(videos)}
    return Samples(
        name="table",
        card=DatasetCard(title=data.stem, licence=NOT_STATED, source=data.name),
        videos=videos,
        texts=tuple(Text(caption.text, row_of[caption.id]) for caption in there),
        splits=splits_of(there, row_of),
        protocol=protocol_of(there),
        missing=missing_rows(captions, absent),
    )


def protocol_of(captions: Iterable[Caption]) -> str:
    """equal-captions if videos of one split share a caption, else every-caption."""
    owner: dict[tuple[str, str], str] = {}
    shared = any(owner.setdefault((row.split, row.text), row.id) != row.id for row in captions)
    return EQUAL_CAPTIONS if shared else EVERY_CAPTION


def missing_rows(captions: Iterable[Caption], absent: set[str]) -> dict[str, int]:
    """How many videos and texts of each split the table has of videos that are not there."""
    gone = [caption for caption in captions if caption.id in absent]
    videos = Counter(split for split, _ in {(caption.split, caption.id) for caption in gone})
    texts = Counter(caption.split for caption in gone)
    return {
        f"{split} {unit}": count
        for unit, counts in (("videos", videos), ("texts", texts))
        for split, count in counts.items()
    }


def splits_of(captions: Iterable[Caption], row_of: dict[str, int]) -> dict[str, Split]:
    """Video and text rows of each split, ascending; splits in the order of their first row."""
    rows: dict[str, tuple[set[int], list[int]]] = {}
    for text_row, caption in enumerate(captions):
        videos, texts = rows.setdefault(caption.split, (set(), []))
        videos.add(row_of[caption.id])
        texts.append(text_row)
    return {
        name: Split(np.array(sorted(videos), dtype=np.int64), np.array(texts, dtype=np.int64))
        for name, (videos, texts) in rows.items()
    }


def caption_of(data: Path, row: Row) -> Caption:
    """Check one row by itself."""
    where = f"{data}:{row.line}"
    video, text, split = (row.values[column].strip() for column in COLUMNS)
    if not text:
        raise InputError(f"{where}: the caption of {video!r} is empty; write one or remove the row")
    if not SPLIT_NAME.fullmatch(split):
        raise InputError(f"{where}: split {split!r} is no name; use a word such as train, val or test")
    path = PurePosixPath(video)
    control = any(letter < " " or letter == "\x7f" for letter in video)
    if path.name in ("", "..") or path.is_absolute() or control:
        raise InputError(
            f"{where}: video {video!r} is no path relative to the table's folder; write e.g. clips/a.mp4"
        )
    return Caption(row.line, plain_id(path), path, text, split, moment_of(where, row))


def plain_id(path: PurePosixPath) -> str:
    """The path without what depends on where the table lies: "../clips/./a.mp4" is "clips/a.mp4"."""
    parts: list[str] = []
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
    return "/".join(parts)


def moment_of(where: str, row: Row) -> tuple[float, float] | None:
    start, end = (row.values.get(column, "").strip() for column in MOMENT)
    if not start and not end:
        return None
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s < end_s < math.inf:
        raise InputError(
            f"{where}: start_s {start!r} and end_s {end!r} are no moment; give seconds, 0 <= start < end"
        )
    return start_s, end_s


def refuse_contradictions(data: Path, captions: Iterable[Caption]) -> None:
    """Raise InputError for the first row that repeats or contradicts an earlier one."""
    first: dict[str, Caption] = {}
    seen: dict[tuple[str, str], int] = {}
    for caption in captions:
        where = f"{data}:{caption.line}: video {caption.id!r}"
        before = first.setdefault(caption.id, caption)
        if before.path != caption.path:
            raise InputError(
                f"{where} is written as {str(caption.path)!r} here and {str(before.path)!r} "
                f"in line {before.line}; write one path"
            )
        for what, here, there in (
            ("split", caption.split, before.split),
            ("moment", caption.moment_s, before.moment_s),
        ):
            if here != there:
                raise InputError(
                    f"{where} is of {what} {here!r} here and {there!r} in line {before.line}; keep one"
                )
        line = seen.setdefault((caption.id, caption.text), caption.line)
        if line != caption.line:
            raise InputError(f"{where} has the same caption as in line {line}; remove one")
