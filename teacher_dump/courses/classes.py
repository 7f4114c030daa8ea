"""The learned prompt of `classes`, on any dataset of classes, before frozen towers of open_clip."""

from __future__ import annotations

from teacher_dump.fitting.course import Course, FitRequest
from teacher_dump.fitting.prompt_learning import DEFAULTS, PromptCourse
from teacher_dump.teachers import classes
from teacher_dump.teachers.base import TeacherOptions

__all__ = ["DEFAULTS", "OPTIONS", "course"]

OPTIONS = ("architecture", "pretrained", "context", "frames")


def course(request: FitRequest) -> Course:
    """options "architecture" and "pretrained", or the checkpoint, name the towers."""
    options = request.options or {}
    teacher = classes.load(
        TeacherOptions(
            checkpoint=request.checkpoint,
            architecture=options.get("architecture"),
            pretrained=options.get("pretrained"),
            frames=request.settings.frames,
        )
    )
    named = {"file": request.checkpoint.name} if request.checkpoint else {}
    return PromptCourse(teacher, request, {**named, **teacher.identity()})  # type: ignore[arg-type]
