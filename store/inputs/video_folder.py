"""Which video or image files lie below a folder: one pass over each directory, no look into any file.

Files are found by name alone and never by a path made of an id, so no id can lead out of the folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from store.errors import InputError, MissingFileError
from store.inputs.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    ".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".3g2", ".mts",
    ".m2ts", ".ts", ".ogv", ".gif",
)  # fmt: skip
SUFFIXES = {suffix: place for place, suffix in enumerate(VIDEO_SUFFIXES + IMAGE_SUFFIXES)}


class Place(NamedTuple):
    """One file: the number of its directory and its name."""

    directory: int
    name: str


def split_name(name: str) -> tuple[str, str]:
    """(stem, suffix): only the suffix of a video or image, or a bare dot, is cut, since ids hold dots."""
    stem, dot, suffix = name.rpartition(".")
    if dot and stem and (not suffix or f".{suffix.lower()}" in SUFFIXES):
        return stem, f".{suffix.lower()}"
    return name, ""


class VideoFolder:
    """The files below `root` that are named as a video or image, by their name without suffix.

    preferred: folders relative to `root`; where several hold a name, the first of these wins. Links are
    followed. Raises MissingFileError if there is no such folder.
    """

    def __init__(self, root: Path, preferred: Sequence[str] = ()) -> None:
        if not root.is_dir():
            raise MissingFileError(f"no folder at {root}")
        self.root = root
        self.file_count = 0
        self._preferred = [os.path.join(root, folder) for folder in preferred if folder]
        self._directories: list[str] = []
        self._places: dict[str, Place | list[Place]] = {}
        began = time.monotonic()
        self._scan()
        self._directory_paths = [Path(directory) for directory in self._directories]
        self.seconds = time.monotonic() - began

    def _scan(self) -> None:
        waiting, linked = [os.fspath(self.root)], {os.path.realpath(self.root)}
        while waiting:
            directory = waiting.pop()
            number = len(self._directories)
            self._directories.append(directory)
            with os.scandir(directory) as entries:
                for entry in entries:
                    stem, suffix = split_name(entry.name)
                    if entry.is_symlink():
                        # A link that is named as a video is one: no stat for each of 200,000 of them.
                        if not suffix and entry.is_dir():
                            real = os.path.realpath(entry.path)
                            if real not in linked:
                                linked.add(real)
                                waiting.append(entry.path)
                            continue
                    elif entry.is_dir():
                        if not entry.name.startswith("."):
                            waiting.append(entry.path)
                        continue
                    self.file_count += 1
                    if suffix:  # a cache below DATA has files named as ids are: 0, 1, ...
                        self._add(stem, Place(number, entry.name))

    def _add(self, stem: str, place: Place) -> None:
        known = self._places.get(stem)
        if known is None:
            self._places[stem] = place
        elif isinstance(known, list):
            known.append(place)
        else:
            self._places[stem] = [known, place]

    def holds(self, names: Iterable[str]) -> bool:
        """Whether `find` finds one; raises as it does."""
        return self._find(names) is not None

    def find(self, names: Iterable[str]) -> Path | None:
        """The file of the first of `names` that is there, each with or without its suffix.

        A name with its exact suffix goes first, then the order of SUFFIXES. Raises InputError naming both if
        two folders hold the name and neither is preferred: which one is the right video can't be told.
        """
        place = self._find(names)
        return None if place is None else self._path(place)

    def _find(self, names: Iterable[str]) -> Place | None:
        for name in names:
            found = self._places.get(split_name(name)[0])
            if found is not None:
                return self._best(name, found) if isinstance(found, list) else found
        return None

    def _best(self, name: str, places: list[Place]) -> Place:
        rank = min(map(self._rank, places))
        places = sorted(place for place in places if self._rank(place) == rank)
        if len({place.directory for place in places}) > 1:
            first, second = sorted(self._path(place) for place in places)[:2]
            raise InputError(
                f"{name!r} lies at {first} and at {second}; which one the dataset means can't be told, "
                "move one away"
            )
        return min(places, key=lambda place: (place.name != name, _suffix_order(place.name)))

    def _rank(self, place: Place) -> int:
        directory = self._directories[place.directory] + os.sep
        for rank, folder in enumerate(self._preferred):
            if directory.startswith(folder + os.sep):
                return rank
        return len(self._preferred)

    def _path(self, place: Place) -> Path:
        return self._directory_paths[place.directory] / place.name

    def folders_with_files(self) -> dict[str, int]:
        """Folder relative to the root ("." for itself) -> how many files it holds, those with most first."""
        counts = [0] * len(self._directories)
        for found in self._places.values():
            for place in found if isinstance(found, list) else (found,):
                counts[place.directory] += 1
        named = {
            os.fsencode(os.path.relpath(self._directories[at], self.root)).decode(errors="replace"): count
            for at, count in enumerate(counts)
            if count
        }
        return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))

    def subfolders(self, folder: str) -> dict[str, list[str]]:
        """Names of the folders right below `folder` -> the sorted names of the files right in each."""
        base = os.path.join(self.root, folder) if folder else os.fspath(self.root)
        names = {
            at: os.path.basename(path)
            for at, path in enumerate(self._directories)
            if os.path.dirname(path) == base and at
        }
        found: dict[str, list[str]] = {name: [] for name in sorted(names.values())}
        for places in self._places.values():
            for place in places if isinstance(places, list) else (places,):
                if place.directory in names:
                    found[names[place.directory]].append(place.name)
        return {name: sorted(files) for name, files in found.items()}


def _suffix_order(name: str) -> tuple[int, str]:
    return SUFFIXES.get(split_name(name)[1], len(SUFFIXES)), name
