"""Rows of the cache as tensors, by need: what a student or a loss reads of videos, of texts, of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.errors import InputError
from store.reader import TeacherReader
from student_train.needs import (
    CLASS,
    FRAME_VALID,
    OF_CLASSES,
    PIXELS,
    RELEVANCE,
    TEXT,
    in_role,
    split_role,
)
from student_train.teachers import Teachers


def row_tensors(
    teachers: Teachers, needs: Sequence[str], axis: str, rows: np.ndarray, rendition: int = 0
) -> dict[str, Any]:
    """Those of `needs` that belong to videos ("V") or texts ("T"), of `rows` [N], under their own names.

    Signals in float32 of one rendition; with those of videos `frame_valid` [N, M] bool of each role; pixels,
    the class of a video, what is asked of all classes (V); the words of a text (T). Pair scores belong to
    neither.
    """
    found: dict[str, Any] = {}
    for need in needs:
        name, role = split_role(need)
        teacher = teachers.in_role(role)
        if axis == "V" and (name in (PIXELS, RELEVANCE) or row_axis(teacher, name) == "V"):
            found[in_role(FRAME_VALID, role)] = torch.from_numpy(teacher.frame_valid[rows, rendition])
        if (name, axis) == (PIXELS, "V"):
            found[need] = torch.from_numpy(teachers.pixels(teacher, rows)[:, rendition])
        elif (name, axis) == (CLASS, "V"):
            found[need] = torch.from_numpy(teachers.class_numbers(rows))
        elif name.startswith(OF_CLASSES) and axis == "V":
            found[need] = of_classes(teacher, name.removeprefix(OF_CLASSES), teachers.class_text)
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


def require_rows(teachers: Teachers, needs: Sequence[str], videos: np.ndarray, texts: np.ndarray) -> None:
    """Raise LeftOutError where a partial copy lacks what `needs` read of `videos` [N] and `texts` [N]."""
    rows = {"V": videos, "T": texts}
    for need in needs:
        name, role = split_role(need)
        teacher = teachers.in_role(role)
        if (axis := row_axis(teacher, name)) in rows:
            teacher.require_rows(name, rows[axis])


def whole_tensors(teachers: Teachers, needs: Sequence[str]) -> dict[str, Tensor]:
    """All rows of signals that tell of a teacher itself, under their own names."""
    found = {}
    for need in needs:
        name, role = split_role(need)
        teacher = teachers.in_role(role)
        found[need] = torch.from_numpy(teacher.read_decoded(name, np.arange(teacher.row_count(name))))
    return found


def row_axis(teacher: TeacherReader, name: str) -> str:
    """V or T for a signal of `teacher`, "" for other needs."""
    return teacher.signals[name].row_axis if name in teacher.signals else ""


def of_classes(teacher: TeacherReader, name: str, rows: np.ndarray) -> Any:
    """A text signal of class names, `rows` [P, C], float32 [P, C, ...]; of TEXT their words, P lists of C."""
    if name == TEXT:
        return [[teacher.cache.texts[row] for row in of_prompt] for of_prompt in rows.tolist()]
    return torch.from_numpy(teacher.read_decoded(name, rows.reshape(-1))).unflatten(0, rows.shape)


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
