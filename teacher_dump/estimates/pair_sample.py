"""A block of pairs, scored for its time: features of a sample, repeated until they fill it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from store.layout import TeacherPlan
from teacher_dump.estimates.device_use import after
from teacher_dump.estimates.stopwatch import Spent, timed
from teacher_dump.teachers.base import Teacher


@dataclass(frozen=True)
class PairSample:
    """Signals of the sample: of_videos [B, R, M, ...], frame_valid [B, R, M], of_texts [B, ...].

    How long scoring takes does not depend on their values.
    """

    teacher: Teacher
    of_videos: Mapping[str, np.ndarray]
    frame_valid: np.ndarray
    of_texts: Mapping[str, np.ndarray]

    def videos(self, count: int) -> dict[str, Tensor]:
        names = self.teacher.pair_inputs or [n for n in self.of_videos if not n.startswith("vit_layers/")]
        found = {
            name: repeated(self.of_videos[name][:, 0], count) for name in names if name in self.of_videos
        }
        return {**found, "frame_valid": repeated(self.frame_valid[:, 0], count).bool()}

    def texts(self, count: int) -> dict[str, Tensor]:
        return {name: repeated(values, count) for name, values in self.of_texts.items()}

    def relevance(self, plan: TeacherPlan, count: int) -> Spent | None:
        """Of one text, where the plan holds relevance."""
        if "frame_relevance" not in plan.execution["phase_of"]:
            return None
        videos, texts = self.videos(count), self.texts(count)
        spent, _ = timed(lambda: after(self.teacher, self.teacher.relevance(videos, texts)))
        return spent.times(1 / count)

    def block(self, plan: TeacherPlan) -> Spent | None:
        """Of one block of pairs, where the teacher scores pairs."""
        if not any(spec.name == "video_text_logits" for spec in self.teacher.signals):
            return None
        count_V, count_T = block_shape(plan)
        videos, texts = self.videos(count_V), self.texts(count_T)
        return timed(lambda: self.teacher.score_pairs(videos, texts).float().cpu())[0]

    def chosen(self, plan: TeacherPlan) -> ChosenCosts | None:
        """Of one video with one text, and with as many as are scored at once; None without such phases."""
        if not {"planned", "topk_texts", "topk_videos"} & set(plan.execution["phase_of"].values()):
            return None
        most = max(block_shape(plan)[1], 2)
        one, many = self._call_s(1), self._call_s(most)
        pair_s = max(many - one, 0.0) / (most - 1)
        return ChosenCosts(max(one - pair_s, 0.0), pair_s)

    def _call_s(self, texts: int) -> float:
        video, of_texts = self.videos(1), self.texts(texts)
        score = self.teacher.score_pairs if self.teacher.fused_width is None else self.teacher.match_pairs
        return timed(lambda: after(self.teacher, score(video, of_texts)))[0].clock_s


@dataclass(frozen=True)
class ChosenCosts:
    """What pairs that somebody chose cost: a call for each video, and each of its texts in it."""

    call_s: float
    pair_s: float


def block_shape(plan: TeacherPlan) -> tuple[int, int]:
    """Videos and texts that are scored in one call."""
    told = plan.execution["pairs"]
    return told.get("block_videos", 1), told.get("block_texts", 1)


def repeated(values: np.ndarray, count: int) -> Tensor:
    return torch.from_numpy(np.resize(values, (count, *values.shape[1:])))
