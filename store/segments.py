"""The tables of a cache: those that it began with, behind them those of every appended segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from store.contents import check_dataset, check_rows, read_attributes
from store.errors import DamagedCacheError
from store.inputs.samples import (
    TEXT_KINDS,
    Segment,
    Split,
    chained_digest,
    splits_digest,
    text_line,
    video_line,
)
from store.layout import TableCounts
from store.parts import segment_folder, segments_of
from store.tables import read_column, read_strings

FIXED = ("name", "protocol", "prompts")
"""What appended rows leave as it was."""


def read_datasets(root: Path, groups: Mapping[str, object]) -> list[Mapping[str, Any]]:
    """What zarr.json says of the dataset: as the cache began, then with each segment that `groups` names.

    Raises DamagedCacheError unless each goes on where the one before it ends.
    """
    found: list[Mapping[str, Any]] = []
    for segment in range(segments_of(groups)):
        folder = segment_folder(segment).strip("/")
        dataset = read_attributes(root, folder).get("dataset")
        check_dataset(dataset)
        assert isinstance(dataset, dict)
        if not follows(found, dataset):
            where = f"{folder}/zarr.json" if folder else "zarr.json"
            raise DamagedCacheError(
                f"{where} of {root.name} does not go on where its rows end; pull it again"
            )
        found.append(dataset)
    return found


def follows(earlier: Sequence[Mapping[str, Any]], dataset: Mapping[str, Any]) -> bool:
    """Whether `dataset` has one segment more than the last of `earlier`, and else at least what that has."""
    if not earlier:
        return len(dataset["segments"]) == 1
    last = earlier[-1]
    return (
        dataset["segments"][:-1] == last["segments"]
        and all(dataset[key] == last[key] for key in FIXED)
        and all(
            name in dataset["splits"] and all(dataset["splits"][name][axis] >= count[axis] for axis in count)
            for name, count in last["splits"].items()
        )
    )


class Tables:
    """Columns of the tables over all segments, by row number; `datasets` as `read_datasets` gives them."""

    def __init__(self, root: Path, datasets: Sequence[Mapping[str, Any]]) -> None:
        self.root = root
        self.datasets = datasets
        self.dataset = datasets[-1]
        self.segments = [Segment.of(told) for told in self.dataset["segments"]]

    def counts(self, segment: int) -> TableCounts:
        """Lengths of one segment's rows, and where they begin."""
        return TableCounts.of(self.segments[segment])

    @cached_property
    def video_ids(self) -> list[str]:
        return [
            video_id for folder in self._folders for video_id in read_strings(self.root, f"{folder}videos/id")
        ]

    @cached_property
    def moment_s(self) -> np.ndarray:
        return self._column("videos/moment_s")

    @cached_property
    def video_class(self) -> np.ndarray:
        return check_rows("videos/class", self._column("videos/class"), -1, self.dataset["texts"])

    @cached_property
    def texts(self) -> list[str]:
        return [text for folder in self._folders for text in read_strings(self.root, f"{folder}texts/text")]

    @cached_property
    def text_video(self) -> np.ndarray:
        return check_rows("texts/video", self._column("texts/video"), -1, self.dataset["videos"])

    @cached_property
    def text_kind(self) -> np.ndarray:
        kinds = self._column("texts/kind").astype(np.int64)
        return check_rows("texts/kind", kinds, 0, len(TEXT_KINDS))

    def split(self, name: str) -> Split:
        """Row numbers of the split `name`, ascending; each segment adds rows to it."""
        video, text = (self._split_column(name, column) for column in ("video", "text"))
        return Split(
            check_rows(f"splits/{name}/video", video, 0, self.dataset["videos"]),
            check_rows(f"splits/{name}/text", text, 0, self.dataset["texts"]),
        )

    def _split_column(self, name: str, column: str) -> np.ndarray:
        having = zip(self._folders, self.datasets, strict=True)
        found = [
            read_column(self.root, f"{folder}splits/{name}/{column}")
            for folder, dataset in having
            if name in dataset["splits"]
        ]
        return found[0] if len(found) == 1 else np.sort(np.concatenate(found))

    @property
    def _folders(self) -> list[str]:
        return [segment_folder(number) for number in range(len(self.datasets))]

    def _column(self, path: str) -> np.ndarray:
        found = [read_column(self.root, f"{folder}{path}") for folder in self._folders]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def segment_digests(self) -> list[str]:
        """The digest of every segment, from its rows as they are stored."""
        moments = [None if np.isnan(pair).any() else tuple(pair.tolist()) for pair in self.moment_s]
        labels = [None if label < 0 else label for label in self.video_class.tolist()]
        videos = list(map(video_line, self.video_ids, moments, labels))
        kinds = (TEXT_KINDS[kind] for kind in self.text_kind.tolist())
        texts = list(map(text_line, self.texts, self.text_video.tolist(), kinds))
        digests, chain = [], ""
        for segment in self.segments:
            chain = chained_digest(chain, [*videos[slice(*segment.video)], *texts[slice(*segment.text)]])
            digests.append(chain)
        return digests

    def splits_digest(self) -> str:
        """The digest of the splits, from their rows as they are stored."""
        return splits_digest({name: self.split(name) for name in self.dataset["splits"]})
