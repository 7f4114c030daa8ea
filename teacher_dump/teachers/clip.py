"""Any dual encoder of open_clip, frame by frame: a factored teacher, whose logits are a product at read time.

--architecture is open_clip's name; --pretrained one of its tags (downloaded, or from its cache) or a file.
One of --pretrained and --checkpoint has to be said. `--pretrained random` is for trying things out, and the
identity says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import open_clip
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from store.encodings import BOOL
from store.errors import InputError
from store.inputs.view import SQUASH, UNIFORM, View
from store.lookup import check_name
from store.signals import VISION_HEAD, SignalSpec
from teacher_dump.checkpoints import seeded
from teacher_dump.models import tokens
from teacher_dump.models.clip_towers import (
    TowerSizes,
    build_towers,
    check_layers,
    default_layers,
    encode_frames,
    head_specs,
    to_pixels,
    vision_head,
)
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.models.open_clip_models import (
    RANDOM,
    Preprocessing,
    encode_text,
    keeps_words,
    one_side,
    scalar,
    tokenizer_of,
    widths,
    with_weights,
)
from teacher_dump.teachers.base import OF_CLASSES, TeacherCard, TeacherOptions

ARCHITECTURE = "ViT-B-32"
FRAMES = 12
CARD = TeacherCard(
    model="CLIP ViT-B/32 (any architecture of open_clip: --architecture)",
    weights="--pretrained TAG of open_clip.list_pretrained() downloads them; or --pretrained FILE",
    licence="of the weights: MIT (OpenAI, LAION), others differ",
)


class ClipTeacher(FrozenTeacher):
    """Towers of open_clip. weights: "random", "file" or the tag; tokenize(texts) gives ids [B, W]."""

    def __init__(
        self,
        model: Any,
        architecture: str,
        weights: str,
        tokenize: Callable[[list[str]], Tensor],
        *,
        frames: int = FRAMES,
        layers: Sequence[int] | None = None,
        pixels: Preprocessing | None = None,
    ) -> None:
        size = one_side(model.visual.image_size, architecture)
        self.layers = tapped_layers(model.visual, layers, architecture)
        self.tokenize = tokenize
        self._pixels = pixels or Preprocessing()
        log_scale, bias = scalar(model.logit_scale), scalar(getattr(model, "logit_bias", None))
        self._scale = math.exp(log_scale or 0.0)
        described = {
            "architecture": {"family": "open_clip", "name": architecture},
            "pretrained": weights,
            "quick_gelu": any(isinstance(part, QuickGELU) for part in model.modules()),
            "tokenizer": {"name": architecture},
            "context_length": int(model.context_length),
            "mean": list(self._pixels.mean),
            "std": list(self._pixels.std),
            "logit_scale": self._scale,
            "logit_bias": bias,
        }
        squash = f"_{SQUASH}" if self._pixels.resize == SQUASH else ""
        view = View(f"{UNIFORM}_{frames}x{size}{squash}", frames, size, resize=self._pixels.resize)
        super().__init__("clip", model, view, described)
        self.signals = self._specs(size)

    def _specs(self, size: int) -> tuple[SignalSpec, ...]:
        ids_BW = self.tokenize(["a"])
        frame_width, text_width = widths(self.model, size, ids_BW)
        places, visual = {"R": self.view.renditions, "M": self.view.frames}, self.model.visual
        scale = {"logit_scale": self._scale}
        words = {"W": ids_BW.shape[1], "D": text_width}
        return (
            SignalSpec("frame_embedding", {**places, "D": frame_width}, attributes=scale),
            *(
                SignalSpec(
                    f"vit_layers/{layer}",
                    {**places, "L": len(visual.positional_embedding), "D": visual.transformer.width},
                )
                for layer in self.layers
            ),
            *head_specs(visual, self.layers),
            SignalSpec("text_embedding", {"D": text_width}, attributes=scale),
            *(
                [SignalSpec("word_embedding", words), SignalSpec("word_valid", {"W": words["W"]}, BOOL)]
                if keeps_words(self.model)
                else []
            ),
        )

    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        shape = frame_valid_BM.shape
        with self.forward() as device:
            pixels = to_pixels(frames_BMYXC.flatten(0, 1).to(device), self._pixels.mean, self._pixels.std)
            pixels = pixels * frame_valid_BM.flatten().to(device)[:, None, None, None]
            features, layer_tokens = encode_frames(self.model.visual, pixels, self.layers)
            found = {"frame_embedding": features}
            found |= {f"vit_layers/{layer}": value for layer, value in layer_tokens.items()}
            return {name: value.unflatten(0, shape).float() for name, value in found.items()}

    def of_itself(self) -> dict[str, Tensor]:
        return {VISION_HEAD: vision_head(self.model.visual)}

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        with self.forward() as device:
            ids_BW = self.tokenize(list(texts)).to(device)
            sentence, words = encode_text(self.model, ids_BW)
            found = {"text_embedding": sentence.float()}
            if words is not None:
                found |= {"word_embedding": words.float(), "word_valid": tokens.valid_words(ids_BW)}
            return found


def tapped_layers(visual: nn.Module, layers: Sequence[int] | None, architecture: str) -> tuple[int, ...]:
    """Checked block numbers; only CLIP's vision transformer has blocks that can be stored."""
    if not isinstance(visual, VisionTransformer):
        if layers:
            raise InputError(f"architecture {architecture!r} has no ViT blocks to store; leave out --layers")
        return ()
    count = len(visual.transformer.resblocks)
    return default_layers(count) if layers is None else check_layers(layers, count)


