"""Loader of the golden TeachCLIP vectors: official names and axis orders become ours here, nowhere else."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

BLOCK_NAMES = {
    "attn.in_proj_weight": "query_key_value.weight",
    "attn.in_proj_bias": "query_key_value.bias",
    "attn.out_proj.weight": "attention_out.weight",
    "attn.out_proj.bias": "attention_out.bias",
    "ln_1.weight": "attention_norm.weight",
    "ln_1.bias": "attention_norm.bias",
    "mlp.c_fc.weight": "mlp_in.weight",
    "mlp.c_fc.bias": "mlp_in.bias",
    "mlp.c_proj.weight": "mlp_out.weight",
    "mlp.c_proj.bias": "mlp_out.bias",
    "ln_2.weight": "mlp_norm.weight",
    "ln_2.bias": "mlp_norm.bias",
}
OTHER_NAMES = {
    "clip.logit_scale": "log_logit_scale",
    "frameLinear.weight": "attention.hidden.weight",
    "frameLinear.bias": "attention.hidden.bias",
    "frameLinear2.weight": "attention.score.weight",
    "frameLinear2.bias": "attention.score.bias",
}


def load_tensors(golden: Path) -> dict[str, Tensor]:
    return load_file(golden.with_suffix(".safetensors"))


def student_parameters(tensors: dict[str, Tensor], frames: int) -> dict[str, Tensor]:
    """Our parameters of the features-only student: the towers' are left out, text projection is identity."""
    ours: dict[str, Tensor] = {}
    for name, value in tensors.items():
        official = name.removeprefix("state.")
        if official in OTHER_NAMES:
            ours[OTHER_NAMES[official]] = value
        elif official == "frame_position_embeddings.weight":
            ours["temporal.position"] = value[:frames]
            ours["text_projection.weight"] = torch.eye(value.shape[1])
        elif official.startswith("transformerClip.resblocks."):
            number, _, rest = official.removeprefix("transformerClip.resblocks.").partition(".")
            ours[f"temporal.blocks.{number}.{BLOCK_NAMES[rest]}"] = value
    return ours
