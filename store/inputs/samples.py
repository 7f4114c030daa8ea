"""The rows of a dataset: videos, texts and splits, in their one fixed order.

A row number is the only name that a cache uses for a video or a text, so the order is part of the
dataset's identity: `Samples.digest` covers it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import InputError
from store.inputs.protocol import EVERY_CAPTION, PROTOCOLS

CAPTION = "caption"
CLASS = "class"
TEXT_KINDS = (CAPTION, CLASS)
NOT_STATED = "not stated"
YES, NO = "yes", "no"


@dataclass(frozen=True)
class Video:
    """One row of the video table.

    `id` is unique in the dataset; `path` is where the file lies on this machine (never stored);
    `moment_s` is the (start, end) in seconds of the part that its captions describe, where known;
    `label` is the text row of its class, in a dataset of classes.
    """

    id: str
    path: Path
    moment_s: tuple[float, float] | None = None
    label: int | None = None


@dataclass(frozen=True)
class Text:
    """One row of the text table: a caption with the row of its video, or a class name (video -1)."""

    text: str
    video: int
    kind: str = CAPTION


@dataclass(frozen=True)
class Split:
    """Row numbers of one split: `video` [V] and `text` [T], int64, ascending."""

    video: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class DatasetCard:
    """What people must know of a dataset: stored in the cache, shown by `info`.

    licence: of the data; NOT_STATED if nobody said. share: whether its owner said that a cache may be passed
    on, "yes" or "no"; None leaves that to the licence (`store.sharing`).
    """

    title: str
    licence: str
    source: str
    share: str | None = None


@dataclass(frozen=True)
class Segment:
    """Rows that came together: `video` and `text` are (first, end) row numbers of each table."""

    video: tuple[int, int]
    text: tuple[int, int]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Segment:
        """From what a cache says of a segment."""
        return cls((told["video"][0], told["video"][1]), (told["text"][0], told["text"][1]))


@dataclass(frozen=True)
class Samples:
    """All rows of a dataset.

    protocol: how it is evaluated, one of `protocol.PROTOCOLS`. missing: what the published dataset has beyond
    these rows, e.g. {"train videos": 3, "train texts": 60}; less than 0 where here is more. prompts: the
    templates of the class texts; of C classes, text row p * C + c is class c in prompt p.
    Raises InputError on a duplicate id, an empty text, or a text, label or split that points nowhere.
    """

    name: str
    card: DatasetCard
    videos: tuple[Video, ...]
    texts: tuple[Text, ...]
    splits: dict[str, Split] = field(repr=False)
    protocol: str = EVERY_CAPTION
    missing: Mapping[str, int] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(
                f"dataset {self.name!r}: no protocol {self.protocol!r}; there is {', '.join(PROTOCOLS)}"
            )
        refuse_duplicates(self.name, "video id", (video.id for video in self.videos))
        for row, video in enumerate(self.videos):
            label = video.label
            if label is not None and not (0 <= label < len(self.texts) and self.texts[label].kind == CLASS):
                raise InputError(
                    f"dataset {self.name!r}: video row {row} names text row {label} as its class; it is none"
                )
        for row, text in enumerate(self.texts):
            if not text.text.strip():
                raise InputError(f"dataset {self.name!r}: text row {row} is empty; remove it")
            if not text.text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text.text):
                raise InputError(f"dataset {self.name!r}: text row {row} holds half a character; mend it")
            if text.kind not in TEXT_KINDS:
                raise InputError(f"dataset {self.name!r}: text row {row} is of kind {text.kind!r}")
            if not -1 <= text.video < len(self.videos) or (text.video == -1) != (text.kind == CLASS):
                raise InputError(
                    f"dataset {self.name!r}: text row {row} names video row {text.video}, "
                    f"expected 0 to {len(self.videos) - 1} (or -1 for a class name)"
                )
        for name, split in self.splits.items():
            for rows, count in ((split.video, len(self.videos)), (split.text, len(self.texts))):
                if len(rows) and (rows.min() < 0 or rows.max() >= count):
                    raise InputError(f"dataset {self.name!r}: split {name!r} points beyond the tables")

    def rows_digest(self, segments: Sequence[Segment] | None = None) -> str:
        """sha256 (hex) of ids, moments, classes, texts and their videos: a chain over segments of the rows.

        The digest of a segment covers the one before it, so that rows appended later leave the digests of the
        earlier ones as they were. segments: one over all rows if not given.
        """
        chain = ""
        for segment in segments or [Segment((0, len(self.videos)), (0, len(self.texts)))]:
            chain = chained_digest(chain, self._segment_rows(segment))
        return chain

    def _segment_rows(self, segment: Segment) -> Iterator[object]:
        for video in self.videos[slice(*segment.video)]:
            yield video_line(video.id, video.moment_s, video.label)
        for text in self.texts[slice(*segment.text)]:
            yield text_line(text.text, text.video, text.kind)

    def splits_digest(self) -> str:
        """sha256 (hex) of the row numbers of every split, by name."""
        return splits_digest(self.splits)


def video_line(video_id: str, moment_s: tuple[float, float] | None, label: int | None) -> list[Any]:
    """What the digest of a segment covers of a video; seconds as they are stored, in float32."""
    seconds = None if moment_s is None else [float(np.float32(second)) for second in moment_s]
    return ["video", video_id, seconds, *([] if label is None else [label])]


def text_line(text: str, video: int, kind: str) -> list[Any]:
    """What the digest of a segment covers of a text."""
    return ["text", text, video, kind]


def chained_digest(chain: str, lines: Iterable[object]) -> str:
    """sha256 (hex) of the digest of the segment before ("" for the first) and a line of JSON a row."""
    sha = hashlib.sha256(chain.encode())
    for line in lines:
        sha.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return sha.hexdigest()


def splits_digest(splits: Mapping[str, Split]) -> str:
    """sha256 (hex) of the row numbers of every split, by name."""
    told = [[name, split.video.tolist(), split.text.tolist()] for name, split in sorted(splits.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def refuse_duplicates(dataset: str, what: str, keys: Iterable[object]) -> None:
    """Raise InputError naming the first key that comes twice."""
    seen: dict[object, int] = {}
    for row, key in enumerate(keys):
        if key in seen:
            raise InputError(
                f"dataset {dataset!r}: {what} {key!r} stands in rows {seen[key]} and {row}; keep one"
            )
        seen[key] = row
