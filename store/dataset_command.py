"""python -m store dataset: what a dataset needs, what lies at DATA, and where to get the rest."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from store.cli import add_debug
from store.errors import CacheError
from store.inputs.datasets import dataset_names, find_dataset
from store.inputs.datasets.base import Annotations, FoundFiles, Layout, Published
from store.inputs.published import count_gaps, counts_of, locate, read_annotations, scan_videos

COMPLETE, INCOMPLETE = 0, 1
SHOWN = 10


def add_command(commands: Any) -> None:
    """Add `dataset` to the parser of `python -m store`."""
    parser = commands.add_parser("dataset", help="what a dataset needs, and what of it lies at --data")
    parser.add_argument("name", nargs="?", help="which dataset; without a name, all of them are listed")
    parser.add_argument("--data", type=Path, help="its folder or file (default: data/<name>)")
    parser.add_argument("--all", action="store_true", help="name every missing video, not the first ten")
    parser.set_defaults(execute=run_dataset)
    add_debug(parser)


def run_dataset(arguments: argparse.Namespace) -> int:
    """Print the report; 0 if the dataset is complete (or only listed), 1 if something is missing or wrong."""
    if arguments.name is None:
        print("\n".join(list_datasets()))
        return COMPLETE
    found = find_dataset(arguments.name)
    data = arguments.data or Path("data") / arguments.name
    if isinstance(found, Published):
        shown = None if arguments.all else SHOWN
        report = PublishedReport(found, data, shown)
        for line in report.lines():
            print(line)
        return COMPLETE if report.complete else INCOMPLETE
    return report_own(arguments.name, found, data)


def list_datasets() -> Iterator[str]:
    for name in dataset_names():
        found = find_dataset(name)
        if isinstance(found, Published):
            sizes = "; ".join(size(split, count.videos, count.texts) for split, count in found.counts.items())
            yield f"{name:22} {found.card.title} ({found.protocol}; {sizes})"
        else:
            yield f"{name:22} {found.NEEDS}"


def size(split: str, videos: int | None, texts: int | None) -> str:
    numbers = ("?" if number is None else f"{number:,}" for number in (videos, texts))
    return f"{split} {' / '.join(numbers)}"


def report_own(name: str, module: Any, data: Path) -> int:
    """A dataset of one's own is complete if it loads."""
    print(f"{name} needs {module.NEEDS}")
    try:
        samples = module.load(data)
    except CacheError as error:
        print(f"not complete: {' '.join(str(error).split())}")
        return INCOMPLETE
    for split, rows in samples.splits.items():
        print(f"  {split}: {len(rows.video):,} videos, {len(rows.text):,} texts")
    print("complete")
    return COMPLETE


class PublishedReport:
    """Looks at DATA once, line by line; `complete` is known after `lines`."""

    def __init__(self, dataset: Published, data: Path, shown: int | None) -> None:
        self.dataset = dataset
        self.data = data
        self.shown = shown
        self.complete = True

    def lines(self) -> Iterator[str]:
        dataset, data = self.dataset, self.data
        yield f"{dataset.name}: {dataset.card.title}"
        yield f"  licence   {dataset.card.licence}"
        yield f"  protocol  {dataset.protocol}"
        if not data.is_dir():
            self.complete = False
            yield f"  data      {data}: no such folder"
        paths = {file.name: locate(dataset, data, file) for file in dataset.files}
        yield from self._files(paths)
        if not data.is_dir():
            yield f"  videos    {dataset.videos}"
            yield "not complete"
            return
        files = FoundFiles(data, paths, scan_videos(dataset, data))
        yield self._layout(paths)
        yield from self._videos(files)
        yield "complete" if self.complete else "not complete"

    def _files(self, paths: dict[str, list[Path]]) -> Iterator[str]:
        for file in self.dataset.files:
            found = paths[file.name]
            if found and len(found) >= file.many:
                where = found[0].relative_to(self.data)
                more = f" and {len(found) - 1} more" if len(found) > 1 else ""
                yield f"  found     {where}{more}  ({file.what})"
            elif file.optional:
                yield f"  absent    {file}  ({file.what})"
            else:
                self.complete = False
                of = f", {len(found)} of {file.many} there" if file.many else ""
                yield f"  MISSING   {file}  ({file.what}{of}); {file.source}"

    def _layout(self, paths: dict[str, list[Path]]) -> str:
        layout = recognised_layout(self.dataset, self.data, paths)
        if layout is None:
            return "  layout    none that is known; files are found by their names"
        return (
            f"  layout    {layout.title} (annotations in {layout.annotations or '.'}, "
            f"videos in {layout.videos or '.'})"
        )

    def _videos(self, files: FoundFiles) -> Iterator[str]:
        folder = files.videos
        yield f"  scanned   {folder.file_count:,} files in {folder.seconds:.1f} s"
        for name, count in list(folder.folders_with_files().items())[:3]:
            yield f"            {count:,} videos or images in {name}"
        if any(not files.paths[file.name] for file in self.dataset.files if not file.optional):
            yield f"  videos    known once the files above are there; {self.dataset.videos}"
            return
        try:
            annotations = read_annotations(self.dataset, files)
            missing = [entry.id for entry in annotations.entries if not folder.holds(entry.names)]
        except CacheError as error:
            self.complete = False
            yield f"  WRONG     {' '.join(str(error).split())}"
            return
        yield from self._counts(annotations)
        yield from self._missing(missing, len(annotations.entries))

    def _counts(self, annotations: Annotations) -> Iterator[str]:
        found = counts_of(annotations.entries, len(annotations.classes))
        for split, count in self.dataset.counts.items():
            published = size("published", count.videos, count.texts)
            yield f"  split     {size(split, *found.get(split, (0, 0)))} ({published})"
        for gap in count_gaps(self.dataset, annotations):
            self.complete = False
            yield f"  WRONG     {gap.found:,} {gap.what}, published are {gap.published:,}; fetch them anew, "
            "or dump with --allow-missing"

    def _missing(self, missing: Sequence[str], count: int) -> Iterator[str]:
        yield f"  videos    {count - len(missing):,} of {count:,} are there"
        if not missing:
            return
        self.complete = False
        normal = "; nobody has them all, a dump takes what is there" * self.dataset.missing_is_normal
        yield f"  MISSING   {len(missing):,} videos{normal}: {self.dataset.videos}"
        yield from (f"            {id}" for id in missing[: self.shown])
        if self.shown is not None and len(missing) > self.shown:
            yield f"            ... and {len(missing) - self.shown:,} more (--all names them)"


def recognised_layout(dataset: Published, data: Path, paths: dict[str, list[Path]]) -> Layout | None:
    """The first known layout whose folder of videos is there and that holds every annotation file found."""
    for layout in dataset.layouts:
        folder = data / layout.annotations
        fits: Iterable[bool] = (found[0].parent == folder for found in paths.values() if found)
        if layout.videos and (data / layout.videos).is_dir() and all(fits):
            return layout
    return None
