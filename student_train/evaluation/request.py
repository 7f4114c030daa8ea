"""What was asked of a run, and whether its results answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from student_train.checkpoint import load_story
from student_train.configuration import Evaluation
from student_train.run_folder import RunFolder
from student_train.typed_fields import from_mapping, to_plain


@dataclass(frozen=True)
class Request:
    """Arms in the order of ARMS, seeds, learning rates to choose from, and which tables."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    evaluation: Evaluation = field(default_factory=Evaluation)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = to_plain(self)
        return found

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Request:
        return from_mapping(cls, fields, "request")


def is_current(run: RunFolder, request: Request) -> bool:
    """Whether results.json answers `request` and the students that it tells of are still there."""
    if not run.has_results():
        return False
    results = run.results()
    rate = results["learning_rate"]
    folders = [run.training(arm, rate, seed) for arm in request.arms for seed in request.seeds]
    return results["request"] == request.to_dict() and all(map(load_story, folders))