def load(options: TeacherOptions) -> FrozenTeacher:
    """Raises UnknownNameError for architecture or tag, MissingFileError for weights that can't be had."""
    options.refuse("clip", *OF_CLASSES, "vocabulary", "words")
    options.check_variant("clip", ())
    return load_towers(options, ClipTeacher).run_as(options)


def load_towers(options: TeacherOptions, make: Callable[..., ClipTeacher]) -> ClipTeacher:
    """What `make` builds, with ClipTeacher's parameters, around the weights that were asked for."""
    architecture = options.architecture or ARCHITECTURE
    check_name("architecture", architecture, open_clip.list_models())
    if "multimodal_cfg" in open_clip.get_model_config(architecture):
        raise InputError(
            f"architecture {architecture!r} is CoCa, whose towers are made for captions; choose another"
        )
    pretrained = options.pretrained
    if options.checkpoint is not None:
        if pretrained is not None:
            raise InputError("teacher 'clip': give either --checkpoint or --pretrained, not both")
        pretrained = str(options.checkpoint)
    tag = pretrained if pretrained in open_clip.list_pretrained_tags_by_model(architecture) else None
    pixels = Preprocessing.of(architecture, tag)
    tokenize = tokenizer_of(architecture)
    model, weights = with_weights(architecture, pretrained)
    frames, layers = options.frames or FRAMES, options.layers
    return make(model, architecture, weights, tokenize, frames=frames, layers=layers, pixels=pixels)


def official(options: TeacherOptions) -> ClipTeacher:
    """ViT-B/32 of OpenAI; under `torch.device("meta")` it costs no memory."""
    options.refuse("clip", "words")
    model, frames = build_towers(TowerSizes.vit_b_32()), options.frames or FRAMES
    return ClipTeacher(
        model,
        ARCHITECTURE,
        RANDOM,
        lambda texts: tokens.tokenize(texts, 77),
        frames=frames,
        layers=options.layers,
    )


def tiny(seed: int) -> ClipTeacher:
    """Random towers of width 32, three frames of 16 x 16 pixels."""
    return ClipTeacher(tiny_towers(seed), "tiny", RANDOM, lambda texts: tokens.tokenize(texts, 16), frames=3)


def tiny_towers(seed: int) -> nn.Module:
    sizes = TowerSizes(32, 16, 8, 32, 2, tokens.byte_pairs().vocab_size, 16, 32, 1, head_width=16)
    return seeded(seed, lambda: build_towers(sizes))
