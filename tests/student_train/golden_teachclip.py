"""Loader of the golden TeachCLIP vectors: official names and axis orders become ours here, nowhere else."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from student_train.temporal_transformer import BLOCK_NAMES

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
    ours = {
        name: value
        for name, value in official_parameters(tensors, frames).items()
        if not name.startswith("towers.")
    }
    ours["text_projection.weight"] = torch.eye(ours["temporal.position"].shape[1])
    return ours


def official_parameters(tensors: dict[str, Tensor], frames: int) -> dict[str, Tensor]:
    """Our parameters of the student that comes in by frames; official names may have "state." before them."""
    ours: dict[str, Tensor] = {}
    for name, value in tensors.items():
        official = name.removeprefix("state.")
        if official in OTHER_NAMES:
            ours[OTHER_NAMES[official]] = value
        elif official == "frame_position_embeddings.weight":
            ours["temporal.position"] = value[:frames]
        elif official.startswith("transformerClip.resblocks."):
            number, _, rest = official.removeprefix("transformerClip.resblocks.").partition(".")
            ours[f"temporal.blocks.{number}.{BLOCK_NAMES[rest]}"] = value
        elif official.startswith("clip."):
            ours[f"towers.model.{official.removeprefix('clip.')}"] = value
    return ours
