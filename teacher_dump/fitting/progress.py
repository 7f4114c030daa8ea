"""Where a fit stands, and the file that lets an interrupted one go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from store.identity import require_same
from teacher_dump.fitting.course import Course
from teacher_dump.fitting.settings import BEST, LAST
from teacher_dump.weights_file import told_by, write_weights

RESUME_SUFFIX = ".resume"
MODEL, MEMORY, OPTIMISER, KEPT = "model.", "memory.", "optimiser.", "kept."


class Progress:
    """Where a fit stands after each epoch: history, the best weights so far, and the file that keeps both.

    path: of the result; the resume file lies beside it until the fit is over.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], keep: str = BEST) -> None:
        self.path = path
        self.keep = keep
        self.identity = identity
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = -1

    @property
    def resume_path(self) -> Path:
        return self.path.with_name(self.path.name + RESUME_SUFFIX)

    def take(self, metrics: dict[str, float], weights: Mapping[str, Tensor]) -> None:
        """Add an epoch; its weights are kept if none before was as good, if nothing tells, or always
        with keep="last"."""
        scores = [epoch.get("score", -1.0) for epoch in self.history]
        self.history.append(metrics)
        is_better = metrics.get("score", 0.0) > max(scores, default=-1.0)
        if self.keep == LAST or "score" not in metrics or is_better:
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
            self.best_epoch = len(self.history) - 1

    def save(self, course: Course, optimiser: torch.optim.Optimizer) -> None:
        """Write all that a resume needs, aside first."""
        state = optimiser.state_dict()["state"]
        tensors = {
            **_below(MODEL, course.model.state_dict()),
            **_below(MEMORY, course.memory.state_dict() if course.memory else {}),
            **_below(KEPT, self.best),
            **{
                f"{OPTIMISER}{number}.{name}": torch.as_tensor(value)
                for number, of_one in state.items()
                for name, value in of_one.items()
                if value is not None
            },
        }
        told = {"identity": self.identity, "history": self.history, "best_epoch": self.best_epoch}
        write_weights(self.resume_path, tensors, told)

    def resume(self, course: Course, optimiser: torch.optim.Optimizer) -> None:
        """Take up what an interrupted fit left; nothing where there is none. Raises IdentityError if it was
        another fit's."""
        if not self.resume_path.exists():
            return
        told = told_by(self.resume_path)
        way_out = f"delete {self.resume_path.name} to begin anew, or name another --out"
        require_same(told["identity"], json.loads(json.dumps(self.identity)), f"{self.resume_path}", way_out)
        tensors = load_file(self.resume_path)
        course.model.load_state_dict(_of(MODEL, tensors))
        if course.memory is not None:
            course.memory.load_state_dict(_of(MEMORY, tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _of(OPTIMISER, tensors).items():
            number, _, part = name.partition(".")
            state.setdefault(int(number), {})[part] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        self.history, self.best_epoch = told["history"], told["best_epoch"]
        self.best = _of(KEPT, tensors)

    def finish(self, told: Mapping[str, Any]) -> None:
        """Write the best weights; what was only for a resume goes."""
        write_weights(self.path, self.best, told)
        self.resume_path.unlink(missing_ok=True)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
