"""CLIP's two towers as the late-interaction teachers use them: any block tapped, every word kept.

The towers are open_clip's `CLIP` class, whose parameter names are those of OpenAI's release; what is
ours is how they are called. Numbers match the official X-CLIP and CLIP code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from store.encodings import FLOAT32
from store.errors import InputError
from store.signals import VISION_HEAD, SignalSpec

CLIP_HEAD_WIDTH = 64


@dataclass(frozen=True)
class TowerSizes:
    """Everything that fixes the towers' parameter shapes, and how their width splits into heads."""

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vocabulary: int
    context_length: int
    text_width: int
    text_layers: int
    head_width: int = CLIP_HEAD_WIDTH

    @property
    def tokens(self) -> int:
        """L: [CLS] and the patches."""
        return 1 + (self.image_size // self.patch_size) ** 2

    @classmethod
    def vit_b_32(cls) -> TowerSizes:
        """OpenAI's ViT-B/32."""
        return cls(512, 224, 32, 768, 12, 49408, 77, 512, 12)

    @classmethod
    def tiny(cls) -> TowerSizes:
        """Two vision blocks and one text block of width 64, for tests; CLIP's vocabulary."""
        return cls(64, 32, 16, 64, 2, 49408, 77, 64, 1)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], head_width: int = CLIP_HEAD_WIDTH) -> TowerSizes:
        """Read the sizes off the shapes of `state`, whose keys are OpenAI's (`visual.conv1.weight` ...).

        Raises InputError naming the first tensor that a CLIP checkpoint has and this one lacks.
        """
        patches = len(_tensor(state, "visual.positional_embedding")) - 1
        vision_width, _, patch_size, _ = _tensor(state, "visual.conv1.weight").shape
        vocabulary, text_width = _tensor(state, "token_embedding.weight").shape
        return cls(
            embed_dim=_tensor(state, "visual.proj").shape[1],
            image_size=math.isqrt(patches) * patch_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=count_blocks(state, "visual.transformer.resblocks."),
            vocabulary=vocabulary,
            context_length=len(_tensor(state, "positional_embedding")),
            text_width=text_width,
            text_layers=count_blocks(state, "transformer.resblocks."),
            head_width=head_width,
        )


def towers_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `state` holds under "clip.", where the official video models keep the towers."""
    return {name.removeprefix("clip."): value for name, value in state.items() if name.startswith("clip.")}


def _tensor(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise InputError(
            f"not a CLIP checkpoint: it lacks {name!r}; it has {', '.join(sorted(state)[:5])} ..."
        )
    return state[name]


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of transformer blocks under `prefix`, numbered from 0."""
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def default_layers(count: int) -> tuple[int, ...]:
    """The middle and the last of `count` blocks, numbered from 0."""
    return tuple(sorted({count // 2 - 1 if count > 1 else 0, count - 1}))


def choose_layers(layers: Sequence[int] | None, count: int) -> list[int]:
    """`layers` checked and ascending, or the default ones of a tower of `count` blocks."""
    return list(default_layers(count) if layers is None else check_layers(layers, count))


def check_layers(layers: Sequence[int], count: int) -> tuple[int, ...]:
    """`layers` ascending; raises InputError for a block that the tower has not."""
    if beyond := [layer for layer in layers if not 0 <= layer < count]:
        raise InputError(f"no vision block {beyond[0]}: the tower has {count}, numbered 0 to {count - 1}")
    return tuple(sorted(set(layers)))


def build_towers(sizes: TowerSizes) -> CLIP:
    """open_clip's CLIP with QuickGELU, freshly initialised, float32."""
    return CLIP(
        embed_dim=sizes.embed_dim,
        vision_cfg=CLIPVisionCfg(
            layers=sizes.vision_layers,
            width=sizes.vision_width,
            head_width=sizes.head_width,
            patch_size=sizes.patch_size,
            image_size=sizes.image_size,
        ),
        text_cfg=CLIPTextCfg(
            context_length=sizes.context_length,
            vocab_size=sizes.vocabulary,
            width=sizes.text_width,
            heads=sizes.text_width // sizes.head_width,
            layers=sizes.text_layers,
        ),
        quick_gelu=True,
    )


def encode_frames(
    visual: VisionTransformer, pixels_BCYX: Tensor, layers: Sequence[int] = ()
) -> tuple[Tensor, dict[int, Tensor]]:
    """Features [B, D] of the images, not normalised, and the tokens [B, L, width] after each of `layers`.

    The tokens are the residual stream, [CLS] first, before any LayerNorm.
    """
    if not layers:
        return visual(pixels_BCYX), {}
    found = visual.forward_intermediates(
        pixels_BCYX, indices=sorted(layers), output_fmt="NLC", output_extra_tokens=True
    )
    tokens = (
        torch.cat(parts, dim=1)
        for parts in zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
    )
    return found["image_features"], dict(zip(sorted(layers), tokens, strict=True))


def vision_head(visual: VisionTransformer) -> Tensor:
    """What stands behind the last block [P, width] float32: weight and bias of the last norm, then the
    projection, a row for each of its outputs (P = 2 + embed_dim)."""
    norm, projection = visual.ln_post, visual.proj.T
    return torch.cat((torch.stack((norm.weight, norm.bias)), projection)).detach().float()


def head_specs(visual: VisionTransformer, layers: Sequence[int]) -> tuple[SignalSpec, ...]:
    """Of `vision_head`, where the tapped `layers` reach the tower's end and [CLS] goes on from there."""
    if not layers or max(layers) != len(visual.transformer.resblocks) - 1:
        return ()
    pools_cls = visual.pool_type == "tok" and visual.attn_pool is None
    if not pools_cls or visual.proj is None or not isinstance(visual.ln_post, nn.LayerNorm):
        return ()
    width, joint = visual.proj.shape
    return (SignalSpec(VISION_HEAD, {"P": 2 + joint, "D": width}, FLOAT32),)


def encode_words(towers: CLIP, ids_BW: Tensor) -> tuple[Tensor, Tensor]:
    """Sentence features [B, D] and word features [B, W, D] of every position, none normalised.

    ids_BW: token ids, 0 for padding, the end token the largest id of its row; W may be shorter than
    the context length, then the first W positions are used. The mask is causal and nothing else.
    """
    words = ids_BW.shape[1]
    hidden = towers.token_embedding(ids_BW) + towers.positional_embedding[:words]
    hidden = towers.transformer(hidden, attn_mask=towers.attn_mask[:words, :words])
    features_BWD = towers.ln_final(hidden) @ towers.text_projection
    end_B = ids_BW.argmax(dim=1)
    return features_BWD[torch.arange(len(ids_BW), device=ids_BW.device), end_B], features_BWD


def to_pixels(frames_BYXC: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 RGB frames [B, Y, X, C] to normalised float32 [B, C, Y, X]."""
    shape = (1, 3, 1, 1)
    pixels_BCYX = frames_BYXC.permute(0, 3, 1, 2).float() / 255.0
    return (pixels_BCYX - pixels_BCYX.new_tensor(mean).view(shape)) / pixels_BCYX.new_tensor(std).view(shape)
