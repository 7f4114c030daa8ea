"""Training rows from the cache: which may be used, in which order, and as which tensors.

A training row is a text row with its video. The order is a pure function of (seed, epoch), see
`store.batch_plan`. Rendition 0 of the view is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from store.batch_plan import BatchPlan
from store.errors import InputError
from store.reader import Cache, TeacherReader
from student_train.config import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from student_train.students.base import PAIR_SCORES

RELEVANCE = "frame_relevance"


@dataclass(frozen=True)
class PairedRows:
    """Texts with their videos. text, video: row numbers [N] int64, row i of each belongs together.

    left_out: texts of the split whose video did not decode.
    """

    text: np.ndarray
    video: np.ndarray
    left_out: int


def paired_rows(cache: Cache, teacher: TeacherReader, split_name: str) -> PairedRows:
    """The captions of a split whose video has signals.

    Raises UnknownNameError for a split that is not there, InputError if nothing is left of it.
    """
    text = cache.split(split_name).text
    text = text[cache.text_video[text] >= 0]
    video = cache.text_video[text]
    usable = teacher.video_usable[video]
    if not usable.any():
        raise InputError(f"split {split_name!r} of {cache.path.name} has no caption of a video that decoded")
    return PairedRows(text[usable], video[usable], int(np.count_nonzero(~usable)))


def training_rows(cache: Cache, teacher: TeacherReader) -> PairedRows:
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


class TrainingStream:
    """Batches of the train split, equal for everybody who trains with the same seed.

    needs: signals, and PAIR_SCORES, as a Task names them. The tail of an epoch that fills no batch is
    dropped. Raises UnknownNameError, naming the command that adds it, for a signal that the teacher
    lacks, before the first batch.
    """

    def __init__(
        self, rows: PairedRows, teacher: TeacherReader, needs: Sequence[str], batch_size: int, seed: int
    ) -> None:
        self.rows = rows
        self.teacher = teacher
        self.signals = [need for need in needs if need != PAIR_SCORES]
        self.scores_pairs = PAIR_SCORES in needs
        self.plan = BatchPlan(rows.video, batch_size, seed)
        teacher.require(self.signals)
        if self.scores_pairs:
            teacher.pair_scores(rows.video[:1], rows.text[:1])

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    def epoch(self, epoch: int, siblings_are_negatives: bool) -> Iterator[dict[str, Tensor]]:
        """The batches of one epoch, see `batch`."""
        for rows in self.plan.epoch(epoch).rows:
            yield self.batch(rows, siblings_are_negatives)

    def batch(self, rows: np.ndarray, siblings_are_negatives: bool) -> dict[str, Tensor]:
        """Tensors of the training rows `rows` [B]; row i of each belongs to pair i.

        The needed signals in float32 without R, `frame_valid` [B, M] bool, and with PAIR_SCORES
        `pair_score` [B, B] (video, text), with `pair_known` bool if not all are known. Siblings, other
        captions of the same video, are marked in `ignored_pair` [B, B] bool, if there are any and they
        are not to count as negatives.
        """
        video, text = self.rows.video[rows], self.rows.text[rows]
        batch = {
            **row_tensors(self.teacher, self.signals, "V", video),
            **row_tensors(self.teacher, self.signals, "T", text),
        }
        if RELEVANCE in batch:
            batch[RELEVANCE] = frame_distribution(self.teacher, batch[RELEVANCE], batch["frame_valid"])
        if self.scores_pairs:
            score, known = self.teacher.pair_scores(video, text)
            batch["pair_score"] = torch.from_numpy(score).float()
            if not known.all():
                batch["pair_known"] = torch.from_numpy(np.array(known))
        if not siblings_are_negatives and (siblings := self.teacher.cache.siblings(text)).any():
            batch["ignored_pair"] = torch.from_numpy(siblings)
        return batch


def row_tensors(
    teacher: TeacherReader, signals: Sequence[str], axis: str, rows: np.ndarray
) -> dict[str, Tensor]:
    """Those of `signals` whose rows are videos ("V") or texts ("T"), of `rows` [N], rendition 0, in float32.

    With the videos comes `frame_valid` [N, M] bool.
    """
    tensors = {"frame_valid": torch.from_numpy(teacher.frame_valid[rows, 0])} if axis == "V" else {}
    for name in signals:
        spec = teacher.signals[name]
        if spec.row_axis == axis:
            value = teacher.read_decoded(name, rows)
            tensors[name] = torch.from_numpy(value[:, 0] if "R" in spec.kind.axes else value)
    return tensors


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
