"""What the demo's teachers share: towers small enough for a laptop, the words of its captions, one view.

They know the words of the demo's captions: good for trying things out on other videos, not for teaching
anything about them.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from torch import Tensor

from store.errors import InputError
from store.inputs.view import View
from teacher_dump.checkpoints import read_state
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.tokens import COMPACT, PADDING, CompactVocabulary, Tokenizer, valid_words
from teacher_dump.models.xclip_scores import XClipSizes
from teacher_dump.teachers.base import TeacherOptions

WEIGHTS = Path(__file__).parent.parent / "weights"
KNOWN_TOKENS = "known_tokens"
HEAD_WIDTH = 32
WORDS = 24
FRAMES, PIXELS = 8, 32
VIEW = View(f"uniform_{FRAMES}x{PIXELS}", FRAMES, PIXELS)
CAPTION = "a small red circle moves left on the grass"
LICENCE = "Apache-2.0"


def tower_sizes(vocabulary: CompactVocabulary) -> TowerSizes:
    """CLIP's two towers, 0.2 million parameters."""
    return TowerSizes(
        embed_dim=64, image_size=PIXELS, patch_size=8, vision_width=64, vision_layers=3,
        vocabulary=vocabulary.size, context_length=WORDS, text_width=64, text_layers=2,
        head_width=HEAD_WIDTH,
    )  # fmt: skip


def xclip_sizes(vocabulary: CompactVocabulary) -> XClipSizes:
    """X-CLIP of 0.3 million parameters."""
    return XClipSizes(
        tower_sizes(vocabulary), frames=FRAMES, words=WORDS, temporal_layers=1, positions=FRAMES
    )


def tokenizer_of(vocabulary: CompactVocabulary) -> Tokenizer:
    """CLIP's byte pairs, mapped to those that the vocabulary knows."""
    known = hashlib.sha256(vocabulary.known_N.numpy().tobytes()).hexdigest()
    identity = {"name": COMPACT, "known_tokens_sha256": known}
    return Tokenizer(partial(vocabulary.tokenize, words=WORDS), identity, WORDS, valid_words)


def padded_words(ids_BW: Tensor) -> Tensor:
    """Bool [B, W]: which positions hold a token, for encoders that read both ways."""
    return ids_BW != PADDING


def read_fitted(
    name: str, options: TeacherOptions, *allowed: str
) -> tuple[dict[str, Tensor], CompactVocabulary, Path]:
    """State and vocabulary of the demo's teacher `name`, and their file: the shipped one, or one's own.

    allowed: options that this teacher takes beside checkpoint, layers, dtype and device. Raises InputError
    for others, and for a file that no fit wrote.
    """
    if options.architecture or options.pretrained or options.frames not in (None, FRAMES):
        raise InputError(
            f"teacher {name!r} has one architecture and {FRAMES} frames; leave those options out"
        )
    others = ("vocabulary", "classes", "features", "prompts", "learned_prompt", "words")
    options.refuse(name, *(option for option in others if option not in allowed))
    if "variant" not in allowed:
        options.check_variant(name, ())
    path = options.checkpoint or shipped_weights(name)
    state = read_state(path, name, f"what python -m teacher_dump fit {name} writes")
    if KNOWN_TOKENS not in state:
        raise InputError(
            f"{path} was not written by python -m teacher_dump fit {name}; make it anew with that"
        )
    return state, CompactVocabulary(state.pop(KNOWN_TOKENS)), path


def shipped_weights(name: str) -> Path:
    """Where the weights of the demo's teacher `name` lie in the package."""
    return WEIGHTS / f"{FILES.get(name, name)}.safetensors"


FILES = {"demo": "demo_xclip", "demo_classes": "demo_xclip"}
