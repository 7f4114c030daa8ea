"""What a fit starts from: CLIP's towers under a video model, or a checkpoint of the same model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError, MissingFileError
from teacher_dump.checkpoints import load_strictly, read_state
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.hugging_face_clip import openai_names
from teacher_dump.models.open_clip_models import OPENAI_NUMBERS
from teacher_dump.weights_file import file_digest

TEMPORAL_LAYERS = 4
"""CLIP4Clip's and X-CLIP's transformer over frames (`modules/cross-base/cross_config.json`)."""
CLIP_WEIGHTS = "CLIP's weights (a state dict under OpenAI's or Hugging Face's names)"


def first_state(path: Path | None, teacher: str, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `path`, and file name and digest for the result's metadata; raises MissingFileError
    that says `what` to give."""
    if path is None:
        raise MissingFileError(f"fitting {teacher!r} starts from {what}; name it by --checkpoint FILE")
    state = read_state(path, teacher, what)
    return state, {"file": path.name, "sha256": file_digest(path)}


def clip_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Towers under OpenAI's names, from OpenAI's, open_clip's or Hugging Face's."""
    if any(name.startswith("text_model.") for name in state):
        return openai_names(state)
    return {name: value for name, value in state.items() if name not in OPENAI_NUMBERS}


def is_of_video_model(state: Mapping[str, Tensor]) -> bool:
    """Whether `state` is of a model over CLIP, which keeps the towers under "clip."."""
    return any(name.startswith("clip.") for name in state)


def temporal_layers(towers: TowerSizes) -> int:
    """How many blocks over frames a model on these towers begins with; InputError where they don't fit."""
    if towers.embed_dim != towers.text_width:
        raise InputError(
            f"the transformer over frames starts from CLIP's text blocks, which are {towers.text_width} wide "
            f"where frames are {towers.embed_dim}; give towers whose widths are equal"
        )
    return min(TEMPORAL_LAYERS, towers.text_layers)


def start_from_clip(model: Any, towers: Mapping[str, Tensor], where: str) -> None:
    """Load the towers, and begin the transformer over frames with CLIP's first text blocks and positions
    (CLIP4Clip `modules/modeling.py`, `from_pretrained`); what is left stays as the model was built."""
    load_strictly(model.clip, towers, where)
    with torch.no_grad():
        blocks = zip(model.transformerClip.resblocks, model.clip.transformer.resblocks, strict=False)
        for over_time, of_text in blocks:
            over_time.load_state_dict(of_text.state_dict())
        model.frame_position_embeddings.weight.copy_(model.clip.positional_embedding)


def resized_positions(table_1LD: Tensor, patches: int) -> Tensor:
    """[1, 1 + patches, D]: the grid of a ViT's positions brought to another size, [CLS] as it is
    (salesforce/ALBEF `models/vit.py`, bicubic)."""
    grid = table_1LD[:, 1:]
    if grid.shape[1] == patches:
        return table_1LD
    old, new = math.isqrt(grid.shape[1]), math.isqrt(patches)
    square = grid.unflatten(1, (old, old)).permute(0, 3, 1, 2)
    square = functional.interpolate(square, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([table_1LD[:, :1], square.flatten(2).transpose(1, 2)], dim=1)


def normal_matrices(module: nn.Module, std: float) -> None:
    """BERT's initialisation: matrices from N(0, std), vectors of linear layers 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
