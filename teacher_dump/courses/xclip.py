"""X-CLIP on any dataset: from CLIP's weights, or on from a checkpoint of its own."""

from __future__ import annotations

from teacher_dump.checkpoints import load_strictly
from teacher_dump.fitting.contrastive import XClipCourse
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
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.xclip_scores import XClip, XClipSizes
from teacher_dump.teachers.xclip import teacher_of

DEFAULTS = FitSettings(
    epochs=5,
    batch_size=300,
    learning_rate=1e-4,
    pretrained_learning_rate=1e-7,
    weight_decay=0.2,
    frames=12,
    words=32,
)
"""xuguohai/X-CLIP `scripts/run_xclip_msrvtt_vit32.sh` (5 epochs of 300, lr 1e-4 times coef_lr 1e-3 for CLIP,
12 frames, 32 words); its trainer is CLIP4Clip's."""


def course(request: FitRequest) -> Course:
    """Raises MissingFileError without weights, InputError where they do not fit."""
    state, origin = first_state(request.checkpoint, "xclip", f"{CLIP_WEIGHTS}, or an X-CLIP checkpoint")
    settings = request.settings
    if is_of_video_model(state):
        model = XClip(XClipSizes.from_state(state))
        load_strictly(model, state, str(request.checkpoint))
    else:
        towers = TowerSizes.from_state(clip_state(state))
        model = XClip(
            XClipSizes(
                towers,
                settings.frames or 12,
                settings.words or 32,
                temporal_layers(towers),
                towers.context_length,
            )
        )
        start_from_clip(model, clip_state(state), str(request.checkpoint))
    return XClipCourse(teacher_of(model, settings.frames, ()), request, origin)
