"""X-CLIP, the late-interaction teacher: dense logits and frame relevance from the authors' checkpoints.

Ma et al. 2022; the numbers are those of the authors' `modules/modeling_xclip.py` and, for the relevance,
of TeachCLIP's fork of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from store.errors import InputError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import ONE_PER_SECOND, View
from store.signals import SignalSpec
from teacher_dump.checkpoints import load_strictly, read_state, weights_digest
from teacher_dump.clip_towers import (
    TowerSizes,
    check_layers,
    default_layers,
    encode_frames,
    encode_words,
    to_pixels,
)
from teacher_dump.teachers.base import Teacher, TeacherOptions
from teacher_dump.tokens import BYTE_PAIRS, tokenize
from teacher_dump.xclip_scores import XClip, XClipSizes, frame_relevance

OFFICIAL_TEMPERATURE = 1.0


class XClipTeacher(Teacher):
    """An `XClip` model with its tokenizer and view.

    ids_of: texts -> token ids [B, W]; tokenizer: what identifies it, in plain JSON. layers: ViT blocks to
    tap, from 0; the middle and the last by default. temperature: by which frame relevance is to be
    divided before its softmax.
    """

    def __init__(
        self,
        name: str,
        model: XClip,
        view: View,
        ids_of: Callable[[Sequence[str]], Tensor],
        tokenizer: Mapping[str, Any],
        layers: Sequence[int] | None,
        temperature: float,
    ) -> None:
        towers, blocks = model.sizes.towers, model.sizes.towers.vision_layers
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.ids_of = ids_of
        self.view = view
        self.layers = default_layers(blocks) if layers is None else check_layers(layers, blocks)
        if view.frames != model.sizes.frames:
            raise InputError(
                f"teacher {name!r} was trained with {model.sizes.frames} frames, which its matrices fix; "
                f"--frames {view.frames} can't be had"
            )
        frames = {"R": view.renditions, "M": view.frames}
        scale = float(model.logit_scale())
        self.signals = (
            SignalSpec("frame_embedding", {**frames, "D": towers.embed_dim}),
            *(
                SignalSpec(f"vit_layers/{layer}", {**frames, "L": towers.tokens, "D": towers.vision_width})
                for layer in self.layers
            ),
            SignalSpec("text_embedding", {"D": towers.embed_dim}),
            SignalSpec("word_embedding", {"W": model.sizes.words, "D": towers.embed_dim}),
            SignalSpec("frame_relevance", frames, attributes={"temperature": temperature}),
            SignalSpec("video_text_logits", {}, attributes={"logit_scale": scale}),
        )
        self._identity = {
            "weights_sha256": weights_digest(model),
            "architecture": "xclip",
            "dtype": "float32",
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "logit_scale": scale,
            "temperature": temperature,
            "layers": list(self.layers),
            "tokenizer": dict(tokenizer),
            "context_length": model.sizes.words,
        }

    def identity(self) -> dict[str, Any]:
        return self._identity

    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        """A missing frame is zero after normalisation, as the official loaders make it."""
        batch = frames_BMYXC.shape[:2]
        pixels = to_pixels(frames_BMYXC.flatten(0, 1), CLIP_MEAN, CLIP_STD)
        pixels = pixels * frame_valid_BM.flatten()[:, None, None, None]
        features, tokens = encode_frames(self.model.clip.visual, pixels, self.layers)
        layers = {f"vit_layers/{layer}": values.unflatten(0, batch) for layer, values in tokens.items()}
        return {"frame_embedding": features.unflatten(0, batch), **layers}

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        sentence, words = encode_words(self.model.clip, self.ids_of(texts))
        return {"text_embedding": sentence, "word_embedding": words}

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        return self.model.logits(
            videos["frame_embedding"], videos["frame_valid"], texts["text_embedding"], texts["word_embedding"]
        )

    def relevance(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        return frame_relevance(videos["frame_embedding"], texts["text_embedding"])


def load(options: TeacherOptions) -> XClipTeacher:
    """From `pytorch_model.bin` of the authors' training (or safetensors of the same names).

    Raises MissingFileError without a file, InputError if it does not fit or for options of other teachers.
    """
    if options.architecture or options.pretrained:
        raise InputError(
            "teacher 'xclip' reads its architecture off --checkpoint; leave out --architecture/--pretrained"
        )
    state = read_state(
        options.checkpoint, "xclip", "the pytorch_model.bin of github.com/xuguohai/X-CLIP's training"
    )
    model = XClip(XClipSizes.from_state(state))
    load_strictly(model, state, str(options.checkpoint))
    size, frames = model.sizes.towers.image_size, options.frames or model.sizes.frames
    view = View(f"{ONE_PER_SECOND}_{frames}x{size}", frames, size, ONE_PER_SECOND)
    return with_byte_pairs(model, view, options.layers)


def with_byte_pairs(model: XClip, view: View, layers: Sequence[int] | None) -> XClipTeacher:
    """The teacher with CLIP's own tokenizer and the relevance of TeachCLIP's fork."""
    ids_of = partial(tokenize, words=model.sizes.words)
    return XClipTeacher("xclip", model, view, ids_of, {"name": BYTE_PAIRS}, layers, OFFICIAL_TEMPERATURE)


def tiny(seed: int) -> XClipTeacher:
    """Two blocks of width 64 at random."""
    torch.manual_seed(seed)
    towers = TowerSizes(
        embed_dim=64, image_size=32, patch_size=16, vision_width=64, vision_layers=2,
        vocabulary=49408, context_length=77, text_width=64, text_layers=1,
    )  # fmt: skip
    model = XClip(XClipSizes(towers, frames=4, words=12, temporal_layers=1, positions=8))
    return with_byte_pairs(model, View("tiny", 4, 32, ONE_PER_SECOND), None)
