"""The demo's X-CLIP, from random weights."""

from __future__ import annotations

import torch

from teacher_dump.fitting.contrastive import XClipCourse
from teacher_dump.fitting.course import Course, FitRequest
from teacher_dump.fitting.demo_clips import DATA, DATASET, TOLD, prepare
from teacher_dump.fitting.settings import ADAMW, LAST, STRAIGHT_TO_COSINE, FitSettings
from teacher_dump.models.demo_world import KNOWN_TOKENS, shipped_weights, xclip_sizes
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.models.xclip_scores import XClip
from teacher_dump.teachers.demo import teacher_of

__all__ = ["DATA", "DATASET", "DEFAULTS", "OUT", "TOLD", "course", "prepare"]

OUT = shipped_weights("demo")
DEFAULTS = FitSettings(
    epochs=20,
    batch_size=128,
    learning_rate=2e-3,
    pretrained_learning_rate=2e-3,
    weight_decay=0.05,
    optimiser=ADAMW,
    schedule=STRAIGHT_TO_COSINE,
    warmup=60,
    keep=LAST,
    threads=2,
)


def course(request: FitRequest) -> Course:
    """The vocabulary is that of the dataset's captions."""
    vocabulary = CompactVocabulary.of(text.text for text in request.samples.texts if text.video >= 0)
    torch.manual_seed(request.settings.seed)
    teacher = teacher_of(XClip(xclip_sizes(vocabulary)), vocabulary, ())
    started_from = {"seed": request.settings.seed}
    return XClipCourse(teacher, request, started_from, {KNOWN_TOKENS: vocabulary.known_N})
