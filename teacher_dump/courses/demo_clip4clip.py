"""The demo's CLIP4Clip, from the towers of its X-CLIP, as the official one starts from CLIP's.

The image tower stays as it is: at the official 1e-7 it hardly moves, and this way each frame is encoded once.
"""

from __future__ import annotations

from teacher_dump.fitting.contrastive import Clip4ClipCourse
from teacher_dump.fitting.course import Course, FitRequest
from teacher_dump.fitting.demo_clips import DATA, DATASET, TOLD, prepare
from teacher_dump.fitting.demo_towers import demo_towers
from teacher_dump.fitting.first_weights import start_from_clip
from teacher_dump.fitting.settings import ADAMW, STRAIGHT_TO_COSINE, FitSettings
from teacher_dump.models.clip4clip_model import Clip4Clip
from teacher_dump.models.demo_world import KNOWN_TOKENS, shipped_weights
from teacher_dump.teachers.demo_clip4clip import NAME, sizes, teacher_of

__all__ = ["DATA", "DATASET", "DEFAULTS", "OUT", "TOLD", "course", "prepare"]

OUT = shipped_weights(NAME)
DEFAULTS = FitSettings(
    epochs=30,
    batch_size=128,
    learning_rate=1e-3,
    pretrained_learning_rate=0.0,
    weight_decay=0.05,
    optimiser=ADAMW,
    schedule=STRAIGHT_TO_COSINE,
    threads=2,
)


def course(request: FitRequest) -> Course:
    """checkpoint: weights of the demo's X-CLIP, by default the shipped ones."""
    towers, vocabulary, origin = demo_towers(request.checkpoint)
    model = Clip4Clip(sizes(vocabulary))
    start_from_clip(model, towers, origin["file"])
    teacher = teacher_of(model, vocabulary, ())
    return Clip4ClipCourse(teacher, request, origin, {KNOWN_TOKENS: vocabulary.known_N})
