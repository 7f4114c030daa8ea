"""python -m store diff A B: in which fields, rows, splits, views, teachers, contents two caches differ.

Contents are compared by the digests in the manifests; no signal is read. Provenance (library versions,
batch sizes, the card, who brought a view) is told apart: it makes no cache another one.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from store.cli import add_debug
from store.contents import read_attributes
from store.durable import ObjectRecord
from store.identity import differences
from store.layout import DATASET_IDENTITY, plan_path, teacher_path, view_path
from store.parts import TABLES, TEACHERS, VIEWS, group_at, group_of, groups_of
from store.reader import Cache, open_cache
from store.untrusted import printable_values, shown

ROWS_SHOWN = 5
CARD = ("title", "licence", "source", "share", "missing")
IDENTITY = (*(key for key in DATASET_IDENTITY if key != "splits"), "protocol", "prompts")
ONLY_A, ONLY_B = "only in A", "only in B"

Section = dict[str, Any]


def diff(path_a: Path, path_b: Path) -> Section:
    """What differs between two finished caches, in plain JSON; a part in which nothing differs is left out.

    equal: whether nothing but `provenance` does. identity: {field: [a, b]}. rows: {videos, texts: {only_a,
    only_b, moved: {count, first}}}. splits, views, plans, teachers: {name: "only in A" or B, or {part: ...}}.
    tables: columns whose stored objects differ. Raises what `open_cache` and its teachers raise.
    """
    a, b = open_cache(path_a), open_cache(path_b)
    provenance: Section = {"card": _fields(_part(a.dataset, CARD), _part(b.dataset, CARD))}
    found: Section = {
        "identity": _fields(_part(a.dataset, IDENTITY), _part(b.dataset, IDENTITY)),
        "rows": _filled({"videos": _rows(a.video_ids, b.video_ids), "texts": _rows(_texts(a), _texts(b))}),
        "splits": _by_name(a.splits, b.splits, lambda name: _split(a, b, name)),
        "views": _by_name(_names(a, "views"), _names(b, "views"), lambda name: _view(a, b, name, provenance)),
        "plans": _by_name(_names(a, "plans"), _names(b, "plans"), lambda name: _plan(a, b, name)),
        "teachers": _by_name(a.teacher_names, b.teacher_names, lambda name: _teacher(a, b, name, provenance)),
        "tables": sorted(_changed(_tables(a), _tables(b))),
    }
    found = _filled(found)
    return {"equal": not found, **found, **_filled({"provenance": _filled(provenance)})}


def _filled(section: Section) -> Section:
    return {key: value for key, value in section.items() if value}


def _part(fields: Mapping[str, Any], keys: Iterable[str]) -> Section:
    return {key: fields.get(key) for key in keys}


def _fields(a: Any, b: Any) -> dict[str, list[Any]]:
    """{field: [value in A, value in B]} where they differ."""
    return {field: [was, now] for field, was, now in differences(a, b)}


def _by_name(a: Iterable[str], b: Iterable[str], compare: Callable[[str], Section]) -> Section:
    names_a, names_b = set(a), set(b)
    found: Section = {name: ONLY_A if name in names_a else ONLY_B for name in names_a ^ names_b}
    found |= {name: compare(name) for name in sorted(names_a & names_b)}
    return _filled(dict(sorted(found.items())))


def _texts(cache: Cache) -> list[tuple[str, str]]:
    """Every text with its video's id, "" for a class name: what a text is called in both caches."""
    ids = [*cache.video_ids, ""]
    return [(ids[video], text) for video, text in zip(cache.text_video.tolist(), cache.texts, strict=True)]


def _rows(a: Sequence[Hashable], b: Sequence[Hashable]) -> Section:
    """Rows that only one has, and rows that both have at another number."""
    count_a, count_b = Counter(a), Counter(b)
    row_b = {key: row for row, key in reversed(list(enumerate(b)))}
    first_a = {key: row for row, key in reversed(list(enumerate(a)))}
    moved: list[list[Any]] = [
        [key, row, row_b[key]] for key, row in first_a.items() if key in row_b and row_b[key] != row
    ]
    moved.sort(key=lambda entry: entry[1])
    parts: dict[str, list[Any]] = {
        "only_a": list((count_a - count_b).elements()),
        "only_b": list((count_b - count_a).elements()),
        "moved": moved,
    }
    return {name: {"count": len(keys), "first": keys[:ROWS_SHOWN]} for name, keys in parts.items() if keys}


def _split(a: Cache, b: Cache, name: str) -> Section:
    """Videos and texts by what they are called, so that moved rows do not make another split."""
    of_a, of_b = a.split(name), b.split(name)
    texts_a, texts_b = _texts(a), _texts(b)
    return _filled(
        {
            "videos": _rows_of_split(
                [a.video_ids[row] for row in of_a.video], [b.video_ids[row] for row in of_b.video]
            ),
            "texts": _rows_of_split([texts_a[row] for row in of_a.text], [texts_b[row] for row in of_b.text]),
        }
    )


def _rows_of_split(a: Sequence[Hashable], b: Sequence[Hashable]) -> Section:
    return {name: rows for name, rows in _rows(a, b).items() if name != "moved"}


