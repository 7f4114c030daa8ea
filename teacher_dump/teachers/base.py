"""The contract of a teacher: frozen, in eval mode, and everything that it says has a digest.

A teacher module offers two functions, and nothing else is asked of it:

    load(options: TeacherOptions) -> Teacher     the real one, from a checkpoint
    tiny(seed: int) -> Teacher                   weight-free and small, for the contract tests
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from store.inputs.view import View
from store.signals import SignalSpec


@dataclass(frozen=True)
class TeacherOptions:
    """What a user may say about a teacher; a teacher refuses what it does not know with InputError.

    checkpoint: a file with weights. architecture, pretrained: for teachers that come in many
    (open_clip's names). layers: ViT blocks to tap, counted from 0. frames: of the view.
    """

    checkpoint: Path | None = None
    architecture: str | None = None
    pretrained: str | None = None
    layers: tuple[int, ...] | None = None
    frames: int | None = None


class Teacher(ABC):
    """Turns frames and texts into signals. Every tensor it returns is float32 and detached.

    name: the plug-in's name. view: the frames that it wants. signals: what it emits, in the order
    in which it is written.
    """

    name: str
    view: View
    signals: tuple[SignalSpec, ...]

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

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        """Logits [V, T] of every video against every text, logit_scale included.

        videos: the signals of `encode_videos` as stored and read back (float32), and "frame_valid"
        [V, M]. texts: those of `encode_texts`. Only for teachers that emit `video_text_logits`.
        """
        raise NotImplementedError(f"teacher {self.name!r} emits no video_text_logits")

    def relevance(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        """Raw frame scores [B, M] of matched pairs: row i of `videos` with row i of `texts`."""
        raise NotImplementedError(f"teacher {self.name!r} emits no frame_relevance")
