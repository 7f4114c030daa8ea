"""The contract of a teacher: frozen, in eval mode, and everything that it says has a digest.

A teacher module offers three functions and a card, and nothing else is asked of it:

    load(options: TeacherOptions) -> Teacher     the real one, from a checkpoint
    tiny(seed: int) -> Teacher                   weight-free and small, for the contract tests
    official(options: TeacherOptions) -> Teacher
                                                 at its published size, for counting; built on the meta
                                                 device; layers, frames and words are heeded, or refused
    CARD: TeacherCard                            where its weights are from
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from store.errors import InputError
from store.inputs.view import View
from store.signals import SignalSpec

FLOAT32 = "float32"
DTYPES = {FLOAT32: torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TeacherOptions:
    """What a user may say about a teacher; a teacher refuses what it does not know with InputError.

    checkpoint: a file with weights. architecture, pretrained: for teachers that come in many (open_clip's
    names). layers: ViT blocks to tap, counted from 0. frames, clips, crops: of the view. dtype: precision
    of the forward, a key of DTYPES. device: torch's name of one. variant: words that choose among the
    forms of one teacher, which the teacher's module lists. vocabulary: WordPiece's vocab.txt. classes,
    features, prompts, learned_prompt: of teacher `classes`. words: token ids of a text, where the weights
    leave it open.
    """

    checkpoint: Path | None = None
    architecture: str | None = None
    pretrained: str | None = None
    layers: tuple[int, ...] | None = None
    frames: int | None = None
    clips: int | None = None
    crops: int | None = None
    dtype: str = FLOAT32
    device: str = "cpu"
    variant: tuple[str, ...] = ()
    vocabulary: Path | None = None
    classes: Path | None = None
    features: Path | None = None
    prompts: tuple[str, ...] = ()
    words: int | None = None
    learned_prompt: Path | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"a teacher runs in {', '.join(DTYPES)}, not {self.dtype!r}")

    def absolute(self) -> TeacherOptions:
        """The same files named from the root, for a process that works in another folder."""
        paths: dict[str, Any] = {
            name: value.absolute() for name, value in vars(self).items() if isinstance(value, Path)
        }
        if self.pretrained is not None and Path(self.pretrained).is_file():
            paths["pretrained"] = str(Path(self.pretrained).absolute())
        return replace(self, **paths)

    def refuse(self, teacher: str, *names: str) -> None:
        """Raise InputError if an option in `names` was given, which `teacher` has no use for."""
        for name in names:
            if getattr(self, name):
                raise InputError(f"teacher {teacher!r} takes no --{name.replace('_', '-')}; leave it out")

    def check_variant(self, teacher: str, known: Sequence[str]) -> None:
        """Raise InputError for a variant that `teacher` has not."""
        for word in self.variant:
            if word not in known:
                there = f"it has {', '.join(known)}" if known else "it has none"
                raise InputError(f"teacher {teacher!r} has no variant {word!r}; {there}")


OF_CLASSES = ("classes", "features", "prompts", "learned_prompt")
OF_OPEN_CLIP = ("architecture", "pretrained")
"""Options that a teacher refuses if it makes no classifier, or reads its sizes off a file."""


@dataclass(frozen=True)
class TeacherCard:
    """What `python -m teacher_dump teachers` tells of a teacher and no tensor does.

    model: what `official()` builds. weights: where to get them and where to place them. licence: of the
    published weights and code.
    """

    model: str
    weights: str
    licence: str


class Teacher(ABC):
    """Turns frames and texts into signals. What it returns is float32 (bool for a mask) and detached.

    name: the plug-in's name. view: the frames that it wants. signals: what it emits, in the order in which
    it is written. pair_inputs: the stored signals that `score_pairs`, `match_pairs` and `relevance` start
    from; besides them they get "frame_valid". fused_width: D of "fused_cls", for a cross-encoder.
    """

    name: str
    view: View
    signals: tuple[SignalSpec, ...]
    pair_inputs: tuple[str, ...] = ()
    fused_width: int | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes; outputs lie there."""
        return torch.device("cpu")

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What makes the labels the same: plain JSON, compared field by field.

        Keys: weights_sha256, architecture, dtype, tokenizer, context_length, mean, std,
        logit_scale, and whatever else changes a number that it emits.
        """

    @abstractmethod
    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        """Signals with row axis V but `video_text_logits`, R left out: [B, M, ...].

        frames_BMYXC: uint8, RGB. frame_valid_BM: bool, False where a short video has no frame.
        """

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Signals with row axis T but `frame_relevance`: [B, ...]."""

    def of_itself(self) -> dict[str, Tensor]:
        """Signals with row axis P, whole: what a student goes on from that no video shows."""
        return {}

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        """Logits [V, T] of every video against every text, logit_scale included.

        videos: the signals of `encode_videos` as stored and read back (float32), and "frame_valid"
        [V, M]. texts: those of `encode_texts`. Only for teachers that emit `video_text_logits`.
        """
        raise NotImplementedError(f"teacher {self.name!r} emits no video_text_logits")

    def match_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a cross-encoder says of chosen pairs: row i of `videos`, or its only one, with text i.

        "match_logits" [B, 2] (1 is a match: what `score_pairs` gives), "match_probability" [B] their softmax,
        "fused_cls" [B, D]. Only for teachers with a `fused_width`.
        """
        raise NotImplementedError(f"teacher {self.name!r} is no cross-encoder")

    def relevance(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        """Raw frame scores [B, M] of matched pairs: row i of `videos` with row i of `texts`."""
        raise NotImplementedError(f"teacher {self.name!r} emits no frame_relevance")
