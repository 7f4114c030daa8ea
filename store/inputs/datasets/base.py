"""The contract of a dataset: a module of this folder, whose name is the dataset's. There are two kinds.

A published dataset, read from its official annotation files, offers

    VARIANTS: dict[str, Published]   its splits; "" is the default, spelt <module>, others <module>-<variant>

and a dataset of one's own (`table`, `demo`)

    NEEDS: str                       one line: what DATA has to be, for the error when it is not
    load(data: Path, allow_missing: bool = False) -> Samples    every row of it, in an order that depends on
    the
                                     files alone; allow_missing leaves out videos that are not there
    prepare(data: Path) -> dict[str, float]    optional: makes its own files; seconds by phase

Both raise MissingFileError with one line that says what to place where, and InputError with file and line
for what they can't use. They read annotations and look for video files; they never open one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.errors import MissingFileError
from store.inputs.samples import DatasetCard
from store.inputs.video_folder import VideoFolder

SHOWN = 3


@dataclass(frozen=True)
class NeededFile:
    """An annotation file. names: the published one first, then those that hold the same; one of them is
    needed.

    source: where a user gets it. many: the name is a pattern, and that many files fit it.
    """

    names: tuple[str, ...]
    what: str
    source: str
    optional: bool = False
    many: int = 0

    @property
    def name(self) -> str:
        return self.names[0]

    def __str__(self) -> str:
        return " or ".join(self.names)


@dataclass(frozen=True)
class Layout:
    """A known arrangement of DATA: where the annotations and where the videos lie, relative to it."""

    title: str
    annotations: str = ""
    videos: str = ""


@dataclass(frozen=True)
class Count:
    """How large a split is published to be; None where nobody has published it."""

    videos: int | None
    texts: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A video that the annotations name.

    texts: its captions, tidied; an empty one is left out. files: names under which it may lie, the likeliest
    first, with or without suffix; by default the id. label: the number of its class, from 0.
    """

    id: str
    split: str
    texts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    moment_s: tuple[float, float] | None = None
    label: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.files or (self.id,)


@dataclass(frozen=True)
class Annotations:
    """What the annotation files say. entries: in the files' order. classes: class names by number."""

    entries: list[Entry]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundFiles:
    """The annotation files of a dataset that lie at DATA, by their published name; and the video files."""

    data: Path
    paths: dict[str, list[Path]]
    videos: VideoFolder

    def one(self, name: str) -> Path:
        return self.paths[name][0]

    def optional(self, name: str) -> Path | None:
        return next(iter(self.paths.get(name, [])), None)


@dataclass(frozen=True)
class Published:
    """A published dataset with one of its splits.

    name: as spelt in DATASET=...; stored in the cache, its identity. videos: what the video files are called
    and where a user gets them. counts: split -> its published size, in the order of the rows; `test` is the
    split that papers report. read: the files -> what they say. prompts: templates of class texts.
    missing_is_normal: nobody has all the files, so the rows that are there are taken and the rest recorded.
    """

    name: str
    card: DatasetCard
    files: tuple[NeededFile, ...]
    videos: str
    layouts: tuple[Layout, ...]
    counts: dict[str, Count] = field(repr=False)
    protocol: str
    read: Callable[[FoundFiles], Annotations] = field(repr=False)
    prompts: tuple[str, ...] = ()
    missing_is_normal: bool = False

    @property
    def needs(self) -> str:
        """One line: what to place at DATA, and where to get it."""
        by_source: dict[str, list[str]] = {}
        for file in self.files:
            if not file.optional:
                by_source.setdefault(file.source, []).append(str(file))
        files = "; ".join(f"{', '.join(names)} ({source})" for source, names in by_source.items())
        return f"a folder with {files}{'; ' if files else ''}and {self.videos}"


def refuse_missing_videos(where: str, missing: Sequence[object], count: int, way_out: str = "") -> None:
    """Raise MissingFileError that tells how many of `count` video files are missing, and the first few."""
    if missing:
        raise MissingFileError(
            f"{where}: {len(missing)} of {count} video files are missing, first: {first_few(missing)}"
            f"{'; ' if way_out else ''}{way_out}"
        )


def first_few(names: Iterable[object]) -> str:
    """The first three of `names` for an error message, with dots where there are more."""
    named = [str(name) for name in names]
    return ", ".join(named[:SHOWN]) + (", ..." if len(named) > SHOWN else "")
