"""Where what was added to a finished cache lies, so that nothing of it is ever written again.

views/<view>  teachers/<teacher>               the rows that the cache began with (segment 0)
segment-1/  segment-1/views/...  teachers/...  rows that were appended: their tables, what is known of them
teachers/<teacher>.added-1                     signals that were added to the teacher, over the same rows
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from store.untrusted import is_path_name

TABLES, VIEWS, TEACHERS, PLANS = "tables", "views", "teachers", "plans"
_SEGMENT = re.compile(r"segment-([1-9]\d{0,5})")
_ADDED = re.compile(r"(.+)\.added-([1-9]\d{0,5})")


@dataclass(frozen=True)
class Part:
    """One piece of a teacher, or of a view: which segment's rows, and which addition of signals (0: none)."""

    segment: int = 0
    addition: int = 0

    @property
    def folder(self) -> str:
        """What stands before paths of the segment: "" or "segment-1/"."""
        return segment_folder(self.segment)

    @property
    def suffix(self) -> str:
        return f".added-{self.addition}" if self.addition else ""

    def task_name(self, teacher: str, phase: str, number: int) -> str:
        """The name of a task in the ledger: "<teacher>/<phase>/<number>", of later parts with the part."""
        words = [teacher, self.folder.strip("/"), self.suffix.strip("."), phase, str(number)]
        return "/".join(filter(None, words))


def group_of_task(task: str) -> Group:
    """The part of a teacher that a task of the ledger writes, from what `Part.task_name` made."""
    teacher, *words = task.split("/")
    segment = addition = 0
    for word in words[:2]:
        if found := _SEGMENT.fullmatch(word):
            segment = int(found[1])
        if found := _ADDED.fullmatch(f"{teacher}.{word}"):
            addition = int(found[2])
    return Group(TEACHERS, teacher, Part(segment, addition))


FIRST = Part()


@dataclass(frozen=True)
class Group:
    """A group with a manifest of its own: of kind TABLES (rows that were appended), VIEWS, TEACHERS, PLANS.

    name: of the view, teacher or batch plan.
    """

    kind: str
    name: str
    part: Part = FIRST

    @property
    def path(self) -> str:
        if self.kind == TABLES:
            return self.part.folder.strip("/")
        return f"{self.part.folder}{self.kind}/{self.name}{self.part.suffix}"


def segment_folder(segment: int) -> str:
    return f"segment-{segment}/" if segment else ""


def group_at(path: str) -> Group | None:
    """The group whose folder is `path`; None if a group can't lie there."""
    words = path.split("/")
    found = _SEGMENT.fullmatch(words[0])
    segment = int(found[1]) if found else 0
    words = words[1:] if found else words
    if found and not words:
        return Group(TABLES, "", Part(segment))
    if len(words) != 2 or not is_path_name(words[1]) or words[1] == "zarr.json":
        return None
    kind, name = words
    if kind == TEACHERS:
        added = _ADDED.fullmatch(name)
        return Group(kind, added[1] if added else name, Part(segment, int(added[2]) if added else 0))
    if kind == VIEWS or (kind == PLANS and not segment):
        return Group(kind, name, Part(segment))
    return None


def group_of(path: str) -> str:
    """The group that the object at `path` belongs to; "" for the cache's first tables."""
    words = path.split("/")
    first = 1 if _SEGMENT.fullmatch(words[0]) else 0
    inner = "/".join(words[: first + 2])
    if len(words) > first + 2 and group_at(inner):
        return inner
    return words[0] if first else ""


def is_added_name(name: str) -> bool:
    """Whether a teacher of this name could not be told from signals added to another."""
    return _ADDED.fullmatch(name) is not None


def groups_of(groups: Iterable[str], kind: str, name: str | None = None) -> list[Group]:
    """Those of the paths `groups` that are of `kind` (and `name`), by segment, then by addition."""
    found = [group for path in groups if (group := group_at(path)) is not None and group.kind == kind]
    chosen = [group for group in found if name is None or group.name == name]
    return sorted(chosen, key=lambda group: (group.name, group.part.segment, group.part.addition))


def segments_of(groups: Mapping[str, object]) -> int:
    """How many segments the tables have: the first, and those that follow it without a gap."""
    count = 1
    while segment_folder(count).strip("/") in groups:
        count += 1
    return count
