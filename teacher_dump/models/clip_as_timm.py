"""CLIP's image tower under timm's names, so that a cross-encoder can start from it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

NAMES = {
    "ln_pre": "norm_pre",
    "ln_post": "norm",
    "conv1": "patch_embed.proj",
    "positional_embedding": "pos_embed",
    "class_embedding": "cls_token",
}
BLOCK_NAMES = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TABLES = ("pos_embed", "cls_token")


def timm_names(visual: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`visual`, the state of CLIP's image tower, as timm's VisionTransformer has it: without projection."""
    ours: dict[str, Tensor] = {}
    for name, value in visual.items():
        _, _, rest = name.partition("transformer.resblocks.")
        if rest:
            number, _, part = rest.partition(".")
            for theirs, own in BLOCK_NAMES.items():
                if part.startswith(theirs):
                    part = part.replace(theirs, own)
                    break
            ours[f"blocks.{number}.{part}"] = value
        elif name != "proj":
            first, dot, last = name.partition(".")
            own = NAMES[first]
            ours[f"{own}{dot}{last}"] = value.reshape(1, -1, value.shape[-1]) if own in TABLES else value
    return ours
