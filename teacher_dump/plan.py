"""Dataset + teacher -> shard tasks, as plain data.

A dump goes in phases, each over the rows of one axis; a later phase reads what an earlier one stored:

    calibration    a sample of videos and texts -> the numbers that int8 and projections need (one task)
    precision      a few videos and texts, in half precision and in float32 -> how far apart (one task)
    videos (V)     frames -> frame features, layers, and the view itself
    teacher (P)    what stands behind the layers in the teacher itself (one task)
    texts (T)      captions -> text features
    relevance (T)  stored features of a text and of its own video -> frame scores
    pairs (V)      stored features of some videos and of all texts -> logits
    earlier_pairs (V)   where texts were appended: those texts against the videos that were there before
    topk_texts (V), topk_videos (T)
                   a shortlist of whole splits -> logits of the best K
    planned (S)    steps of a batch plan, drawn over the videos that decoded -> logits, best k
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from store.errors import InputError
from store.kept_pixels import KeptPixels
from store.layout import TableCounts, TeacherPlan, signal_arrays
from store.lookup import check_name
from store.parts import FIRST, Part
from store.reduction import kept_tokens
from store.signals import ALL_TOKENS, TOKEN, Reduction, SignalSpec, plan_of

if TYPE_CHECKING:
    from teacher_dump.teachers.base import Teacher

CALIBRATION, PRECISION, OF_TEACHER = "calibration", "precision", "teacher"
NOTHING_BEFORE = {"V": 0, "T": 0}
PAIRS, EARLIER_PAIRS = "pairs", "earlier_pairs"
PLANNED_PHASE, TOPK_TEXTS, TOPK_VIDEOS = "planned", "topk_texts", "topk_videos"
PHASE_AXIS = {
    "videos": "V",
    "texts": "T",
    "relevance": "T",
    PAIRS: "V",
    EARLIER_PAIRS: "V",
    TOPK_TEXTS: "V",
    TOPK_VIDEOS: "T",
    PLANNED_PHASE: "S",
    OF_TEACHER: "P",
}
PHASES = tuple(phase for phase in PHASE_AXIS if phase not in (EARLIER_PAIRS, OF_TEACHER))
LARGEST_SHARD_BYTES = 1 << 29
PIECES = {"pairs": 16}
MOST_PIECES = 64
"""Into how many shards a phase is cut where bytes do not ask for more: work for that many workers, and what a
kill costs is one of them. `pairs` reads all texts again for each of its shards, so it has fewer.
"""
CALIBRATION_ROWS = {"videos": 32, "texts": 1024}
PRECISION_ROWS = 8


@dataclass(frozen=True)
class StorageOptions:
    """How a teacher's signals are stored; without a word, all of them in float16.

    encodings: by signal ("vit_layers" for all layers). tokens, width: of vit_layers, see `Reduction`. pixels:
    how the frames of the view are kept, None for not at all.
    """

    encodings: Mapping[str, str] = field(default_factory=dict)
    tokens: str = ALL_TOKENS
    width: int | None = None
    pixels: KeptPixels | None = None

    def applied(
        self, emitted: Sequence[SignalSpec], pair_inputs: Sequence[str] = ()
    ) -> tuple[SignalSpec, ...]:
        """The specs under which `emitted` are stored; raises UnknownNameError, InputError.

        pair_inputs: what the teacher scores pairs from, which has to be whole.
        """
        names = sorted({spec.name.split("/")[0] for spec in emitted})
        for name in self.encodings:
            check_name("signal to encode", name, names)
        if (self.tokens, self.width) != (ALL_TOKENS, None) and "vit_layers" not in names:
            raise InputError(
                "--tokens and --project are for vit_layers, this teacher emits none; see --layers"
            )
        stored = tuple(self._stored(spec) for spec in emitted)
        for spec in stored:
            if spec.name in pair_inputs and spec.reduction != Reduction():
                raise InputError(
                    f"this teacher scores pairs from all of {spec.name}; leave --tokens and --project away"
                )
        return stored

    def _stored(self, spec: SignalSpec) -> SignalSpec:
        encoding = self.encodings.get(spec.name.split("/")[0], spec.encoding)
        if spec.kind.granularity != TOKEN:
            return replace(spec, encoding=encoding)
        sizes = {**spec.sizes, "L": kept_tokens(spec.sizes["L"], self.tokens)}
        if self.width is not None:
            if self.width >= sizes["D"]:
                raise InputError(
                    f"--project {self.width} is not less than the width {sizes['D']} of {spec.name}"
                )
            sizes["D"] = self.width
        return replace(spec, sizes=sizes, encoding=encoding, reduction=Reduction(self.tokens, self.width))


@dataclass(frozen=True)
class ShardTask:
    """Rows [start, stop) of one phase: writes shard `number` of each of the phase's signals.

    part: of the teacher; rows are counted over the whole cache.
    """

    teacher: str
    phase: str
    number: int
    start: int
    stop: int
    part: Part = FIRST

    @property
    def name(self) -> str:
        return self.part.task_name(self.teacher, self.phase, self.number)


def phase_of(spec: SignalSpec) -> str:
    """The phase that writes a signal."""
    if spec.row_axis == "S":
        return PLANNED_PHASE
    if spec.is_of_teacher:
        return OF_TEACHER
    if spec.name.startswith("topk_scores/"):
        return TOPK_TEXTS if spec.row_axis == "V" else TOPK_VIDEOS
    by_name = {"video_text_logits": "pairs", "frame_relevance": "relevance"}
    return by_name.get(spec.name) or ("texts" if spec.row_axis == "T" else "videos")


def execution(
    signals: Sequence[SignalSpec],
    counts: Mapping[str, int],
    settings: Mapping[str, Any],
    shard_rows: int | None,
    frame_bytes: int = 0,
    most_rows: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What a resume repeats to the letter: `settings`, each signal's phase, and the rows of its shards.

    counts: {"V": videos, "T": texts, "S": steps of the batch plan, at most}. settings: with batch_videos and
    batch_texts. shard_rows: of every phase; by default a power of two that cuts the phase into 32 to 64
    shards (`pairs`: 8 to 16) of at least one batch, and into more where the phase's largest signal, or the
    kept frames of `frame_bytes` a video, would fill more than 512 MB, or where `most_rows` of a phase says
    that fewer are work enough. It does not depend on who runs the tasks, so neither do the bytes.
    """
    phases = {spec.name: phase_of(spec) for spec in signals}
    rows = {
        phase: shard_rows
        if shard_rows is not None
        else min(
            _rows_that_fit(
                [spec for spec in signals if phases[spec.name] == phase],
                counts,
                frame_bytes if phase == "videos" else 1,
            ),
            _rows_of_a_piece(phase, counts, settings),
            (most_rows or {}).get(phase, LARGEST_SHARD_BYTES),
        )
        for phase in PHASES
    }
    # One shard. Plans of teachers that store nothing of themselves say nothing of it.
    whole = [spec.sizes[spec.row_axis] for spec in signals if spec.is_of_teacher]
    return {**settings, "phase_of": phases, "shard_rows": rows | ({OF_TEACHER: max(whole)} if whole else {})}


