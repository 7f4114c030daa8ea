"""ALBEF's retrieval fine-tuning on any dataset: from one of its checkpoints, of pre-training or retrieval."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from store.errors import InputError
from teacher_dump.checkpoints import load_strictly
from teacher_dump.fitting.course import Course, FitRequest
from teacher_dump.fitting.first_weights import first_state, resized_positions
from teacher_dump.fitting.matching import CrossEncoderCourse, Matching
from teacher_dump.fitting.settings import ADAMW, COSINE_BY_EPOCH, FitSettings
from teacher_dump.models.albef_model import Albef, AlbefSizes, own_state
from teacher_dump.models.wordpiece import read_vocabulary, wordpiece_tokenizer
from teacher_dump.teachers.albef import WORDS, AlbefTeacher

DEFAULTS = FitSettings(
    epochs=10,
    batch_size=32,
    learning_rate=1e-5,
    pretrained_learning_rate=1e-5,
    weight_decay=0.02,
    optimiser=ADAMW,
    betas=(0.9, 0.999),
    schedule=COSINE_BY_EPOCH,
    warmup=0.0,
    floor=0.1,
    clip_norm=0.0,
    words=WORDS,
)
"""salesforce/ALBEF `configs/Retrieval_flickr.yaml`: 10 epochs, 32 a GPU (on 8), AdamW 1e-5 to 1e-6, decay
0.02; no clipping (`Retrieval.py`); 30 words (`dataset/caption_dataset.py`). Its crops, flips and RandAugment
are left out: frames are those of the view."""
OPTIONS = ("vocabulary", "image_size", "queue", "momentum", "alpha", "rerank")
IMAGE_SIZE = 384
POSITIONS = "visual_encoder.pos_embed"


def course(request: FitRequest) -> Course:
    """Raises MissingFileError without weights or vocabulary, InputError where they do not fit.

    option "image_size": pixels of a side; the positions of another size are interpolated. Momentum copies
    that the file has are gone on with.
    """
    if request.settings.frames not in (None, 1):
        raise InputError("ALBEF sees one frame, the middle one; leave out --frames")
    state, origin = first_state(request.checkpoint, "albef", "a .pth of github.com/salesforce/ALBEF")
    options = dict(request.options or {})
    size = options.pop("image_size", None) or IMAGE_SIZE
    where = str(request.checkpoint)
    model = loaded(own_state(state), size, where)
    has_copies = any(name.startswith("visual_encoder_m.") for name in state)
    slow = loaded(own_state(state, momentum=True), size, where) if has_copies else None
    vocabulary = read_vocabulary(request.vocabulary, request.checkpoint)
    if len(vocabulary) != model.sizes.text.vocabulary:
        raise InputError(
            f"the vocabulary has {len(vocabulary)} tokens, {where} was trained with "
            f"{model.sizes.text.vocabulary}; give its own by --vocabulary"
        )
    words = request.settings.words or WORDS
    teacher = AlbefTeacher(model, wordpiece_tokenizer(vocabulary, words), ())
    matching = Matching(**{name: value for name, value in options.items() if value is not None})
    return CrossEncoderCourse(teacher, request, origin, matching, slow)


def loaded(state: dict[str, Tensor], size: int, where: str) -> Albef:
    """The model at `size` pixels with the weights `state` of perhaps another size."""
    sizes = replace(AlbefSizes.from_state(state), image_size=size)
    model = Albef(sizes)
    load_strictly(model, state | {POSITIONS: resized_positions(state[POSITIONS], sizes.tokens - 1)}, where)
    return model
