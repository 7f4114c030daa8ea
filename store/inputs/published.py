"""From the official files of a published dataset to its rows: found, counted, and every gap told or
refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.errors import InputError, MissingFileError
from store.inputs.annotation_files import check_id
from store.inputs.datasets.base import (
    Annotations,
    Entry,
    FoundFiles,
    NeededFile,
    Published,
    refuse_missing_videos,
)
from store.inputs.samples import CLASS, Samples, Split, Text, Video
from store.inputs.video_folder import VideoFolder


@dataclass(frozen=True)
class Gap:
    """A split whose annotations are not of the published size. what: "train videos", ..."""

    what: str
    found: int
    published: int


def load_published(dataset: Published, data: Path, allow_missing: bool = False) -> Samples:
    """Every row of the dataset whose files lie at `data`: splits in their order, each in its files' order.

    allow_missing: take what is there; `Samples.missing` then says what is not. Raises MissingFileError for
    files that are not there, InputError for what can't be used or is not as large as published.
    """
    files = find_files(dataset, data)
    annotations = read_annotations(dataset, files)
    gaps = count_gaps(dataset, annotations)
    if gaps and not allow_missing:
        gap = gaps[0]
        raise InputError(
            f"{data}: {gap.found:,} {gap.what}, the published {dataset.name} has {gap.published:,}; fetch "
            f"{', '.join(str(file) for file in dataset.files if not file.optional)} whole, "
            "or pass --allow-missing"
        )
    located = [(entry, files.videos.find(entry.names)) for entry in annotations.entries]
    missing = [entry.id for entry, path in located if path is None]
    if len(missing) == len(located):
        raise MissingFileError(
            f"{data} holds none of the {len(located)} videos; "
            f"DATASET={dataset.name} needs DATA={dataset.needs}"
        )
    if not (allow_missing or dataset.missing_is_normal):
        refuse_missing_videos(
            str(data),
            missing,
            len(located),
            f"all of them: python -m store dataset {dataset.name} --data {data} --all; "
            "to go on without, pass --allow-missing",
        )
    has_text = bool(annotations.classes)
    there = [(entry, path) for entry, path in located if path is not None and (has_text or entry.texts)]
    if not there:
        raise InputError(f"{data}: not one of the videos that are there has a caption; fetch the files anew")
    return samples_of(dataset, there, annotations)


def find_files(dataset: Published, data: Path) -> FoundFiles:
    """The files at `data`; raises MissingFileError naming all needed ones that are not there."""
    if not data.is_dir():
        what = "is no folder" if data.exists() else "does not exist"
        raise MissingFileError(f"{data} {what}; DATASET={dataset.name} needs DATA={dataset.needs}")
    paths = {file.name: locate(dataset, data, file) for file in dataset.files}
    absent = [file for file in dataset.files if not file.optional and not paths[file.name]]
    if absent:
        lacks = ", ".join(str(file) for file in absent)
        raise MissingFileError(f"{data} lacks {lacks}; DATASET={dataset.name} needs DATA={dataset.needs}")
    return FoundFiles(data, paths, scan_videos(dataset, data))


def scan_videos(dataset: Published, data: Path) -> VideoFolder:
    return VideoFolder(data, [layout.videos for layout in dataset.layouts])


def locate(dataset: Published, data: Path, file: NeededFile) -> list[Path]:
    """Where `file` lies: in DATA itself, or where a known layout has its annotations."""
    for folder in dict.fromkeys(["", *(layout.annotations for layout in dataset.layouts)]):
        for name in file.names:
            if file.many:
                found = sorted(path for path in (data / folder).glob(name) if path.is_file())
            else:
                found = [data / folder / name] if (data / folder / name).is_file() else []
            if found:
                return found
    return []


def read_annotations(dataset: Published, files: FoundFiles) -> Annotations:
    """What the files say, in the order of the splits; raises InputError for an id that comes twice."""
    annotations = dataset.read(files)
    split_of: dict[str, str] = {}
    for entry in annotations.entries:
        check_id(f"{files.data} ({dataset.name})", entry.id)
        if entry.id in split_of:
            raise InputError(
                f"{files.data}: video {entry.id!r} is in the {split_of[entry.id]} split and comes again in "
                f"{entry.split}; restore the published files of {dataset.name}"
            )
        split_of[entry.id] = entry.split
    order = {split: place for place, split in enumerate(dataset.counts)}
    return Annotations(sorted(annotations.entries, key=lambda entry: order[entry.split]), annotations.classes)


def count_gaps(dataset: Published, annotations: Annotations) -> list[Gap]:
    """Where the annotations differ from the published counts."""
    found = counts_of(annotations.entries, len(annotations.classes))
    gaps = []
    for split, count in dataset.counts.items():
        videos, texts = found.get(split, (0, 0))
        texts_are = text_unit(annotations)
        for unit, here, published in (("videos", videos, count.videos), (texts_are, texts, count.texts)):
            if published is not None and here != published:
                gaps.append(Gap(f"{split} {unit}", here, published))
    return gaps


def text_unit(annotations: Annotations) -> str:
    return "classes" if annotations.classes else "texts"


def counts_of(entries: Iterable[Entry], classes: int) -> dict[str, tuple[int, int]]:
    """Split -> (videos, texts); the texts of a dataset of classes are its classes."""
    found: dict[str, tuple[int, int]] = {}
    for entry in entries:
        videos, texts = found.get(entry.split, (0, classes))
        found[entry.split] = (videos + 1, texts + len(entry.texts))
    return found


def samples_of(dataset: Published, there: Sequence[tuple[Entry, Path]], annotations: Annotations) -> Samples:
    """The rows of the videos that are there."""
    classes = annotations.classes
    videos = tuple(Video(entry.id, path, entry.moment_s, entry.label) for entry, path in there)
    class_texts = [Text(prompt.format(name), -1, CLASS) for prompt in dataset.prompts for name in classes]
    captions = [Text(text, row) for row, (entry, _) in enumerate(there) for text in entry.texts]
    rows_of: dict[str, tuple[list[int], list[int]]] = {
        split: ([], list(range(len(classes)))) for split in dataset.counts
    }
    for row, (entry, _) in enumerate(there):
        rows_of[entry.split][0].append(row)
    for row, text in enumerate(captions):
        rows_of[there[text.video][0].split][1].append(row)
    splits = {
        split: Split(np.array(rows, dtype=np.int64), np.array(texts, dtype=np.int64))
        for split, (rows, texts) in rows_of.items()
        if rows
    }
    return Samples(
        dataset.name,
        dataset.card,
        videos,
        (*class_texts, *captions),
        splits,
        dataset.protocol,
        missing_rows(dataset, annotations, counts_of((entry for entry, _ in there), len(classes))),
        dataset.prompts,
    )


def missing_rows(
    dataset: Published, annotations: Annotations, found: Mapping[str, tuple[int, int]]
) -> dict[str, int]:
    """What these rows lack of the published dataset, or of its annotations where no count is published."""
    annotated = counts_of(annotations.entries, len(annotations.classes))
    missing = {}
    for split, count in dataset.counts.items():
        published = (count.videos, count.texts)
        here, listed = found.get(split, (0, 0)), annotated.get(split, (0, 0))
        units = ("videos", text_unit(annotations))
        for unit, whole, is_listed, is_here in zip(units, published, listed, here, strict=True):
            lack = (is_listed if whole is None else whole) - is_here
            if lack:
                missing[f"{split} {unit}"] = lack
    return missing
