"""The demo's teacher: X-CLIP over towers small enough for a laptop, trained by `teacher_dump fit`.

Its weights lie in the package; `python -m teacher_dump fit` makes them again. It knows the words of
the demo's captions: good for trying things out on other videos, not for teaching anything about them.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from store.durable import write_file
from store.errors import InputError
from store.inputs.view import View
from teacher_dump.checkpoints import load_strictly, read_state, seeded
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.models.tokens import COMPACT, CompactVocabulary, Tokenizer, valid_words
from teacher_dump.models.xclip_scores import XClip, XClipSizes
from teacher_dump.teachers.base import TeacherCard, TeacherOptions
from teacher_dump.teachers.xclip import XClipTeacher

WEIGHTS = Path(__file__).parent.parent / "weights" / "demo_xclip.safetensors"
KNOWN_TOKENS = "known_tokens"
HEAD_WIDTH = 32
WORDS = 24
FRAMES, PIXELS = 8, 32
VIEW = View(f"uniform_{FRAMES}x{PIXELS}", FRAMES, PIXELS)
TEMPERATURE = 0.2
CARD = TeacherCard(
    model="X-CLIP of 0.3 million parameters for the demo",
    weights="in the package; python -m teacher_dump fit makes them again",
    licence="Apache-2.0",
)


def sizes(vocabulary: CompactVocabulary) -> XClipSizes:
    """0.3 million parameters."""
    towers = TowerSizes(
        embed_dim=64, image_size=PIXELS, patch_size=8, vision_width=64, vision_layers=3,
        vocabulary=vocabulary.size, context_length=WORDS, text_width=64, text_layers=2,
        head_width=HEAD_WIDTH,
    )  # fmt: skip
    return XClipSizes(towers, frames=FRAMES, words=WORDS, temporal_layers=1, positions=FRAMES)


def teacher_of(model: XClip, vocabulary: CompactVocabulary, layers: tuple[int, ...] | None) -> XClipTeacher:
    known = hashlib.sha256(vocabulary.known_N.numpy().tobytes()).hexdigest()
    identity = {"name": COMPACT, "known_tokens_sha256": known}
    tokenizer = Tokenizer(partial(vocabulary.tokenize, words=WORDS), identity, WORDS, valid_words)
    return XClipTeacher("demo", model, VIEW, tokenizer, layers, TEMPERATURE)


def save_weights(path: Path, model: XClip, known_tokens: Tensor, told: dict[str, object]) -> None:
    """One safetensors file: the model, the tokens that it knows, and `told` as JSON in its header."""
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    metadata = {"told": json.dumps(told, sort_keys=True)}
    write_file(path, save({**tensors, KNOWN_TOKENS: known_tokens}, metadata))


def told_by(path: Path) -> dict[str, object]:
    """What `save_weights` was told: how the weights were made, and what they reached."""
    try:
        with safe_open(str(path), framework="pt") as file:
            told: dict[str, object] = json.loads(file.metadata()["told"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} was not written by python -m teacher_dump fit; make it anew with that"
        ) from None
    return told


def load(options: TeacherOptions) -> FrozenTeacher:
    """The shipped weights, or those that a fit of one's own wrote to `checkpoint`."""
    if options.architecture or options.pretrained or options.frames not in (None, FRAMES):
        raise InputError(f"teacher 'demo' has one architecture and {FRAMES} frames; leave those options out")
    options.refuse("demo", "vocabulary", "classes", "features", "prompts", "words")
    options.check_variant("demo", ())
    path = options.checkpoint or WEIGHTS
    state = read_state(path, "demo", "what python -m teacher_dump fit --out writes")
    if KNOWN_TOKENS not in state:
        raise InputError(f"{path} was not written by python -m teacher_dump fit; make it anew with that")
    vocabulary = CompactVocabulary(state.pop(KNOWN_TOKENS))
    model = XClip(sizes(vocabulary))
    load_strictly(model, state, str(path))
    return teacher_of(model, vocabulary, options.layers).run_as(options)


def official() -> XClipTeacher:
    """As shipped, at random, with the words of one caption."""
    return tiny(0)


def tiny(seed: int) -> XClipTeacher:
    """The same size, at random: it is tiny already."""
    vocabulary = CompactVocabulary.of(["a small red circle moves left on the grass"])
    return teacher_of(seeded(seed, lambda: XClip(sizes(vocabulary))), vocabulary, None)
