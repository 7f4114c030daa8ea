"""ALBEF's retrieval model: two encoders, their projections, and a head that judges a fused pair.

Li et al. 2021, "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation";
the numbers are those of salesforce/ALBEF `models/model_retrieval.py` and `Retrieval.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from store.errors import InputError
from teacher_dump.models.bert_fusion import BertSizes, FusionBert
from teacher_dump.models.clip_towers import count_blocks

HEAD_WIDTH = 64
MATCH = 1
PAIRS_AT_ONCE = 128
# Of training (queues of negatives, masked language modelling); nothing of it is read in evaluation.
TRAINING_ONLY = (
    "image_queue",
    "text_queue",
    "idx_queue",
    "queue_ptr",
    "text_encoder.cls.",
    "text_encoder_m.cls.",
)
ENCODERS = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
POSITION_IDS = "embeddings.position_ids"
FRAME_POSITION = "frame_position_embeddings.weight"
CLIP_NORM = "visual_encoder.norm_pre.weight"


@dataclass(frozen=True)
class AlbefSizes:
    """Of the image encoder, the text encoder and the joint space.

    frames: M of a video, whose tokens are told apart by a learned position each; the official model sees one
    frame and has none. clip_vision: the image encoder is CLIP's (a LayerNorm before the blocks, QuickGELU).
    """

    image_size: int
    patch_size: int
    image_width: int
    image_layers: int
    image_heads: int
    image_hidden: int
    text: BertSizes
    embed_dim: int
    frames: int = 1
    clip_vision: bool = False

    @property
    def tokens(self) -> int:
        """L: [CLS] and the patches."""
        return 1 + (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], image_heads: int | None = None, text_heads: int | None = None
    ) -> AlbefSizes:
        """Read the sizes off `own_state`; heads are 64 wide unless told."""
        image_width, _, patch_size, _ = state["visual_encoder.patch_embed.proj.weight"].shape
        patches = state["visual_encoder.pos_embed"].shape[1] - 1
        vocabulary, text_width = state["text_encoder.embeddings.word_embeddings.weight"].shape
        prefix = "text_encoder.encoder.layer."
        fusing = {int(name.split(".")[3]) for name in state if name.startswith(prefix) and "crossatt" in name}
        layers = count_blocks(state, prefix)
        text = BertSizes(
            vocabulary=vocabulary,
            width=text_width,
            layers=layers,
            fusion_layer=min(fusing, default=layers),
            heads=text_heads or text_width // HEAD_WIDTH,
            hidden=len(state[f"{prefix}0.intermediate.dense.weight"]),
            positions=len(state["text_encoder.embeddings.position_embeddings.weight"]),
            image_width=image_width,
            token_types=len(state["text_encoder.embeddings.token_type_embeddings.weight"]),
        )
        return cls(
            image_size=math.isqrt(patches) * patch_size,
            patch_size=patch_size,
            image_width=image_width,
            image_layers=count_blocks(state, "visual_encoder.blocks."),
            image_heads=image_heads or image_width // HEAD_WIDTH,
            image_hidden=len(state["visual_encoder.blocks.0.mlp.fc1.weight"]),
            text=text,
            embed_dim=len(state["vision_proj.weight"]),
            frames=len(state[FRAME_POSITION]) if FRAME_POSITION in state else 1,
            clip_vision=CLIP_NORM in state,
        )


def own_state(state: Mapping[str, Tensor], momentum: bool = False) -> dict[str, Tensor]:
    """An official state (retrieval or pre-training) under our names: one copy of the encoders, no queues.

    momentum: take the momentum copies of both encoders and projections; the matching head has none. Raises
    InputError for a state that is none of ALBEF's, or lacks the copy.
    """
    own: dict[str, Tensor] = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        is_copy = part.endswith("_m") and part.removesuffix("_m") in ENCODERS
        other_copy = (part in ENCODERS or is_copy) and is_copy != momentum
        if other_copy or name.startswith(TRAINING_ONLY) or name.endswith(POSITION_IDS):
            continue
        # Pre-training kept BERT inside a model for masked language modelling.
        part, rest = part.removesuffix("_m") if is_copy else part, rest.removeprefix("bert.")
        own[f"{part}.{rest}" if rest else part] = value
    for needed in ("visual_encoder.pos_embed", "text_encoder.embeddings.word_embeddings.weight"):
        if needed not in own:
            copy = " (momentum copy)" if momentum else ""
            raise InputError(
                f"not an ALBEF checkpoint: it lacks {needed!r}{copy}; it has "
                f"{', '.join(sorted(state)[:3])} ..."
            )
    return own


class Albef(nn.Module):
    """Parameters are named as the online ones of the official checkpoint. Letters: V images, T texts."""

    def __init__(self, sizes: AlbefSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.visual_encoder = VisionTransformer(
            img_size=sizes.image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.image_width,
            depth=sizes.image_layers,
            num_heads=sizes.image_heads,
            mlp_ratio=sizes.image_hidden / sizes.image_width,
            num_classes=0,
            global_pool="",
            pre_norm=sizes.clip_vision,
            act_layer=QuickGELU if sizes.clip_vision else None,
        )
        if sizes.frames > 1:
            self.frame_position_embeddings = nn.Embedding(sizes.frames, sizes.image_width)
        self.text_encoder = FusionBert(sizes.text)
        self.vision_proj = nn.Linear(sizes.image_width, sizes.embed_dim)
        self.text_proj = nn.Linear(sizes.text.width, sizes.embed_dim)
        self.itm_head = nn.Linear(sizes.text.width, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))

    def image_blocks(self, pixels_VCYX: Tensor, layers: list[int]) -> list[Tensor]:
        """The residual stream [V, L, D] after each of `layers`, [CLS] first, before the last LayerNorm."""
        found: Any = self.visual_encoder.forward_intermediates(
            pixels_VCYX, indices=layers, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        return [torch.cat([prefix, patches], dim=1) for patches, prefix in found]

    def image_tokens(self, last_block_VMLD: Tensor) -> Tensor:
        """Tokens [V, M, L, D] of each frame after the final LayerNorm, from those of the last block."""
        tokens: Tensor = self.visual_encoder.norm(last_block_VMLD)
        return tokens

    def seen_tokens(self, image_VMLD: Tensor) -> Tensor:
        """What the fusion layers look at, [V, M * L, D]: all frames' tokens one after another, as BLIP shows
        it videos (salesforce/BLIP `eval_retrieval_video.py`), each with its frame's position."""
        if self.sizes.frames > 1:
            image_VMLD = image_VMLD + self.frame_position_embeddings.weight[:, None]
        return image_VMLD.flatten(1, 2)

    def matched(self, image_BLD: Tensor, text_BWD: Tensor, valid_BW: Tensor) -> tuple[Tensor, Tensor]:
        """Fused [CLS] [B, D] and match logits [B, 2] of row i of the one with row i of the other.

        image_BLD: `seen_tokens`; one image may serve all texts. At most PAIRS_AT_ONCE pairs are in memory.
        """
        fused = []
        for start in range(0, len(text_BWD), PAIRS_AT_ONCE):
            rows = slice(start, start + PAIRS_AT_ONCE)
            images = image_BLD if len(image_BLD) == 1 else image_BLD[rows]
            fused.append(self.text_encoder.fuse(text_BWD[rows], valid_BW[rows], images)[:, 0])
        fused_BD = torch.cat(fused)
        return fused_BD, self.itm_head(fused_BD)
