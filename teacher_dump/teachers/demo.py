"""The demo's teacher: X-CLIP over towers small enough for a laptop, trained by `teacher_dump fit demo`.

Its weights lie in the package; `make fit-demo-teacher` makes them again.
"""

from __future__ import annotations

from teacher_dump.checkpoints import load_strictly, seeded
from teacher_dump.models import demo_world
from teacher_dump.models.demo_world import VIEW, tokenizer_of, xclip_sizes
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.models.xclip_scores import XClip
from teacher_dump.teachers.base import TeacherCard, TeacherOptions
from teacher_dump.teachers.xclip import XClipTeacher

TEMPERATURE = 0.2
CARD = TeacherCard(
    model="X-CLIP of 0.3 million parameters for the demo",
    weights="in the package; python -m teacher_dump fit demo makes them again",
    licence=demo_world.LICENCE,
)


def teacher_of(model: XClip, vocabulary: CompactVocabulary, layers: tuple[int, ...] | None) -> XClipTeacher:
    return XClipTeacher("demo", model, VIEW, tokenizer_of(vocabulary), layers, TEMPERATURE)


def load(options: TeacherOptions) -> FrozenTeacher:
    """The shipped weights, or those that a fit of one's own wrote to `checkpoint`."""
    state, vocabulary, path = demo_world.read_fitted("demo", options)
    model = XClip(xclip_sizes(vocabulary))
    load_strictly(model, state, str(path))
    return teacher_of(model, vocabulary, options.layers).run_as(options)


def official(options: TeacherOptions) -> XClipTeacher:
    """As shipped, at random, with the words of one caption."""
    options.refuse("demo", "frames", "words")
    return tiny(0, options.layers)


def tiny(seed: int, layers: tuple[int, ...] | None = None) -> XClipTeacher:
    """The same size, at random: it is tiny already."""
    vocabulary = CompactVocabulary.of([demo_world.CAPTION])
    return teacher_of(seeded(seed, lambda: XClip(xclip_sizes(vocabulary))), vocabulary, layers)
