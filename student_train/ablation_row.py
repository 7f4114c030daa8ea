"""A row of a paper's ablation, as a student lists it under ABLATION; see `student_train.ablation`."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class AblationRow:
    """losses: beside the task's own. paper: R@1 from text to video and from video to text, in percent."""

    label: str
    losses: tuple[str, ...]
    paper: tuple[float, float]

    @property
    def folder(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")
