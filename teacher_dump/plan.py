"""Dataset + teacher -> shard tasks, as plain data.

A dump goes in phases, each over the rows of one axis; a later phase reads what an earlier one stored:

    calibration    a sample of videos and texts -> the numbers that int8 and projections need (one task)
    videos (V)     frames -> frame features, layers, and the view itself
    texts (T)      captions -> text features
    relevance (T)  stored features of a text and of its own video -> frame scores
    pairs (V)      stored features of some videos and of all texts -> logits
    earlier_pairs (V)   where texts were appended: those texts against the videos that were there before
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from store.errors import InputError
from store.kept_pixels import KeptPixels
from store.layout import TableCounts, TeacherPlan, signal_arrays
from store.lookup import check_name
from store.parts import FIRST, Part
from store.reduction import kept_tokens
from store.signals import ALL_TOKENS, TOKEN, Reduction, SignalSpec

CALIBRATION = "calibration"
PAIRS, EARLIER_PAIRS = "pairs", "earlier_pairs"
PHASES = ("videos", "texts", "relevance", PAIRS)
PHASE_AXIS = {"videos": "V", "texts": "T", "relevance": "T", PAIRS: "V", EARLIER_PAIRS: "V"}
NOTHING_BEFORE = {"V": 0, "T": 0}
LARGEST_SHARD_BYTES = 1 << 29
CALIBRATION_ROWS = {"videos": 32, "texts": 1024}


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
    by_name = {"video_text_logits": "pairs", "frame_relevance": "relevance"}
    return by_name.get(spec.name) or ("texts" if spec.row_axis == "T" else "videos")


def execution(
    signals: Sequence[SignalSpec],
    counts: Mapping[str, int],
    settings: Mapping[str, Any],
    shard_rows: int | None,
    frame_bytes: int = 0,
) -> dict[str, Any]:
    """What a resume repeats to the letter: `settings`, each signal's phase, and the rows of its shards.

    counts: {"V": videos, "T": texts}. shard_rows: of every phase; by default as many rows as make the
    phase's largest signal, or the kept frames of `frame_bytes` a video, fill 256 to 512 MB, and a small cache
    is one shard.
    """
    phases = {spec.name: phase_of(spec) for spec in signals}
    rows = {
        phase: shard_rows
        if shard_rows is not None
        else _default_shard_rows(
            [s for s in signals if phases[s.name] == phase], counts, frame_bytes if phase == "videos" else 1
        )
        for phase in PHASES
    }
    return {**settings, "phase_of": phases, "shard_rows": rows}


def _default_shard_rows(signals: Sequence[SignalSpec], counts: Mapping[str, int], row_bytes: int) -> int:
    """A power of two, so that the shards of all signals end together where rows are appended later."""
    row_bytes = max(row_bytes, 1)
    for spec in signals:
        one_row = TableCounts(counts["V"], counts["T"])
        parts = signal_arrays(spec, one_row, 1).values()
        row_bytes = max(row_bytes, sum(array.row_bytes for array in parts))
    fitting, most = max(LARGEST_SHARD_BYTES // row_bytes, 1), max(counts.values())
    return min(1 << (fitting.bit_length() - 1), 1 << (most - 1).bit_length())


def shard_tasks(
    plan: TeacherPlan, counts: Mapping[str, int], before: Mapping[str, int] = NOTHING_BEFORE
) -> Iterator[ShardTask]:
    """Every task of the dump, phase by phase; `videos` always runs, since it resolves the view, but where
    signals are added to a teacher.

    counts, before: {"V": videos, "T": texts} of the plan's segment, and of those before it.
    """
    part = plan.part
    wanted = {*plan.execution["phase_of"].values(), *(() if part.addition else ("videos",))}
    if part.segment == 0 and any(spec.is_calibrated for spec in plan.signals):
        yield ShardTask(plan.name, CALIBRATION, 0, 0, CALIBRATION_ROWS["videos"], part)
    phases = [(phase, phase, before, counts) for phase in PHASES if phase in wanted]
    if PAIRS in wanted and counts["T"]:
        phases.append((EARLIER_PAIRS, PAIRS, NOTHING_BEFORE, before))
    for phase, like, first, rows in phases:
        axis, step = PHASE_AXIS[phase], plan.execution["shard_rows"][like]
        end = first[axis] + rows[axis]
        for number, start in enumerate(range(first[axis], end, step)):
            yield ShardTask(plan.name, phase, number, start, min(start + step, end), part)
