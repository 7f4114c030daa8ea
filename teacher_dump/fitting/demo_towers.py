"""The towers of the demo's X-CLIP, from which its other teachers start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from teacher_dump.models.clip_towers import towers_of
from teacher_dump.models.demo_world import read_fitted
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.teachers.base import TeacherOptions
from teacher_dump.weights_file import file_digest


def demo_towers(
    checkpoint: Path | None,
) -> tuple[dict[str, Tensor], CompactVocabulary, dict[str, Any]]:
    """Their state, vocabulary, and file and digest: the shipped weights, or `checkpoint`'s."""
    state, vocabulary, path = read_fitted("demo", TeacherOptions(checkpoint=checkpoint))
    return towers_of(state), vocabulary, {"file": path.name, "sha256": file_digest(path)}
