"""CLIP4Clip (seqTransf) on the demo's towers: frames before and after time, and every layer."""

from __future__ import annotations

from teacher_dump.checkpoints import load_strictly, seeded
from teacher_dump.models import demo_world
from teacher_dump.models.clip4clip_model import Clip4Clip, Clip4ClipSizes
from teacher_dump.models.demo_world import VIEW, WORDS, tokenizer_of, tower_sizes
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.teachers.base import TeacherCard, TeacherOptions
from teacher_dump.teachers.clip4clip import Clip4ClipTeacher

NAME = "demo_clip4clip"
TEMPORAL_LAYERS = 2
CARD = TeacherCard(
    model="CLIP4Clip (seqTransf) of 0.3 million parameters for the demo",
    weights=f"in the package; python -m teacher_dump fit {NAME} makes them again",
    licence=demo_world.LICENCE,
)


def sizes(vocabulary: CompactVocabulary) -> Clip4ClipSizes:
    """As many positions over time as CLIP has for words, like the official ones."""
    return Clip4ClipSizes(tower_sizes(vocabulary), TEMPORAL_LAYERS, WORDS)


def teacher_of(
    model: Clip4Clip, vocabulary: CompactVocabulary, layers: tuple[int, ...] | None
) -> Clip4ClipTeacher:
    """By default every block of the small tower is a signal."""
    layers = tuple(range(model.sizes.towers.vision_layers)) if layers is None else layers
    return Clip4ClipTeacher(model, VIEW, tokenizer_of(vocabulary), layers, NAME)


def load(options: TeacherOptions) -> FrozenTeacher:
    """The shipped weights, or those that a fit of one's own wrote to `checkpoint`."""
    state, vocabulary, path = demo_world.read_fitted(NAME, options)
    model = Clip4Clip(sizes(vocabulary))
    load_strictly(model, state, str(path))
    return teacher_of(model, vocabulary, options.layers).run_as(options)


def official(options: TeacherOptions) -> Clip4ClipTeacher:
    """As shipped, at random, with the words of one caption."""
    options.refuse(NAME, "frames", "words")
    return tiny(0, options.layers)


def tiny(seed: int, layers: tuple[int, ...] | None = None) -> Clip4ClipTeacher:
    """The same size, at random: it is tiny already."""
    vocabulary = CompactVocabulary.of([demo_world.CAPTION])
    return teacher_of(seeded(seed, lambda: Clip4Clip(sizes(vocabulary))), vocabulary, layers)
