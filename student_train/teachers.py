"""The teachers that a training listens to: a main one, and others in roles that losses name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from store.calibration import PROJECTION_MEAN
from store.errors import InputError
from store.inputs.view import View
from store.reader import Cache, TeacherReader
from store.signals import FRAME, TOKEN, kind_of
from student_train.needs import (
    CLASS,
    MAIN,
    NOT_SIGNALS,
    OF_CLASSES,
    PIXELS,
    PLANNED_TOPK,
    roles_of,
    split_role,
)


class Frames(Protocol):
    """Where the frames of a view are read from: what the cache keeps, or `store.decoded_frames`."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, R, M, Y, X, 3] of the videos `rows` [N]; a place without a frame holds zeros."""


@dataclass(frozen=True)
class Teachers:
    """main: whose signals a need without a role means. roles: teachers by role; the main's, if not filled.

    classes: numbers of the dataset's classes that there are for these teachers, counted anew from 0; None:
    all. frames: by the name of a view, where its frames are read from in place of what the cache keeps.
    """

    main: TeacherReader
    roles: Mapping[str, TeacherReader] = field(default_factory=dict)
    classes: tuple[int, ...] | None = None
    frames: Mapping[str, Frames] = field(default_factory=dict)

    @property
    def cache(self) -> Cache:
        return self.main.cache

    @property
    def video_usable(self) -> np.ndarray:
        """[V] bool: the video decoded for every one of the teachers."""
        usable = self.main.video_usable
        for teacher in self.roles.values():
            usable = usable & teacher.video_usable
        return usable

    @property
    def class_text(self) -> np.ndarray:
        """[P, C] int64: the text row of every class in every prompt."""
        prompts = max(len(self.cache.dataset["prompts"]), 1)
        rows = np.flatnonzero(self.cache.text_video < 0).reshape(prompts, -1)
        if self.classes is None:
            return rows
        if not self.classes or not 0 <= min(self.classes) <= max(self.classes) < rows.shape[1]:
            raise InputError(
                f"{self.cache.path.name} has {rows.shape[1]} classes, numbered from 0; got {self.classes}"
            )
        return rows[:, list(self.classes)]

    @property
    def class_names(self) -> list[str]:
        """Of every class its words, without those that the dataset's first prompt puts around them."""
        prompts = self.cache.dataset["prompts"]
        before, _, after = (prompts[0] if prompts else "{}").partition("{}")
        words = [self.cache.texts[row] for row in self.class_text[0]]
        return [word.removeprefix(before).removesuffix(after) for word in words]

    def class_numbers(self, video_rows: np.ndarray) -> np.ndarray:
        """[N] int64: the class of each video, a column of `class_text`; -1 for one of another class."""
        rows = self.class_text
        number = np.full(len(self.cache.text_video) + 1, -1)
        number[rows.reshape(-1)] = np.tile(np.arange(rows.shape[1]), len(rows))
        found: np.ndarray = number[self.cache.video_class[video_rows]]
        return found

    @property
    def text_usable(self) -> np.ndarray:
        """[T] bool: every one of the teachers was dumped over the text."""
        usable = self.main.text_usable
        for teacher in self.roles.values():
            usable = usable & teacher.text_usable
        return usable

    def in_role(self, role: str) -> TeacherReader:
        return self.main if role == MAIN else self.roles.get(role, self.main)

    def has_pixels(self, teacher: TeacherReader) -> bool:
        """Whether there are frames of the view of `teacher`."""
        return teacher.view.name in self.frames or teacher.kept_pixels is not None

    def pixels(self, teacher: TeacherReader, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, R, M, Y, X, 3] of the videos `rows` [N], as `teacher` saw them.

        Raises UnknownNameError if there are none.
        """
        decoded = self.frames.get(teacher.view.name)
        return (teacher.pixels if decoded is None else decoded).read(rows)

    def sizes(self, needs: Sequence[str] = ()) -> dict[str, dict[str, int]]:
        """{need: {axis letter: length}} of every signal, with the roles that `needs` name, and of pixels.

        Of what `needs` ask of all classes, also their number C and that of prompts P. What `students.base`
        calls `sizes`.
        """
        found: dict[str, dict[str, int]] = {}
        for role in (MAIN, *roles_of(needs)):
            teacher = self.in_role(role)
            end = f"@{role}" if role else ""
            found |= {name + end: self._sizes_of(teacher, name) for name in teacher.signals}
            _, frames, rows, columns, channels = teacher.view.pixel_shape
            found[PIXELS + end] = {"M": frames, "Y": rows, "X": columns, "C": channels}
        prompts, classes = self.class_text.shape
        found[CLASS] = {"C": classes}
        for need in needs:
            name, role = split_role(need)
            signals = self.in_role(role).signals
            if name.startswith(OF_CLASSES) and name.removeprefix(OF_CLASSES) in signals:
                of_rows = dict(signals[name.removeprefix(OF_CLASSES)].sizes)
                found[need] = {"P": prompts, "C": classes, **of_rows}
        return found

    @staticmethod
    def _sizes_of(teacher: TeacherReader, name: str) -> dict[str, int]:
        """Of a signal as it is handed out: D is the teacher's own where a projection of it is stored."""
        spec = teacher.signals[name]
        projected = spec.reduction.width is not None
        width = {"D": len(teacher.codec(name).fitted[PROJECTION_MEAN])} if projected else {}
        return {**spec.sizes, **width}


def require_same_frames(teachers: Teachers, needs: Sequence[str]) -> None:
    """Raise InputError for a need in a role that tells of frames, or of places in them, which are not those
    of the main teacher: the student would be taught by labels of frames that it does not see."""
    for need in needs:
        name, role = split_role(need)
        told = granularity(name)
        if not role or told not in (FRAME, TOKEN):
            continue
        ours, theirs = teachers.main.view, teachers.in_role(role).view
        if frames_of(ours, told) != frames_of(theirs, told):
            raise InputError(
                f"{need} tells of frames of the view {theirs.name!r}, the student learns from those of "
                f"{ours.name!r}; leave out that loss, or dump one of the teachers over the other's view"
            )


def granularity(name: str) -> str | None:
    """What a number of the need `name` is about, one of `store.signals`; None if it is about no frames."""
    if name == PIXELS:
        return TOKEN
    if name in NOT_SIGNALS or name.startswith((PLANNED_TOPK, OF_CLASSES)):
        return None
    return kind_of(name).granularity


def frames_of(view: View, told: str) -> View:
    """What decides which frames a view shows, and for what is told of places also how large."""
    return replace(view, name="", size=view.size if told == TOKEN else 1)
