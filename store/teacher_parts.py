"""One teacher out of its parts: the rows that it began with, appended segments, signals added since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from store.contents import read_attributes
from store.errors import DamagedCacheError
from store.identity import differences
from store.inputs.samples import Segment
from store.layout import TeacherPlan
from store.parts import TEACHERS, Group, Part
from store.signal_rows import StoredSignal
from store.signals import SignalSpec


def found_parts(root: Path, teacher: str, segment: int) -> list[TeacherPlan]:
    """The plans of every part of `teacher` over the segments up to `segment`, finished or not."""
    found = []
    for number in range(segment + 1):
        for addition in count():
            part = Part(number, addition)
            path = Group(TEACHERS, teacher, part).path
            if not (root / path / "zarr.json").is_file():
                break
            found.append(TeacherPlan.from_dict(read_attributes(root, path), part))
    return found


def whole_plan(root: Path, parts: Sequence[TeacherPlan]) -> TeacherPlan:
    """The plan of the first part, with the signals that were added to it.

    Raises DamagedCacheError where a part is of another teacher or view, or its signals of other kinds.
    """
    first = parts[0]
    if first.part.segment or first.part.addition:
        raise DamagedCacheError(f"{first.path} of {root.name} goes on with nothing; pull the cache again")
    signals: dict[str, SignalSpec] = {}
    for part in parts:
        for difference in differences(
            {"identity": first.identity, "view": first.view.to_dict()},
            {"identity": part.identity, "view": part.view.to_dict()},
        ):
            raise DamagedCacheError(
                f"{part.path} of {root.name} is of another teacher than {first.path}: it differs in "
                f"{difference[0]}; pull the cache again"
            )
        for spec in part.signals:
            if part.part.segment == 0 and spec.name not in signals:
                signals[spec.name] = spec
            elif part.part.segment == 0 or signals.get(spec.name) != spec:
                raise DamagedCacheError(
                    f"{part.path} of {root.name} holds a signal {spec.name!r} that does not go on with that "
                    f"of {first.path}; pull the cache again"
                )
    return replace(first, signals=tuple(signals.values()))


def stored_signal(
    spec: SignalSpec, parts: Sequence[TeacherPlan], segments: Sequence[Segment], reason: str
) -> StoredSignal:
    """Where the rows of `spec` lie, segment by segment; reason: why some may be missing."""
    found: list[str | None] = [None] * len(segments)
    for part in parts:
        if any(other.name == spec.name for other in part.signals):
            found[part.part.segment] = f"{part.path}/{spec.name}"
    return StoredSignal(spec, tuple(found), tuple(segments), reason)