def inputs_of_pairs(teacher: Teacher) -> list[SignalSpec]:
    """The signals that a teacher scores pairs from: those it names, else all of its rows but vit_layers."""
    computed = ("video_text_logits", "frame_relevance")
    return [
        spec
        for spec in teacher.signals
        if (
            spec.name in teacher.pair_inputs
            if teacher.pair_inputs
            else spec.name not in computed and not spec.name.startswith("vit_layers/")
        )
    ]


def _rows_of_a_piece(phase: str, counts: Mapping[str, int], settings: Mapping[str, Any]) -> int:
    """A power of two: of one piece of the phase, and not less than a batch."""
    axis = PHASE_AXIS[phase]
    piece = -(-counts.get(axis, 1) // PIECES.get(phase, MOST_PIECES))
    batch = {"V": settings["batch_videos"], "T": settings["batch_texts"], "S": 1}[axis]
    return 1 << (max(piece, batch) - 1).bit_length()


def _rows_that_fit(signals: Sequence[SignalSpec], counts: Mapping[str, int], row_bytes: int) -> int:
    """A power of two, so that the shards of all signals end together where rows are appended later."""
    row_bytes = max(row_bytes, 1)
    for spec in signals:
        one_row = TableCounts(counts["V"], counts["T"], {plan_of(spec.name) or "": counts.get("S", 0)})
        parts = signal_arrays(spec, one_row, 1).values()
        row_bytes = max(row_bytes, sum(array.row_bytes for array in parts))
    return 1 << (max(LARGEST_SHARD_BYTES // row_bytes, 1).bit_length() - 1)


def shard_tasks(
    plan: TeacherPlan, counts: Mapping[str, int], before: Mapping[str, int] = NOTHING_BEFORE
) -> Iterator[ShardTask]:
    """Every task but `planned_tasks`, phase by phase; `videos` always runs, since it resolves the view, but
    where signals are added to a teacher.

    What other tasks encode with is fitted first. counts, before: {"V": videos, "T": texts} of the plan's
    segment, and of those before it.
    """
    part = plan.part
    wanted = {*plan.execution["phase_of"].values(), *(() if part.addition else ("videos",))} - {
        PLANNED_PHASE,
        OF_TEACHER,
    }
    if part.segment == 0 and any(spec.is_calibrated for spec in plan.signals):
        yield ShardTask(plan.name, CALIBRATION, 0, 0, CALIBRATION_ROWS["videos"], part)
    if part == FIRST and plan.identity.get("dtype", "float32") != "float32":
        yield ShardTask(plan.name, PRECISION, 0, 0, PRECISION_ROWS, part)
    for phase in PHASES:
        if phase in wanted:
            axis = PHASE_AXIS[phase]
            yield from _tasks(plan, phase, before[axis], before[axis] + counts[axis])
    if PAIRS in wanted and counts["T"]:
        yield from _tasks(plan, EARLIER_PAIRS, 0, before["V"])
    for spec in plan.signals:
        if spec.is_of_teacher:
            yield ShardTask(plan.name, OF_TEACHER, 0, 0, spec.sizes[spec.row_axis], part)


def planned_tasks(plan: TeacherPlan, steps: int) -> Iterator[ShardTask]:
    """The tasks over a batch plan, whose steps are known once it is seen which videos decoded."""
    yield from _tasks(plan, PLANNED_PHASE, 0, steps)


def _tasks(plan: TeacherPlan, phase: str, first: int, end: int) -> Iterator[ShardTask]:
    step = plan.execution["shard_rows"][PAIRS if phase == EARLIER_PAIRS else phase]
    for number, start in enumerate(range(first, end, step)):
        yield ShardTask(plan.name, phase, number, start, min(start + step, end), plan.part)
