"""What lies at a cache's path, seen with the dataset that is to go into it; looks, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from store.contents import read_attributes
from store.durable import PARTIAL_SUFFIX
from store.errors import IncompleteCacheError, InputError
from store.extension import samples_as_of, wanted_dataset
from store.identity import require_same
from store.inputs.samples import Samples, Segment
from store.kept_pixels import KeptPixels
from store.layout import (
    DATASET_IDENTITY,
    TableCounts,
    TeacherPlan,
    check_path_name,
    dataset_attributes,
    view_path,
)
from store.manifest import MANIFEST, Manifest
from store.partial import Partial
from store.parts import FIRST, TEACHERS, Group, Part
from store.segments import Tables, read_datasets

LEFTOVERS = {
    "videos",
    "texts",
    "splits",
    "views",
    "teachers",
    "plans",
    "ledger.jsonl",
    "writer.lock",
    "zarr.json",
}
"""What a cache holds that was killed while planned, before its zarr.json."""


def require_cache_folder(root: Path, samples: Samples) -> None:
    """Raise InputError if a cache of `samples` can't lie at `root`: a file, a folder of something else, or
    splits whose names are none of a folder."""
    for split in samples.splits:
        check_path_name("split", split)
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file; a cache is a folder, name another")
    if not root.is_dir() or (root / "zarr.json").exists():
        return
    names = (entry.name.removesuffix(PARTIAL_SUFFIX) for entry in root.iterdir())
    foreign = sorted(name for name in names if name not in LEFTOVERS)
    if foreign:
        raise InputError(f"{root} holds {foreign[0]!r} and is no cache; name a new or empty folder")


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

    def check_plan(self, plan: TeacherPlan) -> bool:
        """Whether that part of the teacher was begun under `plan`, False where it is new here.

        Raises InputError for names that are none of a folder, IdentityError if it was begun under another
        plan or its view is another here, IncompleteCacheError if another teacher's dump of the view is not
        finished, and MissingFileError if this is a partial copy without what is there of the teacher or its
        view already.
        """
        check_path_name("teacher", plan.name)
        check_path_name("view", plan.view.name)
        partial = Partial.read(self.root)
        for group in filter(lambda path: not partial.has(path), (plan.path, plan.view_path)):
            raise partial.missing(f"{group} of {self.root.name}", "with the --teacher that it is of")
        stored = self.stored_plan(plan.name, plan.part)
        if stored is None:
            self._check_view(plan)
            return False
        wanted, found = plan.to_dict(), stored.to_dict()
        del wanted["provenance"], found["provenance"]
        require_same(
            found,
            wanted,
            f"teacher {plan.name!r} in {self.root.name}",
            "use the options that it was begun with, dump into another CACHE, or remove it first: "
            f"python -m store remove CACHE --teacher {plan.name}",
        )
        return True

    def _check_view(self, plan: TeacherPlan) -> None:
        """Raise as `check_plan` does for the view of a teacher that is new here."""
        if not (self.root / plan.view_path / "zarr.json").exists():
            return
        stored = read_attributes(self.root, plan.view_path)
        require_same(
            stored.get("view"),
            plan.view.to_dict(),
            f"view {plan.view.name!r}",
            "give the new view another name",
        )
        if not self.view_is_complete(plan.view.name, plan.part.segment):
            if stored.get("dumped_with") != plan.name:
                raise IncompleteCacheError(
                    f"view {plan.view.name!r} is being dumped with teacher {stored.get('dumped_with')!r}; "
                    "finish that dump first"
                )
        elif plan.kept_pixels is not None:
            require_same(
                _encoding_of(stored.get("pixels")),
                plan.kept_pixels.to_dict(),
                f"the kept pixels of view {plan.view.name!r}",
                "leave the option away, or dump into another CACHE",
            )

    def kept_pixels(self, view: str) -> KeptPixels | None:
        """How a view that is there keeps its frames; None if it keeps none."""
        told = read_attributes(self.root, view_path(view)).get("pixels")
        return None if told is None else KeptPixels.from_dict(told)


def _encoding_of(pixels: dict[str, Any] | None) -> dict[str, Any] | None:
    return pixels and {name: pixels[name] for name in ("encoding", "quality")}
