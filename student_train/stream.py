"""Training rows from the cache: which may be used, in which order, and as which tensors.

A training row is a text row with its video. The order is a pure function of (seed, epoch), see
`store.batch_plan`. Rendition 0 of the view is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.batch_plan import BatchPlan, rank_strip
from store.errors import InputError
from store.reader import Cache, TeacherReader
from student_train.config import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from student_train.distributed import rank, world_size
from student_train.needs import (
    CLASS,
    FRAME_VALID,
    IGNORED_PAIR,
    LOGIT_SCALE,
    NOT_SIGNALS,
    OF_CLASSES,
    PAIR_KNOWN,
    PAIR_SCORES,
    PIXELS,
    RELEVANCE,
    TEXT,
    in_role,
    split_role,
)
from student_train.rows import PairBlock
from student_train.teachers import Teachers


@dataclass(frozen=True)
class PairedRows:
    """Texts with their videos. text, video: row numbers [N] int64, row i of each belongs together.

    left_out: texts of the split whose video did not decode.
    """

    text: np.ndarray
    video: np.ndarray
    left_out: int


def paired_rows(cache: Cache, teacher: TeacherReader | Teachers, split_name: str) -> PairedRows:
    """The captions of a split whose video has signals.

    Raises UnknownNameError for a split that is not there, InputError if nothing is left of it.
    """
    text = cache.split(split_name).text
    text = text[cache.text_video[text] >= 0]
    video = cache.text_video[text]
    usable = teacher.video_usable[video] & teacher.text_usable[text]
    if not usable.any():
        raise InputError(f"split {split_name!r} of {cache.path.name} has no caption of a video that decoded")
    return PairedRows(text[usable], video[usable], int(np.count_nonzero(~usable)))


def training_rows(cache: Cache, teacher: TeacherReader | Teachers) -> PairedRows:
    """The rows of the train split; raises InputError if one of them belongs to val or test as well."""
    rows = paired_rows(cache, teacher, TRAIN_SPLIT)
    for name in (VAL_SPLIT, TEST_SPLIT):
        if name not in cache.splits:
            continue
        held_out = cache.split(name)
        for kind, ours, theirs in (("text", rows.text, held_out.text), ("video", rows.video, held_out.video)):
            shared = np.intersect1d(ours, theirs)
            if len(shared):
                raise InputError(
                    f"{kind} row {shared[0]} of {cache.path.name} is in split {TRAIN_SPLIT!r} and in "
                    f"{name!r} ({len(shared)} such rows); training on it is refused, take it out of one"
                )
    return rows


@dataclass(frozen=True)
class Rows:
    """The rows of one step: `video`, `text` [B] of the global batch; `own`: this process's strip of it."""

    video: np.ndarray
    text: np.ndarray
    own: slice

    @property
    def own_video(self) -> np.ndarray:
        return self.video[self.own]

    @property
    def own_text(self) -> np.ndarray:
        return self.text[self.own]


class TrainingStream:
    """Batches of the train split, equal for everybody who trains with the same seed.

    needs: as a Task names them. Every process holds its strip of the global batch. The tail of an epoch that
    fills no batch is dropped. Raises UnknownNameError, naming the command that adds it, for a signal that a
    teacher lacks, before the first batch.
    """

    def __init__(
        self, rows: PairedRows, teachers: Teachers, needs: Sequence[str], batch_size: int, seed: int
    ) -> None:
        self.rows = rows
        self.teachers = teachers
        self.needs = tuple(needs)
        self.plan = BatchPlan(rows.video, batch_size, seed)
        self.own = rank_strip(batch_size, rank(), world_size())
        for need in needs:
            name, role = split_role(need)
            teacher = teachers.in_role(role)
            if name == PAIR_SCORES:
                teacher.pair_scores(rows.video[:1], rows.text[:1])
            elif name == PIXELS:
                _ = teacher.pixels
            elif name == LOGIT_SCALE:
                logit_scale(teacher)
            elif name not in NOT_SIGNALS:
                teacher.require([name.removeprefix(OF_CLASSES)])

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    def epoch(self, epoch: int, siblings_are_negatives: bool) -> Iterator[dict[str, Any]]:
        """The batches of one epoch, see `batch`."""
        for rows in self.plan.epoch(epoch).rows:
            yield self.batch(rows, siblings_are_negatives)

    def batch(self, rows: np.ndarray, siblings_are_negatives: bool) -> dict[str, Any]:
        """What is needed of the training rows `rows` [B], the global batch; row i of each belongs to pair i.

        Of this process's rows: the needed signals in float32 without R, `frame_valid` [b, M] bool, and with
        PAIR_SCORES the PairBlock of them, and `pair_known` if not all are known. Siblings, other captions of
        the same video, are marked in the PairBlock `ignored_pair`, if there are any and they are not to count
        as negatives.
        """
        step = Rows(self.rows.video[rows], self.rows.text[rows], self.own)
        batch: dict[str, Any] = {
            **row_tensors(self.teachers, self.needs, "V", step.own_video),
            **row_tensors(self.teachers, self.needs, "T", step.own_text),
        }
        for need in self.needs:
            name, role = split_role(need)
            teacher = self.teachers.in_role(role)
            if name == RELEVANCE:
                valid = batch[in_role(FRAME_VALID, role)]
                batch[need] = frame_distribution(teacher, batch[need], valid)
            elif name == PAIR_SCORES:
                scores, known = pair_strips(teacher, step)
                batch[need] = scores
                if known is not None:
                    batch[in_role(PAIR_KNOWN, role)] = known
            elif name == LOGIT_SCALE:
                batch[need] = logit_scale(teacher)
        if not siblings_are_negatives:
            same_video = step.video[:, np.newaxis] == step.video
            np.fill_diagonal(same_video, False)
            if same_video.any():
                batch[IGNORED_PAIR] = block_of(torch.from_numpy(same_video), step.own)
        return batch


