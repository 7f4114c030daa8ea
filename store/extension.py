"""Whether a dataset holds what a cache holds already, row by row, and whether it goes on behind that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from store.errors import IdentityError
from store.identity import require_same
from store.inputs.samples import TEXT_KINDS, Samples, Segment, Split, text_line, video_line
from store.layout import DATASET_IDENTITY, dataset_attributes
from store.segments import FIXED, Tables

WAY_OUT = "restore the dataset's files, or dump into another CACHE"
APPEND = (
    "to append them say --extend (make dump-teacher ARGS=--extend); the rows that are there stay as they are"
)


def wanted_dataset(tables: Tables, samples: Samples, extend: bool) -> dict[str, Any]:
    """What the root says of `samples`: the same as `tables` do, or one segment more.

    Raises IdentityError, naming what differs, unless the rows of `tables` are the first of `samples` and each
    of their splits holds what it held; and where there is more than that without `extend`.
    """
    stored = tables.dataset
    where = f"the dataset of {tables.root.name}"
    if (len(samples.videos), len(samples.texts)) == (stored["videos"], stored["texts"]):
        same = dataset_attributes(samples, stored["segments"][:-1])
        if all(same[key] == stored[key] for key in DATASET_IDENTITY):
            return same
    wanted = dataset_attributes(samples, stored["segments"]) if _has_room(stored, samples) else None
    now = wanted or dataset_attributes(samples)
    require_same({key: stored[key] for key in FIXED}, {key: now[key] for key in FIXED}, where, WAY_OUT)
    for problem in row_problems(tables, samples):
        raise IdentityError(f"{where} differs in {problem}; rows may be appended, never changed: {WAY_OUT}")
    assert wanted is not None, "fewer rows than are stored would have been a problem"
    if not extend:
        last = Segment.of(wanted["segments"][-1])
        videos, texts = (end - first for first, end in (last.video, last.text))
        raise IdentityError(
            f"{where} holds {stored['videos']:,} videos and {stored['texts']:,} texts, the dataset goes on "
            f"with {videos:,} videos, {texts:,} texts{'' if videos or texts else ' and longer splits'}; "
            f"{APPEND}"
        )
    return wanted


def samples_as_of(tables: Tables, samples: Samples, segment: int) -> Samples:
    """`samples` with the rows and splits that they had when `segment` of `tables` was appended."""
    then = Tables(tables.root, tables.datasets[: segment + 1])
    return replace(
        samples,
        videos=samples.videos[: then.dataset["videos"]],
        texts=samples.texts[: then.dataset["texts"]],
        splits={name: then.split(name) for name in then.dataset["splits"]},
    )


def _has_room(stored: Mapping[str, Any], samples: Samples) -> bool:
    return len(samples.videos) >= stored["videos"] and len(samples.texts) >= stored["texts"]


def row_problems(tables: Tables, samples: Samples) -> Iterator[str]:
    """What of the stored rows and splits is not in `samples` as it was, in words, with both values."""
    moments = [None if np.isnan(pair).any() else tuple(pair.tolist()) for pair in tables.moment_s]
    labels = [None if label < 0 else label for label in tables.video_class.tolist()]
    videos = map(video_line, tables.video_ids, moments, labels)
    now = [video_line(video.id, video.moment_s, video.label) for video in samples.videos]
    yield from _different("video", videos, now)
    kinds = (TEXT_KINDS[kind] for kind in tables.text_kind.tolist())
    texts = map(text_line, tables.texts, tables.text_video.tolist(), kinds)
    yield from _different(
        "text", texts, [text_line(text.text, text.video, text.kind) for text in samples.texts]
    )
    for name in tables.dataset["splits"]:
        yield from _split_problems(name, tables.split(name), samples.splits.get(name))


def _different(kind: str, stored: Iterator[list[Any]], now: list[list[Any]]) -> Iterator[str]:
    for row, line in enumerate(stored):
        if row >= len(now):
            yield f"{kind} row {row}: stored {line[1:]!r}, the dataset ends before it"
            return
        if line != now[row]:
            yield f"{kind} row {row}: stored {line[1:]!r}, wanted {now[row][1:]!r}"


def _split_problems(name: str, stored: Split, now: Split | None) -> Iterator[str]:
    if now is None:
        yield f"split {name!r}: stored, the dataset has none of that name"
        return
    for kind, before, after in (("video", stored.video, now.video), ("text", stored.text, now.text)):
        gone = np.setdiff1d(before, after)
        if len(gone):
            yield f"split {name!r}: stored with {kind} row {gone[0]}, wanted without it"
