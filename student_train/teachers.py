"""The teachers that a training listens to: a main one, and others in roles that losses name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from store.errors import InputError
from store.reader import Cache, TeacherReader
from student_train.needs import CLASS, MAIN, OF_CLASSES, PIXELS, roles_of, split_role


@dataclass(frozen=True)
class Teachers:
    """main: whose signals a need without a role means. roles: teachers by role; the main's, if not filled.

    classes: numbers of the dataset's classes that there are for these teachers, counted anew from 0; None:
    all.
    """

    main: TeacherReader
    roles: Mapping[str, TeacherReader] = field(default_factory=dict)
    classes: tuple[int, ...] | None = None

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

    def sizes(self, needs: Sequence[str] = ()) -> dict[str, dict[str, int]]:
        """{need: {axis letter: length}} of every signal, with the roles that `needs` name, and of pixels.

        Of what `needs` ask of all classes, also their number C and that of prompts P. What `students.base`
        calls `sizes`.
        """
        found: dict[str, dict[str, int]] = {}
        for role in (MAIN, *roles_of(needs)):
            teacher = self.in_role(role)
            end = f"@{role}" if role else ""
            found |= {name + end: dict(spec.sizes) for name, spec in teacher.signals.items()}
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