def block_of(whole_BB: Tensor, own: slice) -> PairBlock:
    """The strips of a whole block."""
    if own == slice(0, len(whole_BB)):
        return PairBlock.whole(whole_BB)
    return PairBlock(whole_BB[own], whole_BB[:, own], own.start)


def pair_strips(teacher: TeacherReader, step: Rows) -> tuple[PairBlock, PairBlock | None]:
    """The teacher's scores in this process's strips, and which are known, None if all are."""
    score, known = teacher.pair_scores(step.video, step.text)
    scores = block_of(torch.from_numpy(score).float(), step.own)
    return scores, None if known.all() else block_of(torch.from_numpy(np.array(known)), step.own)


def row_tensors(
    teachers: Teachers, needs: Sequence[str], axis: str, rows: np.ndarray, rendition: int = 0
) -> dict[str, Any]:
    """Those of `needs` that belong to videos ("V") or texts ("T"), of `rows` [N], under their own names.

    Signals in float32 of one rendition; with those of videos `frame_valid` [N, M] bool of each role; pixels,
    the class of a video (V), the words of a text (T). Pair scores belong to neither.
    """
    found: dict[str, Any] = {}
    for need in needs:
        name, role = split_role(need)
        teacher = teachers.in_role(role)
        if axis == "V" and (name in (PIXELS, RELEVANCE) or row_axis(teacher, name) == "V"):
            found[in_role(FRAME_VALID, role)] = torch.from_numpy(teacher.frame_valid[rows, rendition])
        if (name, axis) == (PIXELS, "V"):
            found[need] = torch.from_numpy(teacher.pixels.read(rows)[:, rendition])
        elif (name, axis) == (CLASS, "V"):
            found[need] = torch.from_numpy(teachers.cache.video_class[rows])
        elif (name, axis) == (TEXT, "T"):
            found[need] = [teachers.cache.texts[row] for row in rows.tolist()]
        elif row_axis(teacher, name) == axis:
            value = teacher.read_decoded(name, rows)
            found[need] = torch.from_numpy(
                value[:, rendition] if "R" in teacher.signals[name].kind.axes else value
            )
    if axis == "V":
        found.setdefault(FRAME_VALID, torch.from_numpy(teachers.main.frame_valid[rows, rendition]))
    return found


def row_axis(teacher: TeacherReader, name: str) -> str:
    """V or T for a signal of `teacher`, "" for other needs."""
    return teacher.signals[name].row_axis if name in teacher.signals else ""


def logit_scale(teacher: TeacherReader) -> Tensor:
    """What multiplies the teacher's cosines, float32 []; raises InputError if it recorded none."""
    scale = teacher.identity.get("logit_scale")
    if not isinstance(scale, int | float):
        raise InputError(f"teacher {teacher.name!r} records no logit_scale in its identity; choose another")
    return torch.tensor(float(scale))


def frame_distribution(teacher: TeacherReader, score_NM: Tensor, valid_NM: Tensor) -> Tensor:
    """Frame relevance [N, M] whose rows sum to 1: softmax of raw scores over the recorded temperature.

    Places without a frame get 0. Raises InputError if the teacher recorded no temperature.
    """
    temperature = teacher.signals[RELEVANCE].attributes.get("temperature")
    if not temperature:
        raise InputError(
            f"teacher {teacher.name!r} stores {RELEVANCE} without its temperature, so it can't be read as "
            "weights; dump it again with one in the signal's attributes"
        )
    return (score_NM / temperature).masked_fill(~valid_NM, -torch.inf).softmax(-1)
