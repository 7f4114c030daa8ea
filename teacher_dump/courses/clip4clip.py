"""CLIP4Clip, seqTransf, on any dataset: from CLIP's weights, or on from a checkpoint of its own."""

from __future__ import annotations

from teacher_dump.checkpoints import load_strictly
from teacher_dump.fitting.contrastive import Clip4ClipCourse
from teacher_dump.fitting.course import Course, FitRequest
from teacher_dump.fitting.first_weights import (
    CLIP_WEIGHTS,
    clip_state,
    first_state,
    is_of_video_model,
    start_from_clip,
    temporal_layers,
)
from teacher_dump.fitting.settings import FitSettings
from teacher_dump.models.clip4clip_model import Clip4Clip, Clip4ClipSizes
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.teachers.clip4clip import FRAMES, WORDS, teacher_of

DEFAULTS = FitSettings(
    epochs=5,
    batch_size=128,
    learning_rate=1e-4,
    pretrained_learning_rate=1e-7,
    weight_decay=0.2,
    frames=FRAMES,
    words=WORDS,
)
"""ArrowLuo/CLIP4Clip README (MSR-VTT: 5 epochs of 128, lr 1e-4 times coef_lr 1e-3 for CLIP, 12 frames, 32
words) and `main_task_retrieval.py` (warm-up 0.1, cosine, betas 0.9 and 0.98, decay 0.2, all gradients clipped
to 1)."""


def course(request: FitRequest) -> Course:
    """Raises MissingFileError without weights, InputError where they do not fit."""
    state, origin = first_state(request.checkpoint, "clip4clip", f"{CLIP_WEIGHTS}, or a CLIP4Clip checkpoint")
    if is_of_video_model(state):
        model = Clip4Clip(Clip4ClipSizes.from_state(state))
        load_strictly(model, state, str(request.checkpoint))
    else:
        towers = TowerSizes.from_state(clip_state(state))
        model = Clip4Clip(Clip4ClipSizes(towers, temporal_layers(towers), towers.context_length))
        start_from_clip(model, clip_state(state), str(request.checkpoint))
    settings = request.settings
    teacher = teacher_of(model, settings.frames or FRAMES, (), settings.words or WORDS)
    return Clip4ClipCourse(teacher, request, origin)
