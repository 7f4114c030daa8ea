"""The learned prompt of the demo's motions."""

from __future__ import annotations

from dataclasses import replace

from teacher_dump.fitting.course import Course, FitRequest
from teacher_dump.fitting.demo_clips import DATA, DATASET, TOLD, prepare
from teacher_dump.fitting.prompt_learning import DEFAULTS as COOP
from teacher_dump.fitting.prompt_learning import PromptCourse
from teacher_dump.teachers import demo_classes
from teacher_dump.teachers.base import TeacherOptions

__all__ = ["DATA", "DATASET", "DEFAULTS", "OPTIONS", "TOLD", "course", "prepare"]

OPTIONS = ("context",)
DEFAULTS = replace(COOP, learning_rate=0.05, warmup=0.1, threads=2)


def course(request: FitRequest) -> Course:
    """checkpoint: weights of the demo's X-CLIP, by default the shipped ones."""
    teacher = demo_classes.load(TeacherOptions(checkpoint=request.checkpoint))
    return PromptCourse(teacher, request, teacher.identity())
