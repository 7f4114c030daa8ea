"""The demo's cross-encoder: the image tower of its X-CLIP as it is, text and fusion from random weights."""

from __future__ import annotations

import torch

from teacher_dump.fitting.course import Course, FitRequest
from teacher_dump.fitting.demo_clips import DATA, DATASET, TOLD, prepare
from teacher_dump.fitting.demo_towers import demo_towers
from teacher_dump.fitting.first_weights import normal_matrices
from teacher_dump.fitting.matching import CrossEncoderCourse, Matching
from teacher_dump.fitting.settings import ADAMW, STRAIGHT_TO_COSINE, FitSettings
from teacher_dump.models.albef_model import Albef
from teacher_dump.models.clip_as_timm import timm_names
from teacher_dump.models.demo_world import KNOWN_TOKENS, shipped_weights
from teacher_dump.teachers.demo_albef import NAME, sizes, teacher_of

__all__ = ["DATA", "DATASET", "DEFAULTS", "OUT", "TOLD", "course", "prepare"]

OUT = shipped_weights(NAME)
DEFAULTS = FitSettings(
    epochs=30,
    batch_size=128,
    learning_rate=2e-3,
    pretrained_learning_rate=0.0,
    weight_decay=0.05,
    optimiser=ADAMW,
    schedule=STRAIGHT_TO_COSINE,
    warmup=60,
    threads=2,
)
MATCHING = Matching(momentum=0.9, queue=1024, rerank=32, temperature_rate=0.02)
BERT_STD = 0.02


def course(request: FitRequest) -> Course:
    """checkpoint: weights of the demo's X-CLIP, by default the shipped ones."""
    towers, vocabulary, origin = demo_towers(request.checkpoint)
    torch.manual_seed(request.settings.seed)
    model = Albef(sizes(vocabulary))
    visual = {name.removeprefix("visual."): v for name, v in towers.items() if name.startswith("visual.")}
    with torch.no_grad():
        for part in (model.text_encoder, model.text_proj, model.itm_head, model.frame_position_embeddings):
            normal_matrices(part, BERT_STD)
        model.visual_encoder.load_state_dict(timm_names(visual))
        model.vision_proj.weight.copy_(visual["proj"].T)
        model.vision_proj.bias.zero_()
        model.text_encoder.embeddings.word_embeddings.weight.copy_(towers["token_embedding.weight"])
    teacher = teacher_of(model, vocabulary, ())
    return CrossEncoderCourse(teacher, request, origin, MATCHING, beside={KNOWN_TOKENS: vocabulary.known_N})