def _names(cache: Cache, kind: str) -> list[str]:
    return [path.split("/")[1] for path in cache.manifest.groups if path.startswith(f"{kind}/")]


def _plan(a: Cache, b: Cache, name: str) -> Section:
    path = plan_path(name)
    fields = _fields(a.batch_plan(name).to_dict(), b.batch_plan(name).to_dict())
    changed = _changed(a.group_manifest(path).objects, b.group_manifest(path).objects)
    return _filled({"fields": fields, "contents": sorted(changed)})


def _view(a: Cache, b: Cache, name: str, provenance: Section) -> Section:
    path = view_path(name)
    of_a, of_b = (read_attributes(cache.path, path) for cache in (a, b))
    provenance[path] = _fields(
        {"dumped_with": of_a.get("dumped_with")}, {"dumped_with": of_b.get("dumped_with")}
    )
    changed = _changed(_objects(a, VIEWS, name), _objects(b, VIEWS, name))
    return _filled({"fields": _fields(of_a.get("view"), of_b.get("view")), "contents": sorted(changed)})


def _teacher(a: Cache, b: Cache, name: str, provenance: Section) -> Section:
    path = teacher_path(name)
    of_a, of_b = a.teacher(name), b.teacher(name)
    provenance[path] = _fields(
        {"provenance": of_a.plan.provenance, "execution": of_a.plan.execution},
        {"provenance": of_b.plan.provenance, "execution": of_b.plan.execution},
    )
    changed = _changed(_objects(a, TEACHERS, name), _objects(b, TEACHERS, name))

    def signal(signal: str) -> Section:
        fields = _fields(of_a.signals[signal].to_dict(), of_b.signals[signal].to_dict())
        within = {array: f"{array.removeprefix(group_of(f'{array}/'))}/" for array in changed}
        objects = sum(changed[array] for array in changed if within[array].startswith(f"/{signal}/"))
        return _filled({"fields": fields, "objects_that_differ": objects})

    return _filled(
        {
            "identity": _fields(of_a.identity, of_b.identity),
            "view": _fields(of_a.view.to_dict(), of_b.view.to_dict()),
            "signals": _by_name(of_a.signals, of_b.signals, signal),
        }
    )


def _tables(cache: Cache) -> list[ObjectRecord]:
    """The columns of the tables, over all segments."""
    groups = groups_of(cache.manifest.groups, TABLES)
    appended = [record for group in groups for record in cache.group_manifest(group.path).objects]
    folders = ("videos/", "texts/", "splits/")
    return [
        record
        for record in (*cache.manifest.objects, *appended)
        if record.path.removeprefix(f"{group_of(record.path)}/").startswith(folders)
    ]


def _objects(cache: Cache, kind: str, name: str) -> list[ObjectRecord]:
    """What a view or a teacher consists of, over all segments, signals that were added included."""
    groups = groups_of(cache.manifest.groups, kind, name)
    return [record for group in groups for record in cache.group_manifest(group.path).objects]


def _changed(a: Iterable[ObjectRecord], b: Iterable[ObjectRecord]) -> Counter[str]:
    """Arrays, with how many of their objects are among one only or differ.

    The groups' own zarr.json is left out: its fields are compared one by one.
    """
    of_a, of_b = ({(r.path, r.bytes, r.sha256) for r in records} for records in (a, b))
    paths = {path for path, _, _ in of_a ^ of_b}
    arrays = (path.split("/c/")[0].removesuffix("/zarr.json") for path in paths)
    return Counter(array for array in arrays if group_at(array) is None)


def describe_difference(found: Section) -> list[str]:
    """One line for each difference, of strings that a terminal can show."""
    lines = []
    for section, value in printable_values(found).items():
        if section not in ("equal", "provenance"):
            lines += _lines(section, value)
    told = _lines("provenance", printable_values(found.get("provenance", {})))
    lines += ["told, but no other cache for it:", *told] if told else []
    return lines or ["equal, by what their manifests say; verify reads the objects"]


def _lines(where: str, value: Any) -> list[str]:
    if isinstance(value, Mapping) and "count" in value:
        first = ", ".join(map(shown, value["first"]))
        return [
            f"{where}: {value['count']:,}: {first}{', ...' if value['count'] > len(value['first']) else ''}"
        ]
    if isinstance(value, Mapping):
        return [line for key, inner in value.items() for line in _lines(f"{where}: {key}", inner)]
    if isinstance(value, list) and len(value) == 2 and not where.endswith(("contents", "tables")):
        return [f"{where}: A {shown(value[0])}, B {shown(value[1])}"]
    return [f"{where}: {', '.join(map(str, value)) if isinstance(value, list) else value}"]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("diff", help="in which fields, rows, signals and contents two caches differ")
    parser.add_argument("a", type=Path, metavar="A", help="folder of a cache")
    parser.add_argument("b", type=Path, metavar="B", help="folder of another")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON, for scripts")
    parser.set_defaults(execute=run_diff)
    add_debug(parser)


def run_diff(arguments: argparse.Namespace) -> int:
    found = diff(arguments.a, arguments.b)
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(describe_difference(found)))
    return 0 if found["equal"] else 1
