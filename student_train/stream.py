"""The training stream: which rows meet in which step, read ahead and handed out on the device.

A training row is a text row with its video. The order is a pure function of (seed, epoch), see
`store.batch_plan`; a teacher that scored the batches of a stored plan is trained from in that plan's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from store.batch_plan import BatchPlan, rank_strip
from store.errors import InputError, UnknownNameError
from store.feeder import BatchFeeder
from store.identity import PLUGIN
from store.pair_scores import NO_PAIRS, PLANNED
from store.plans import PlannedBatches
from store.reader import Cache
from store.signals import VISION_HEAD, kind_of
from store.teacher_reader import MATCH_SIGNALS
from student_train.distributed import rank, world_size
from student_train.needs import (
    LOGIT_SCALE,
    MATCH_PROBABILITY,
    NOT_SIGNALS,
    OF_CLASSES,
    PAIR_SCORES,
    PIXELS,
    PLANNED_TOPK,
    TEXT,
    split_role,
)
from student_train.renditions import DrawnRenditions
from student_train.row_tensors import logit_scale
from student_train.step_source import Step, StepSource, planned_topk_signal
from student_train.teachers import Teachers, require_same_frames
from student_train.training_rows import PairedRows

LAYER = "vit_layers/"


@dataclass(frozen=True)
class ReplayedPlan:
    """The batches of a stored plan, epoch after epoch, then from its beginning again.

    rows: [S, B] int64, numbers of training rows.
    """

    rows: np.ndarray
    steps_per_epoch: int
    name: str

    @property
    def batch_size(self) -> int:
        return int(self.rows.shape[1])

    def steps(self, first: int, behind: int) -> Iterator[np.ndarray]:
        """Training rows [B] of the global steps `first` to `behind` - 1."""
        for step in range(first, behind):
            yield self.rows[step % len(self.rows)]

    def to_dict(self) -> dict[str, object]:
        return {
            "batch_plan": self.name,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
        }


Order = BatchPlan | ReplayedPlan


def order_story(order: Order) -> dict[str, object]:
    """What a run writes down of its order."""
    if isinstance(order, ReplayedPlan):
        return order.to_dict()
    first = order.epoch(0)
    return {
        **order.to_dict(),
        "rows_dropped_an_epoch": first.dropped,
        "siblings_in_first_epoch": first.siblings,
    }


def order_of(rows: PairedRows, teachers: Teachers, needs: Sequence[str], batch_size: int, seed: int) -> Order:
    """Which rows meet: drawn from the seed, or a stored plan's batches if a need exists only for them.

    Raises InputError for two plans, another batch size than the plan's, or a plan of rows that may not be
    trained on.
    """
    names = dict.fromkeys(filter(None, (plan_behind(teachers, need) for need in needs)))
    if not names:
        return BatchPlan(rows.video, batch_size, seed)
    if len(names) > 1:
        raise InputError(f"the teachers scored batches of different plans: {', '.join(names)}; take one")
    (name,) = names
    return replayed(teachers.cache.batch_plan(name), name, rows, batch_size)


def plan_behind(teachers: Teachers, need: str) -> str | None:
    """The batch plan for whose batches alone `need` is known; None if any batch will do."""
    name, role = split_role(need)
    teacher = teachers.in_role(role)
    if name.startswith(PLANNED_TOPK):
        return planned_topk_signal(teacher, name)[1]
    return teacher.pair_layout.plan if name == PAIR_SCORES and teacher.pair_layout.layout == PLANNED else None


def replayed(planned: PlannedBatches, name: str, rows: PairedRows, batch_size: int) -> ReplayedPlan:
    """The plan's batches as training rows; see `order_of` for what is refused."""
    if planned.batch_size != batch_size:
        raise InputError(
            f"the teacher scored the batches of plan {name!r}, of {planned.batch_size} pairs each, and knows "
            f"nothing of other batches; train with --batch-size {planned.batch_size}, not {batch_size}"
        )
    order = np.argsort(rows.text, kind="stable")
    place = np.minimum(np.searchsorted(rows.text, planned.text, sorter=order), len(order) - 1)
    found = order[place]
    wrong = (rows.text[found] != planned.text) | (rows.video[found] != planned.video)
    if wrong.any():
        raise InputError(
            f"plan {name!r} holds text row {planned.text[wrong][0]}, which is no training row here (another "
            "split, or its video did not decode); dump the teacher anew with a plan of this cache's rows"
        )
    return ReplayedPlan(found, planned.steps_per_epoch, name)


