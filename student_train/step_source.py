"""What a step needs of the cache, read and made ready by a feeder's threads while a step runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.errors import UnknownNameError
from store.pair_scores import PLANNED
from store.reader import TeacherReader
from store.signals import plan_of
from student_train.decoding import Decoder, one_rendition
from student_train.needs import (
    CLASS,
    FRAME_VALID,
    IGNORED_PAIR,
    LOGIT_SCALE,
    MATCH_KNOWN,
    MATCH_PROBABILITY,
    OF_CLASSES,
    PAIR_KNOWN,
    PAIR_SCORES,
    PIXELS,
    PLANNED_TOPK,
    RELEVANCE,
    TEXT,
    in_role,
    split_role,
)
from student_train.row_tensors import frame_distribution, logit_scale, of_classes
from student_train.rows import PairBlock
from student_train.teachers import Teachers

ReadPairs = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of videos and texts: a value of every pair, and which are known."""


@dataclass(frozen=True)
class Step:
    """The rows of one step: `video`, `text` [B] of the global batch; `batch`: this process's part of it."""

    video: np.ndarray
    text: np.ndarray
    batch: dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """`video`, `text` [B] of the global batch; `own_rendition` [b] of this process's; None: the first."""

    video: np.ndarray
    text: np.ndarray
    own_rendition: np.ndarray | None


@dataclass
class StepBuffers:
    """Where the rows of a step go: `stored` by teacher, `decoded` by signal (made when first used)."""

    stored: dict[str, Any]
    decoded: dict[tuple[str, str], Tensor] = field(default_factory=dict)


