"""The demo's frozen classifier: its motions as class names, read by the towers of the demo's X-CLIP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from store.inputs.scenes import SHAPES
from teacher_dump.checkpoints import load_strictly, seeded
from teacher_dump.models import demo_world
from teacher_dump.models.clip_towers import build_towers
from teacher_dump.models.demo_world import FRAMES, WORDS, tower_sizes, xclip_sizes
from teacher_dump.models.open_clip_models import FILE, RANDOM
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.models.xclip_scores import XClip
from teacher_dump.teachers.base import TeacherCard, TeacherOptions
from teacher_dump.teachers.classes import ClassesTeacher, load_with

NAME = "demo_classes"
PROMPTS = tuple(f"a {shape} {{}}" for shape in SHAPES)
CARD = TeacherCard(
    model="class names by the towers of the demo's X-CLIP, 0.2 million parameters",
    weights="in the package, those of teacher demo",
    licence=demo_world.LICENCE,
)


def over(
    towers: nn.Module, vocabulary: CompactVocabulary, weights: str, make: Callable[..., ClassesTeacher]
) -> ClassesTeacher:
    """What `make` builds around the towers, under this teacher's name."""
    teacher = make(towers, NAME, weights, partial(vocabulary.tokenize, words=WORDS), frames=FRAMES)
    teacher.name = NAME
    return teacher


def load(options: TeacherOptions) -> ClassesTeacher:
    """The shipped weights, or those of a fit of one's own; options as for `classes`."""
    allowed = ("variant", "classes", "features", "prompts", "learned_prompt")
    state, vocabulary, path = demo_world.read_fitted(NAME, options, *allowed)
    model = XClip(xclip_sizes(vocabulary))
    load_strictly(model, state, str(path))
    teacher = load_with(options, lambda make: over(model.clip, vocabulary, FILE, make), PROMPTS)
    return teacher.run_as(options)  # type: ignore[return-value]


def official(options: TeacherOptions) -> ClassesTeacher:
    """As shipped, at random, with the words of one caption."""
    options.refuse(NAME, "frames", "words", "layers")
    return tiny(0)


def tiny(seed: int) -> ClassesTeacher:
    """The same size, at random: it is tiny already."""
    vocabulary = CompactVocabulary.of([demo_world.CAPTION])
    towers = seeded(seed, lambda: build_towers(tower_sizes(vocabulary)))
    return over(towers, vocabulary, RANDOM, partial(ClassesTeacher, prompts=PROMPTS))
