"""A teacher that holds one frozen model: eval mode enforced, no gradient, a device, a forward precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from store.encodings import BOOL
from store.errors import InputError
from store.identity import PLUGIN
from store.inputs.view import View
from store.signals import VISION_HEAD, SignalSpec
from teacher_dump.checkpoints import weights_digest
from teacher_dump.models.clip_towers import (
    TowerSizes,
    encode_frames,
    encode_words,
    head_specs,
    to_pixels,
    vision_head,
)
from teacher_dump.models.tokens import Tokenizer
from teacher_dump.teachers.base import DTYPES, FLOAT32, Teacher, TeacherOptions

OF_PAIRS = ("video_text_logits", "frame_relevance")


class FrozenTeacher(Teacher):
    """Keeps `model` in eval mode and without gradients, whatever anybody does to it in between.

    The weights stay float32; another dtype is that of the forward (autocast), so that the same weights have
    the same digest in any precision. described: what `identity` tells besides digest and dtype.
    """

    def __init__(self, name: str, model: nn.Module, view: View, described: dict[str, Any]) -> None:
        self.name = name
        self.model: Any = model.eval().requires_grad_(False)
        self.view = view
        self.dtype = FLOAT32
        self._described = described
        self._digest: str | None = None

    def identity(self) -> dict[str, Any]:
        if self._digest is None:
            self._digest = weights_digest(self.model)
        return {"weights_sha256": self._digest, "dtype": self.dtype, **self._described}

    def stored_as(self, name: str) -> FrozenTeacher:
        """The same under another name in the cache; its identity tells which teacher it is."""
        other = copy.copy(self)
        other.name, other._described = name, {**self._described, PLUGIN: self.name}
        return other

    def seen_in(self, clips: int, crops: int) -> FrozenTeacher:
        """The same over `clips` x `crops` renditions of every video, as recognition is evaluated.

        Raises InputError for a teacher whose scores are of a whole video, or whose view has no such clips.
        """
        if (clips, crops) == (1, 1):
            return self
        if any(spec.name in OF_PAIRS for spec in self.signals):
            raise InputError(f"--clips and --crops are for dual encoders; teacher {self.name!r} scores pairs")
        count = clips * crops
        name = f"{self.view.name}_{clips}x{crops}"
        other = copy.copy(self)
        other.view = replace(self.view, name=name, renditions=count, clips=clips, crops=crops)
        other.signals = tuple(
            replace(spec, sizes={**spec.sizes, "R": count}) if "R" in spec.sizes else spec
            for spec in self.signals
        )
        return other

    def parameters(self) -> int:
        """How many numbers its weights are."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> FrozenTeacher:
        """Move the model; inputs may lie anywhere, outputs lie on `device`. Raises InputError without that
        device."""
        try:
            self.model.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(
                f"no device {str(device)!r} for the teacher here ({reason}); choose another, e.g. cpu"
            ) from None
        return self

    def with_dtype(self, dtype: str) -> FrozenTeacher:
        """The same model in another forward precision, its weights shared."""
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def run_as(self, options: TeacherOptions) -> FrozenTeacher:
        """On the device, in the precision and over the renditions that the user asked for.

        Raises InputError as `to` and `seen_in`.
        """
        seen = self.seen_in(options.clips or 1, options.crops or 1)
        return seen.to(options.device).with_dtype(options.dtype)

    @contextmanager
    def forward(self, dtype: str | None = None) -> Iterator[torch.device]:
        """Inference in the teacher's precision (or `dtype`), float32 without TF32; yields the device."""
        self.model.eval()
        device, precision = self.device, dtype or self.dtype
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            if precision != FLOAT32:
                stack.enter_context(torch.autocast(device.type, DTYPES[precision]))
            yield device

    @contextmanager
    def scoring(
        self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor], dtype: str = FLOAT32
    ) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Stored signals on the device, to compute with in `dtype`."""
        with self.forward(dtype) as device:
            yield (
                {name: value.to(device) for name, value in videos.items()},
                {name: value.to(device) for name, value in texts.items()},
            )


class TowersTeacher(FrozenTeacher):
    """Teachers over CLIP's two towers, which their model holds as `clip`.

    sizes: of the towers. tokenizer: its `words` W is the length of every text. layers: ViT blocks to tap,
    checked and ascending.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        sizes: TowerSizes,
        view: View,
        tokenizer: Tokenizer,
        described: dict[str, Any],
    ) -> None:
        described = dict(described)
        layers: Sequence[int] = described.pop("layers")
        super().__init__(
            name,
            model,
            view,
            {"tokenizer": dict(tokenizer.identity), "context_length": tokenizer.words, **described},
        )
        self.tokenizer = tokenizer
        self.layers = tuple(layers)
        self.frame_sizes = {"R": view.renditions, "M": view.frames}
        self.tower_signals = (
            SignalSpec("frame_embedding", {**self.frame_sizes, "D": sizes.embed_dim}),
            *(
                SignalSpec(
                    f"vit_layers/{layer}", {**self.frame_sizes, "L": sizes.tokens, "D": sizes.vision_width}
                )
                for layer in self.layers
            ),
            *head_specs(self.model.clip.visual, self.layers),
            SignalSpec("text_embedding", {"D": sizes.embed_dim}),
            SignalSpec("word_embedding", {"W": tokenizer.words, "D": sizes.embed_dim}),
            SignalSpec("word_valid", {"W": tokenizer.words}, BOOL),
        )

    def of_itself(self) -> dict[str, Tensor]:
        return {VISION_HEAD: vision_head(self.model.clip.visual)}

    def pixels(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor, device: torch.device) -> Tensor:
        """Normalised [B * M, C, Y, X]; a missing frame is zero after that, as in the official loaders."""
        pixels = to_pixels(
            frames_BMYXC.flatten(0, 1).to(device), self._described["mean"], self._described["std"]
        )
        return pixels * frame_valid_BM.flatten().to(device)[:, None, None, None]

    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        with self.forward() as device:
            pixels = self.pixels(frames_BMYXC, frame_valid_BM, device)
            features, tokens = encode_frames(self.model.clip.visual, pixels, self.layers)
            found = {"frame_embedding": features}
            found |= {f"vit_layers/{layer}": values for layer, values in tokens.items()}
            return {name: value.unflatten(0, frame_valid_BM.shape).float() for name, value in found.items()}

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        with self.forward() as device:
            ids_BW = self.tokenizer.ids_of(texts).to(device)
            sentence, words = encode_words(self.model.clip, ids_BW)
            return {
                "text_embedding": sentence.float(),
                "word_embedding": words.float(),
                "word_valid": self.tokenizer.valid_of(ids_BW),
            }


def scale_of(log_scale: Tensor) -> float:
    """exp(logit_scale); NaN on the meta device, where parameters have no values."""
    return float("nan") if log_scale.is_meta else float(log_scale.detach().exp())


def check_words(teacher: str, words: int, towers: TowerSizes) -> int:
    """`words`, where the text tower has places for as many; InputError otherwise."""
    if not 3 <= words <= towers.context_length:
        raise InputError(
            f"teacher {teacher!r} reads texts of 3 to {towers.context_length} token ids, not of {words}; "
            "give other --words"
        )
    return words
