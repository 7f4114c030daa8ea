"""What is inside a cache, for a person."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from store.durable import read_json
from store.layout import TeacherPlan
from store.ledger import Ledger
from store.manifest import MANIFEST
from store.reader import TeacherReader, open_cache, read_root

IDENTITY_COLUMNS = 100


def describe(path: Path) -> str:
    """What lies at `path`: the dataset, and for each teacher its identity and a table of its signals.

    An unfinished cache is described by what is planned and by how many tasks are done.
    Raises MissingFileError if there is no cache.
    """
    root = read_root(path)
    if not (path / MANIFEST).is_file():
        return "\n".join([*_describe_dataset(path, root), *_describe_unfinished(path)])
    cache = open_cache(path)
    lines = [*_describe_dataset(path, root), f"  digest   sha256:{cache.digest}"]
    for name in cache.teacher_names:
        lines += ["", *_describe_teacher(cache.teacher(name))]
    return "\n".join(lines)


def _describe_dataset(path: Path, root: Mapping[str, Any]) -> list[str]:
    dataset = root["dataset"]
    splits = ", ".join(
        f"{name} {count['videos']:,} videos / {count['texts']:,} texts"
        for name, count in dataset["splits"].items()
    )
    return [
        f"{path.name}: {root['state']}, format {root['version']}, "
        f"{dataset['videos']:,} videos, {dataset['texts']:,} texts",
        f"  dataset  {dataset['name']}: {dataset['title']}",
        f"  licence  {dataset['licence']}",
        f"  splits   {splits}",
        f"  protocol {dataset['protocol']}",
        *_describe_missing(dataset["missing"]),
    ]


def _describe_missing(missing: Mapping[str, int]) -> list[str]:
    """What the published dataset has beyond these rows; less than 0 where there are more here."""
    told = ", ".join(f"{count:,} {what}" for what, count in missing.items())
    return [f"  missing  of what is published: {told}"] if missing else []


def _describe_unfinished(path: Path) -> list[str]:
    done = [commit.teacher for commit in Ledger(path)]
    lines = []
    for file in sorted((path / "teachers").glob("*/zarr.json")):
        plan = TeacherPlan.from_dict(read_json(file)["attributes"])
        signals = ", ".join(spec.name for spec in plan.signals)
        lines.append(f"  teacher  {plan.name}: {done.count(plan.name)} tasks done; will hold {signals}")
    return [*lines, "  run the same dump command again: it goes on where it stopped"]


def _describe_teacher(teacher: TeacherReader) -> list[str]:
    counts = {"V": len(teacher.cache.video_ids), "T": len(teacher.cache.texts)}
    view, identity = teacher.view, teacher.identity
    rows = [("signal", "axes", "shape", "dtype", "bytes", "encoding error (relative L2)")]
    for name, spec in teacher.signals.items():
        sizes = {**spec.sizes, **counts}
        shape = " x ".join(str(sizes[axis]) for axis in spec.kind.axes)
        size = f"{teacher.bytes_by_signal[name]:,}"
        rows.append(
            (
                name,
                ",".join(spec.kind.axes),
                shape,
                spec.encoding,
                size,
                f"{teacher.encoding_error(name)['relative_l2']:.2e}",
            )
        )
    pairs = teacher.pair_layout
    described = ", ".join(f"{key} {_short(value)}" for key, value in sorted(identity.items()))
    indent = "\n" + " " * len("  identity ")
    return [
        f"teacher {teacher.name}: complete, pair scores {pairs.layout}",
        f"  identity {indent.join(textwrap.wrap(described, IDENTITY_COLUMNS))}",
        f"  view     {view.name}: {view.frames} frames ({view.sampling}) of {view.size} x {view.size} pixels",
        f"  videos   {int(teacher.video_usable.sum()):,} decoded, {len(teacher.failures):,} failed",
        *("  " + line for line in table(rows, right_from=4)),
    ]


def _short(value: object) -> str:
    """Nested values in one line, digests cut to twelve places, numbers to six."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_short(inner)}" for key, inner in sorted(value.items())) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(_short(inner) for inner in value) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text[:12] + "..." if len(text) == 64 else text


def table(rows: Sequence[Sequence[str]], right_from: int) -> list[str]:
    """Lines of a table with a rule under the first row; columns from `right_from` on align right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column >= right_from else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
