"""What lies at a cache's path, seen with the dataset that is to go into it; looks, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from store.contents import read_attributes
from store.extension import samples_as_of, wanted_dataset
from store.identity import require_same
from store.inputs.samples import Samples, Segment
from store.kept_pixels import KeptPixels
from store.layout import DATASET_IDENTITY, TableCounts, TeacherPlan, dataset_attributes, view_path
from store.manifest import MANIFEST, Manifest
from store.parts import FIRST, TEACHERS, Group, Part
from store.segments import Tables, read_datasets


class CacheState:
    """Nothing, a finished cache, or one half dumped, at `root`.

    published: the manifest of a finished cache, with the `tables` that it names. dataset: what zarr.json is
    to say of `samples`. extend: rows of `samples` may come behind those of a finished cache. Raises
    IdentityError if another dataset lies there, DamagedCacheError.
    """

    def __init__(self, root: Path, samples: Samples, extend: bool = False) -> None:
        self.root = root
        self.samples = samples
        self.published = Manifest.read(root) if (root / MANIFEST).is_file() else None
        groups = self.published.groups if self.published else {}
        there = self.published is not None or (root / "zarr.json").is_file()
        self.tables = Tables(root, read_datasets(root, groups)) if there else None
        self.dataset = self._wanted_dataset(extend)

    def _wanted_dataset(self, extend: bool) -> dict[str, Any]:
        if self.tables is not None and self.published is not None:
            return wanted_dataset(self.tables, self.samples, extend)
        wanted = dataset_attributes(self.samples)
        if self.tables is not None:
            require_same(
                {key: self.tables.dataset[key] for key in DATASET_IDENTITY},
                {key: wanted[key] for key in DATASET_IDENTITY},
                f"the dataset of {self.root.name}",
                "dump into another CACHE, or restore the dataset's files",
            )
        return wanted

    @property
    def segments(self) -> list[Segment]:
        """The rows of the dataset, as they came."""
        return [Segment.of(told) for told in self.dataset["segments"]]

    def has_tables(self, segment: int) -> bool:
        """Whether the rows of a segment are published."""
        return self.published is not None and self.tables is not None and segment < len(self.tables.segments)

    def part_counts(self, part: Part) -> TableCounts:
        """Lengths of the row axes of a part's segment, and how many rows come before it."""
        return TableCounts.of(self.segments[part.segment])

    def samples_of(self, part: Part) -> Samples:
        """The samples as they were when the rows of a part's segment were the last ones."""
        if self.tables is None or part.segment + 1 == len(self.segments):
            return self.samples
        return samples_as_of(self.tables, self.samples, part.segment)

    def stored_plan(self, teacher: str, part: Part = FIRST) -> TeacherPlan | None:
        """The plan under which that part of `teacher` was begun or finished, or None if it is new here."""
        path = Group(TEACHERS, teacher, part).path
        if not (self.root / path / "zarr.json").is_file():
            return None
        return TeacherPlan.from_dict(read_attributes(self.root, path), part)

    def is_complete(self, teacher: str, part: Part = FIRST) -> bool:
        return self._is_published(Group(TEACHERS, teacher, part).path)

    def view_is_complete(self, view: str, segment: int = 0) -> bool:
        return self._is_published(view_path(view, segment))

    def _is_published(self, path: str) -> bool:
        return self.published is not None and path in self.published.groups

    def kept_pixels(self, view: str) -> KeptPixels | None:
        """How a view that is there keeps its frames; None if it keeps none."""
        told = read_attributes(self.root, view_path(view)).get("pixels")
        return None if told is None else KeptPixels.from_dict(told)