def require(teachers: Teachers, needs: Sequence[str]) -> None:
    """Refuse what the cache lacks.

    Raises UnknownNameError with the command that adds it, LeftOutError for what a partial copy came without,
    InputError for numbers that were not recorded, or that tell of other frames than the student's.
    """
    missing: dict[str, list[str]] = {}
    for need in needs:
        name, role = split_role(need)
        teacher = teachers.in_role(role)
        if name == LOGIT_SCALE:
            logit_scale(teacher)
        elif name == PIXELS and not teachers.has_pixels(teacher):
            missing.setdefault(teacher.name, []).append(name)
        elif name == PAIR_SCORES:
            if teacher.pair_layout.layout == NO_PAIRS:
                missing.setdefault(teacher.name, []).append(name)
        elif name == MATCH_PROBABILITY:
            teacher.require(MATCH_SIGNALS)
        elif name.startswith(PLANNED_TOPK):
            planned_topk_signal(teacher, name)
        elif name not in NOT_SIGNALS:
            signal = name.removeprefix(OF_CLASSES)
            if teacher.has_left_out(signal):
                teacher.require([signal])
            if signal not in (*teacher.signals, TEXT):
                missing.setdefault(teacher.name, []).append(signal)
    if missing:
        teacher_name, lacking = next(iter(missing.items()))
        raise UnknownNameError(lack(teachers.cache, teacher_name, lacking))
    require_same_frames(teachers, needs)


def lack(cache: Cache, teacher: str, signals: Sequence[str]) -> str:
    """What to say, and to run, if `teacher` did not store `signals`; UnknownNameError for a misspelt one."""
    stored = [name for name in signals if name not in NOT_SIGNALS]
    for name in stored:
        kind_of(name)
    of_towers = [name for name in stored if name == VISION_HEAD or name.startswith(LAYER)]
    known = len(stored) == len(of_towers) and PAIR_SCORES not in signals
    before = [name for name in cache.teacher(teacher).signals if name.startswith(LAYER)]
    if PIXELS in signals:  # which belong to the view, and it is not written again
        way, place, layers = "dump it anew", Path("ANOTHER_CACHE"), layer_options([*before, *of_towers])
        end = " --keep-pixels jpeg:90; or give the videos themselves: --videos DIR"
    else:  # what stands at the end of the tower comes with its layers
        way, place, end = "add it", Path("WHERE_YOU_PULLED_IT") if cache.location else cache.path, " --extend"
        layers = layer_options(before if of_towers == [VISION_HEAD] else of_towers)
    named = as_told(cache, teacher)
    if not known:
        way, named = f"{way}, by a teacher that emits it", "TEACHER"
        end = end.removesuffix(" --extend")
    return (
        f"teacher {teacher!r} in {cache.path.name} stores no {', '.join(signals)}, which the student or a "
        f"loss needs; {way}: python -m teacher_dump dump --dataset {cache.dataset['name']} --data DATA "
        f"--cache {place} --teacher {named}{layers}{end}"
    )


def layer_options(signals: Sequence[str]) -> str:
    """The option --layers for those of `signals` that are layers, nothing for none."""
    numbers = sorted({int(name.removeprefix(LAYER)) for name in signals if name.startswith(LAYER)})
    return f" --layers {','.join(map(str, numbers))}" if numbers else ""


def as_told(cache: Cache, teacher: str) -> str:
    """What a dump is told of a teacher of the cache, which may hold it under another name."""
    plugin = cache.teacher(teacher).identity.get(PLUGIN)
    return teacher if plugin is None else f"{plugin} --name {teacher}"


class TrainingStream:
    """Batches of the train split, equal for everybody who trains with the same seed.

    needs: as a Task names them. Every process holds its strip of the global batch. The tail of an epoch that
    fills no batch is dropped. order: which rows meet, from `order_of`. drawn: which rendition of a video is
    seen; None: the first. Raises UnknownNameError, naming the command that adds it, for what a teacher lacks,
    before the first batch.
    """

    def __init__(
        self,
        rows: PairedRows,
        teachers: Teachers,
        needs: Sequence[str],
        order: Order,
        drawn: DrawnRenditions | None = None,
    ) -> None:
        self.rows = rows
        self.teachers = teachers
        self.needs = tuple(needs)
        self.order = order
        self.drawn = drawn
        self.own = rank_strip(order.batch_size, rank(), world_size())
        require(teachers, needs)

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    @property
    def batch_size(self) -> int:
        return self.order.batch_size

    def steps(
        self, first: int, behind: int, siblings_are_negatives: bool, device: torch.device
    ) -> BatchFeeder[Step]:
        """The global steps `first` to `behind` - 1, read ahead; see `StepSource` for what a batch holds.

        A step holds until the next-but-one; close the feeder, or use it in a with statement.
        """
        source = StepSource(self.teachers, self.needs, self.own, siblings_are_negatives, device)
        return BatchFeeder(source, (), self._rows(first, behind), self.own.stop - self.own.start)

    def _rows(self, first: int, behind: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Videos and texts [B] of each step, and renditions, where they are drawn."""
        for step, some in enumerate(self.order.steps(first, behind), start=first):
            video, text = self.rows.video[some], self.rows.text[some]
            if self.drawn is None:
                yield video, text
            else:
                yield video, text, self.drawn.of(step // self.steps_per_epoch, video)
