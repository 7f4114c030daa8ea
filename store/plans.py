"""Batch plans that are stored: E epochs of steps, drawn before a teacher scores exactly what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from store.batch_plan import BatchPlan
from store.errors import DamagedCacheError

NOWHERE = -1


@dataclass(frozen=True)
class PlannedBatches:
    """`video` and `text` [S, B] int64: row numbers of each step's pairs, epoch after epoch.

    split: whose rows they are. seed: of the order. epochs: E; S = E x steps of an epoch. A text
    stands at most once in an epoch, and the tail that fills no batch is left out.
    """

    split: str
    seed: int
    epochs: int
    video: np.ndarray
    text: np.ndarray

    @classmethod
    def draw(
        cls, split: str, video: np.ndarray, text: np.ndarray, batch_size: int, epochs: int, seed: int
    ) -> PlannedBatches:
        """E epochs over the training rows (`video` [N], `text` [N]), as `BatchPlan` orders them.

        Raises InputError if not even one batch can be filled.
        """
        plan = BatchPlan(video, batch_size, seed)
        rows = np.concatenate([plan.epoch(epoch).rows for epoch in range(epochs)])
        return cls(split, seed, epochs, video[rows], text[rows])

    @property
    def steps(self) -> int:
        return len(self.text)

    @property
    def batch_size(self) -> int:
        return int(self.text.shape[1])

    @property
    def steps_per_epoch(self) -> int:
        return self.steps // self.epochs

    def to_dict(self) -> dict[str, Any]:
        """What identifies the plan; the rows lie beside it as arrays."""
        return {
            "split": self.split,
            "seed": self.seed,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "steps": self.steps,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], video: np.ndarray, text: np.ndarray) -> PlannedBatches:
        """Raises DamagedCacheError if the arrays are not those that `fields` tell of."""
        try:
            found = cls(fields["split"], fields["seed"], fields["epochs"], video, text)
            sound = (
                video.shape == text.shape
                and text.ndim == 2
                and found.epochs > 0
                and found.steps % found.epochs == 0
                and found.to_dict() == fields
            )
        except (KeyError, TypeError, IndexError):
            sound = False
        if not sound:
            raise DamagedCacheError("a batch plan's arrays do not fit its attributes; pull it again")
        return found

    @cached_property
    def _step_of_text(self) -> np.ndarray:
        """[E, T + 1]: the step in which each epoch has a text row, -1 if in none; T is the largest row."""
        steps = np.full((self.epochs, int(self.text.max(initial=-1)) + 2), NOWHERE, dtype=np.int64)
        for step, rows in enumerate(self.text):
            steps[step // self.steps_per_epoch, rows] = step
        return steps

    def _steps(self, text_rows: np.ndarray) -> np.ndarray:
        return self._step_of_text[:, np.minimum(text_rows, self._step_of_text.shape[1] - 1)]

    def replayed_step(self, video_rows: np.ndarray, text_rows: np.ndarray) -> int | None:
        """The step whose rows are exactly these, in this order; None if there is none."""
        if len(text_rows) != self.batch_size or len(video_rows) != self.batch_size:
            return None
        for step in self._steps(text_rows[:1])[:, 0].tolist():
            if (
                step != NOWHERE
                and (self.text[step] == text_rows).all()
                and (self.video[step] == video_rows).all()
            ):
                return int(step)
        return None

    def steps_of(self, text_rows: np.ndarray) -> list[int]:
        """Every step that holds one of `text_rows` [N]; those that hold all of them come first."""
        steps = self._steps(text_rows)
        together = steps[(steps == steps[:, :1]).all(axis=1), 0]
        ordered = dict.fromkeys([*together.tolist(), *np.unique(steps).tolist()])
        return [step for step in ordered if step != NOWHERE]
