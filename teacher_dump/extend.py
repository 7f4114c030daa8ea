"""Which parts of a teacher a dump has to write: the first rows, signals added to them, appended rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from store.errors import IdentityError, InputError
from store.layout import TeacherPlan
from store.parts import FIRST, Part
from store.signals import SignalSpec, plan_of
from store.teacher_parts import found_parts, whole_plan
from store.writer import CacheWriter

Todo = tuple[Part, tuple[SignalSpec, ...]]


def parts_to_dump(
    writer: CacheWriter, teacher: str, wanted: Sequence[SignalSpec], extend: bool
) -> Iterator[Todo]:
    """Every part of `teacher` with its signals, in an order in which they can be dumped, one after another.

    wanted: what the teacher emits, as it is to be stored. Finished parts are among them where `wanted`
    has to agree with them. Raises IdentityError for signals that a finished teacher lacks, unless `extend`;
    InputError where rows were appended and `wanted` lacks a signal that the teacher has.
    """
    emitted = {spec.name: spec for spec in wanted}
    for segment in range(len(writer.segments)):
        stored = [plan for plan in found_parts(writer.root, teacher, segment) if plan.part.segment == segment]
        if segment == 0 and not writer.is_complete(teacher):
            _require_one_segment(writer, wanted)
            yield FIRST, tuple(wanted)
            continue
        for plan in stored:
            yield from _stored_part(writer, plan, emitted, extend)
        there = {spec.name for plan in stored for spec in plan.signals}
        if segment == 0:
            missing = tuple(spec for spec in wanted if spec.name not in there)
            if missing and not extend:
                raise IdentityError(
                    f"teacher {teacher!r} in {writer.root.name} stores no signal {missing[0].name!r}; to add "
                    "it, and leave the others as they are, say --extend (make dump-teacher ARGS=--extend)"
                )
            _require_one_segment(writer, missing)
        else:
            missing = _appended(writer, teacher, emitted, there)
        if missing:
            yield Part(segment, len(stored)), missing


def _stored_part(
    writer: CacheWriter, plan: TeacherPlan, emitted: Mapping[str, SignalSpec], extend: bool
) -> Iterator[Todo]:
    """A part that was begun or finished, with what is wanted of its signals now."""
    asked = tuple(emitted[spec.name] for spec in plan.signals if spec.name in emitted)
    if not writer.is_complete(plan.name, plan.part):
        yield plan.part, asked
    elif plan.part.segment == 0 and extend:
        # Whoever adds a signal need not ask for the others again.
        yield plan.part, tuple(emitted.get(spec.name, spec) for spec in plan.signals)
    elif plan.part == FIRST or (plan.part.segment == 0 and asked):
        yield plan.part, asked


def _is_of_all_rows(spec: SignalSpec) -> bool:
    """Whether a signal is made from all rows at once: batches drawn from them, the best K of them."""
    return plan_of(spec.name) is not None or spec.name.startswith("topk_scores/")


def _require_one_segment(writer: CacheWriter, specs: Sequence[SignalSpec]) -> None:
    found = next((spec for spec in specs if _is_of_all_rows(spec)), None)
    if found is not None and len(writer.segments) > 1:
        raise InputError(
            f"rows were appended to {writer.root.name}, and {found.name!r} is drawn from all rows at once; "
            "dump it into a new CACHE"
        )


def _appended(
    writer: CacheWriter, teacher: str, emitted: Mapping[str, SignalSpec], there: set[str]
) -> tuple[SignalSpec, ...]:
    """What the teacher stores of its first rows and not of those of a segment.

    Scores of a batch plan, and the best K of all rows, are of the rows that they were made from; what is of
    the teacher itself is there already.
    """
    first = whole_plan(writer.root, found_parts(writer.root, teacher, 0))
    carried = [
        spec
        for spec in first.signals
        if spec.name not in there and not _is_of_all_rows(spec) and not spec.is_of_teacher
    ]
    for spec in carried:
        if emitted.get(spec.name) != spec:
            told = "is not emitted now" if spec.name not in emitted else "is stored another way"
            raise InputError(
                f"rows were appended to {writer.root.name}, and signal {spec.name!r} of teacher {teacher!r} "
                f"{told}; give the options of its dump (--layers, --encoding, --tokens, --project)"
            )
    return tuple(carried)
