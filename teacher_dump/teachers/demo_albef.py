"""A small real cross-encoder for the demo: ALBEF's shape over CLIP's image tower, eight frames a video.

One frame, as the official model sees, would mostly show something else than the caption tells: the object in
focus is there for a part of the clip. So the fusion layers look at the tokens of all frames, as BLIP's do.
"""

from __future__ import annotations

from dataclasses import replace

from teacher_dump.checkpoints import load_strictly, seeded
from teacher_dump.models import demo_world
from teacher_dump.models.albef_model import Albef, AlbefSizes, own_state
from teacher_dump.models.bert_fusion import BertSizes
from teacher_dump.models.demo_world import FRAMES, HEAD_WIDTH, VIEW, WORDS, padded_words, tokenizer_of
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.teachers.albef import AlbefTeacher
from teacher_dump.teachers.base import TeacherCard, TeacherOptions

NAME = "demo_albef"
CARD = TeacherCard(
    model="ALBEF-shaped cross-encoder of 0.4 million parameters for the demo",
    weights=f"in the package; python -m teacher_dump fit {NAME} makes them again",
    licence=demo_world.LICENCE,
)


def sizes(vocabulary: CompactVocabulary) -> AlbefSizes:
    """Three image blocks as the demo's towers have them, two text layers, two of fusion."""
    towers = demo_world.tower_sizes(vocabulary)
    width = towers.vision_width
    text = BertSizes(vocabulary.size, width, 4, 2, width // HEAD_WIDTH, 4 * width, WORDS, width)
    return AlbefSizes(
        towers.image_size, towers.patch_size, width, towers.vision_layers, width // HEAD_WIDTH, 4 * width,
        text, towers.embed_dim, frames=FRAMES, clip_vision=True,
    )  # fmt: skip


def teacher_of(model: Albef, vocabulary: CompactVocabulary, layers: tuple[int, ...] | None) -> AlbefTeacher:
    """Its [CLS] is CLIP's start token; the words after it are read both ways."""
    tokenizer = replace(tokenizer_of(vocabulary), valid_of=padded_words)
    return AlbefTeacher(model, tokenizer, layers, name=NAME, view=VIEW)


def load(options: TeacherOptions) -> FrozenTeacher:
    """The shipped weights, or those that a fit of one's own wrote to `checkpoint`."""
    state, vocabulary, path = demo_world.read_fitted(NAME, options)
    model = Albef(sizes(vocabulary))
    load_strictly(model, own_state(state), str(path))
    return teacher_of(model, vocabulary, options.layers).run_as(options)


def official(options: TeacherOptions) -> AlbefTeacher:
    """As shipped, at random, with the words of one caption."""
    options.refuse(NAME, "frames", "words")
    return tiny(0, options.layers)


def tiny(seed: int, layers: tuple[int, ...] | None = None) -> AlbefTeacher:
    """The same size, at random: it is tiny already."""
    vocabulary = CompactVocabulary.of([demo_world.CAPTION])
    return teacher_of(seeded(seed, lambda: Albef(sizes(vocabulary))), vocabulary, layers)