class StepSource:
    """Reads steps for a `store.feeder.BatchFeeder`: the batch comes out on `device`, decoded.

    own: this process's strip of the global batch. On a GPU the copies run in the thread's own stream, so they
    neither wait for the step that is computed nor hold it up.
    """

    def __init__(
        self,
        teachers: Teachers,
        needs: Sequence[str],
        own: slice,
        siblings_are_negatives: bool,
        device: torch.device,
    ) -> None:
        self.teachers = teachers
        self.needs = tuple(needs)
        self.own = own
        self.siblings_are_negatives = siblings_are_negatives
        self.device = device
        self._signals: dict[str, list[str]] = {}
        self._decoders: dict[tuple[str, str], Decoder] = {}
        for need in self.needs:
            name, role = split_role(need)
            teacher = teachers.in_role(role)
            if name in teacher.signals:
                self._decoders[teacher.name, name] = Decoder(teacher.codec(name), device)
                if name not in self._signals.setdefault(teacher.name, []):
                    self._signals[teacher.name].append(name)
        self._readers = {teacher.name: teacher for teacher in (teachers.main, *teachers.roles.values())}
        self._constants = {need: self._constant(need) for need in self.needs}

    def _constant(self, need: str) -> Any:
        """What every step holds alike, None if the need is none of these."""
        name, role = split_role(need)
        teacher = self.teachers.in_role(role)
        if name == LOGIT_SCALE:
            return logit_scale(teacher).to(self.device)
        if not name.startswith(OF_CLASSES):
            return None
        value = of_classes(teacher, name.removeprefix(OF_CLASSES), self.teachers.class_text)
        return value.to(self.device) if isinstance(value, Tensor) else value

    def buffers(self, signals: Sequence[str], rows: int) -> StepBuffers:
        return StepBuffers(
            {name: self._readers[name].buffers(of_it, rows) for name, of_it in self._signals.items()}
        )

    def batch(
        self,
        signals: Sequence[str],
        video_rows: np.ndarray,
        text_rows: np.ndarray,
        renditions: np.ndarray | None = None,
        out: StepBuffers | None = None,
    ) -> Step:
        """The step of the global rows `video_rows`, `text_rows` [B]; it holds until `out` is filled again.

        renditions: [B] of the videos; None: the first of each.
        """
        out = out or self.buffers(signals, len(video_rows[self.own]))
        rows = Rows(video_rows, text_rows, None if renditions is None else renditions[self.own])
        if self.device.type != "cuda":
            return Step(video_rows, text_rows, self._read(rows, out))
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            step = Step(video_rows, text_rows, self._read(rows, out))
        # The host's buffers are free, and the tensors complete, once the copies are done.
        stream.synchronize()
        return step

    def _read(self, rows: Rows, out: StepBuffers) -> dict[str, Any]:
        video, text = rows.video, rows.text
        own_video, own_text = video[self.own], text[self.own]
        stored = {
            name: self._readers[name].batch(of_it, own_video, own_text, out.stored[name])
            for name, of_it in self._signals.items()
        }
        decoded = {
            (teacher, name): self._decode((teacher, name), value, rows.own_rendition, out)
            for teacher, of_it in stored.items()
            for name, value in of_it.items()
        }
        batch: dict[str, Any] = {FRAME_VALID: self._frame_valid(self.teachers.main, rows)}
        for need in self.needs:
            name, role = split_role(need)
            teacher = self.teachers.in_role(role)
            if role:
                batch.setdefault(in_role(FRAME_VALID, role), self._frame_valid(teacher, rows))
            if self._constants[need] is not None:
                batch[need] = self._constants[need]
            elif name == RELEVANCE:
                valid = batch[in_role(FRAME_VALID, role)]
                batch[need] = frame_distribution(teacher, decoded[teacher.name, name], valid)
            elif name in teacher.signals:
                batch[need] = decoded[teacher.name, name]
            else:
                batch |= self._other(need, teacher, rows)
        if not self.siblings_are_negatives:
            batch |= self._siblings(video, text)
        return batch

    def _decode(
        self, key: tuple[str, str], value: Any, rendition: np.ndarray | None, out: StepBuffers
    ) -> Tensor:
        """On a CPU into memory that is used again: a fresh array costs as much as the decoding."""
        decoded = self._decoders[key](value, out.decoded.get(key), rendition)
        if self.device.type == "cpu" and decoded.dtype == torch.float32:
            out.decoded.setdefault(key, decoded)
        return decoded

    def _frame_valid(self, teacher: TeacherReader, rows: Rows) -> Tensor:
        rendition = 0 if rows.own_rendition is None else rows.own_rendition
        return torch.from_numpy(teacher.frame_valid[rows.video[self.own], rendition]).to(self.device)

    def _other(self, need: str, teacher: TeacherReader, rows: Rows) -> dict[str, Any]:
        """What is no signal of rows: scores of pairs, words, pixels, classes."""
        name, role = split_role(need)
        video, text = rows.video, rows.text
        own_video, own_text = video[self.own], text[self.own]
        if name == PAIR_SCORES:
            return self._pair_scores(need, in_role(PAIR_KNOWN, role), teacher, video, text)
        if name == MATCH_PROBABILITY:
            said, known = self._strips(teacher.match_probability, video, text)
            told = said.map(lambda strip: self._put(strip.nan_to_num(0.0)))
            return {need: told, in_role(MATCH_KNOWN, role): known.map(self._put)}
        if name == TEXT:
            return {need: [self.teachers.cache.texts[row] for row in own_text.tolist()]}
        if name == CLASS:
            numbers = self.teachers.class_numbers(own_video)
            return {need: torch.from_numpy(numbers).to(self.device)}
        if name == PIXELS:
            frames = one_rendition(self.teachers.pixels(teacher, own_video), rows.own_rendition)
            return {need: torch.from_numpy(frames).to(self.device)}
        assert name.startswith(PLANNED_TOPK)
        signal, plan = planned_topk_signal(teacher, name)
        step = self.teachers.cache.batch_plan(plan).replayed_step(video, text)
        assert step is not None
        value = Decoder(teacher.codec(signal), self.device)(teacher.read(signal, np.array([step])))
        return {need: value[0, self.own]}

    def _pair_scores(
        self, need: str, known_need: str, teacher: TeacherReader, video: np.ndarray, text: np.ndarray
    ) -> dict[str, Any]:
        if teacher.pair_layout.layout == PLANNED:
            whole = teacher.pair_scores(video, text)
            score, known = (self._block(torch.from_numpy(np.array(of))) for of in whole)
        else:
            score, known = self._strips(teacher.pair_scores, video, text)
        all_known = bool(known.rows.all() and known.columns.all())
        batch = {need: score.map(lambda strip: self._put(strip).float())}
        return batch if all_known else {**batch, known_need: known.map(self._put)}

    def _strips(self, read: ReadPairs, video: np.ndarray, text: np.ndarray) -> tuple[PairBlock, PairBlock]:
        """What `read` says of this process's strips, and what of it is known; no pair is gathered in vain."""
        if self._is_whole(video):
            score, known = (PairBlock.whole(torch.from_numpy(np.array(of))) for of in read(video, text))
            return score, known
        rows, columns = read(video[self.own], text), read(video, text[self.own])
        score, known = (
            PairBlock(torch.from_numpy(np.array(row)), torch.from_numpy(np.array(column)), self.own.start)
            for row, column in zip(rows, columns, strict=True)
        )
        return score, known

    def _is_whole(self, rows: Sized) -> bool:
        return self.own == slice(0, len(rows))

    def _siblings(self, video: np.ndarray, text: np.ndarray) -> dict[str, PairBlock]:
        """Neither positive nor negative: another caption of the video, another video of the class."""
        same = (video[:, np.newaxis] == video) | (text[:, np.newaxis] == text)
        np.fill_diagonal(same, False)
        return {IGNORED_PAIR: self._block(torch.from_numpy(same)).map(self._put)} if same.any() else {}

    def _block(self, whole_BB: Tensor) -> PairBlock:
        """This process's strips of a whole block."""
        if self._is_whole(whole_BB):
            return PairBlock.whole(whole_BB)
        return PairBlock(whole_BB[self.own], whole_BB[:, self.own], self.own.start)

    def _put(self, value: Tensor) -> Tensor:
        return value.to(self.device)


def planned_topk_signal(teacher: TeacherReader, need: str) -> tuple[str, str]:
    """("planned_topk/p/text_index", "p") of "planned_topk/text_index"; raises UnknownNameError."""
    part = need.removeprefix(PLANNED_TOPK)
    for name in teacher.signals:
        plan = plan_of(name)
        if name.startswith(PLANNED_TOPK) and name.endswith(f"/{part}") and plan is not None:
            return name, plan
    fused = " --fused-cls" if part.endswith("_fused_cls") else ""
    raise UnknownNameError(
        f"teacher {teacher.name!r} in {teacher.cache.path.name} stores no {need}; dump it with --plan "
        f"batch=...,epochs=...,k=...{fused}, or give another teacher that role: --role ROLE=TEACHER"
    )
