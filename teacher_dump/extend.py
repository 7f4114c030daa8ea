"""Which parts of a teacher a dump has to write: the first rows, signals added to them, appended rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from store.cache_state import CacheState
from store.errors import IdentityError, InputError
from store.layout import TeacherPlan
from store.parts import FIRST, Part
from store.signals import SignalSpec
from store.teacher_parts import found_parts
from teacher_dump.pairs.layouts import LOGITS, is_of_all_rows
from teacher_dump.pairs.plan import plan_pairs
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import Teacher

Todo = tuple[Part, tuple[SignalSpec, ...]]


def parts_to_dump(
    source: CacheState, teacher: Teacher, settings: DumpSettings, extend: bool
) -> Iterator[Todo]:
    """Every part of `teacher` with its signals, in an order in which they can be dumped, one after another.

    Finished parts are among them where what is wanted now has to agree with them. Raises IdentityError for
    signals that a finished teacher lacks, unless `extend`; InputError where rows were appended and a signal
    that the teacher has is not wanted.
    """
    wanted = plan_pairs(source, teacher, settings).signals
    emitted = {spec.name: spec for spec in wanted}
    first: dict[str, SignalSpec] = {}
    for segment in range(len(source.segments)):
        parts = found_parts(source.root, teacher.name, segment)
        stored = [plan for plan in parts if plan.part.segment == segment]
        if segment == 0 and not source.is_complete(teacher.name):
            _require_one_segment(source, wanted)
            first = emitted
            yield FIRST, tuple(wanted)
            continue
        for plan in stored:
            yield from _stored_part(source, plan, emitted, extend)
        there = {spec.name: spec for plan in stored for spec in plan.signals}
        if segment == 0:
            missing = _added(source, teacher.name, wanted, there, settings, extend)
            first = there | {spec.name: spec for spec in missing}
        else:
            missing = _appended(source, teacher.name, emitted, first, there)
        if missing:
            yield Part(segment, len(stored)), missing


def _stored_part(
    source: CacheState, plan: TeacherPlan, emitted: Mapping[str, SignalSpec], extend: bool
) -> Iterator[Todo]:
    """A part that was begun or finished, with what is wanted of its signals now."""
    asked = tuple(emitted[spec.name] for spec in plan.signals if spec.name in emitted)
    if not source.is_complete(plan.name, plan.part):
        yield plan.part, asked
    elif plan.part.segment == 0 and extend:
        # Whoever adds a signal need not ask for the others again.
        yield plan.part, tuple(emitted.get(spec.name, spec) for spec in plan.signals)
    elif plan.part == FIRST or (plan.part.segment == 0 and asked):
        yield plan.part, asked


def _added(
    source: CacheState,
    teacher: str,
    wanted: Sequence[SignalSpec],
    there: Mapping[str, SignalSpec],
    settings: DumpSettings,
    extend: bool,
) -> tuple[SignalSpec, ...]:
    """What is wanted and not stored of the first rows.

    Where only some pairs are scored, all of them are not meant by who says nothing about pairs.
    """
    missing = [spec for spec in wanted if spec.name not in there]
    if missing and not extend:
        raise IdentityError(
            f"teacher {teacher!r} in {source.root.name} stores no signal {missing[0].name!r}; to add it, and "
            "leave the others as they are, say --extend (make dump-teacher ARGS=--extend)"
        )
    if settings.pairs.layout is None and any(is_of_all_rows(spec) for spec in there.values()):
        missing = [spec for spec in missing if spec.name != LOGITS]
    _require_one_segment(source, missing)
    return tuple(missing)


def _require_one_segment(source: CacheState, specs: Sequence[SignalSpec]) -> None:
    found = next((spec for spec in specs if is_of_all_rows(spec)), None)
    if found is not None and len(source.segments) > 1:
        raise InputError(
            f"rows were appended to {source.root.name}, and {found.name!r} is drawn from all rows at once; "
            "dump it into a new CACHE"
        )


def _appended(
    source: CacheState,
    teacher: str,
    emitted: Mapping[str, SignalSpec],
    first: Mapping[str, SignalSpec],
    there: Mapping[str, SignalSpec],
) -> tuple[SignalSpec, ...]:
    """What the teacher stores of its first rows, `first`, and not of those of a segment, `there`.

    Scores of a batch plan, and the best K of all rows, are of the rows that they were made from; what is of
    the teacher itself is there already.
    """
    carried = [
        spec
        for spec in first.values()
        if spec.name not in there and not is_of_all_rows(spec) and not spec.is_of_teacher
    ]
    for spec in carried:
        if emitted.get(spec.name) != spec:
            told = "is not emitted now" if spec.name not in emitted else "is stored another way"
            raise InputError(
                f"rows were appended to {source.root.name}, and signal {spec.name!r} of teacher {teacher!r} "
                f"{told}; give the options of its dump (--layers, --encoding, --tokens, --project)"
            )
    return tuple(carried)
