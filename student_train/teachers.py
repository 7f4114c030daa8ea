"""The teachers that a training listens to: a main one, and others in roles that losses name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from store.reader import Cache, TeacherReader
from student_train.needs import MAIN, PIXELS, roles_of


@dataclass(frozen=True)
class Teachers:
    """main: whose signals a need without a role means. roles: teachers by role; the main's, if not filled."""

    main: TeacherReader
    roles: Mapping[str, TeacherReader] = field(default_factory=dict)

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
    def text_usable(self) -> np.ndarray:
        """[T] bool: every one of the teachers was dumped over the text."""
        usable = self.main.text_usable
        for teacher in self.roles.values():
            usable = usable & teacher.text_usable
        return usable

    def in_role(self, role: str) -> TeacherReader:
        return self.main if role == MAIN else self.roles.get(role, self.main)

    def sizes(self, needs: Iterable[str] = ()) -> dict[str, dict[str, int]]:
        """{need: {axis letter: length}} of every signal, with the roles that `needs` name, and of pixels.

        What `students.base` calls `sizes`.
        """
        found: dict[str, dict[str, int]] = {}
        for role in (MAIN, *roles_of(needs)):
            teacher = self.in_role(role)
            end = f"@{role}" if role else ""
            found |= {name + end: dict(spec.sizes) for name, spec in teacher.signals.items()}
            _, frames, rows, columns, channels = teacher.view.pixel_shape
            found[PIXELS + end] = {"M": frames, "Y": rows, "X": columns, "C": channels}
        return found
