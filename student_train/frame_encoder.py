"""A light encoder of single frames from timm (MobileViT-v2 for CLIPPING), with maps tapped on the way.

timm is imported where it is needed, since that takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from store.errors import InputError, MissingFileError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.lookup import check_name
from student_train.clip_towers import WEIGHT_FILES, digest, load


class FrameEncoder(nn.Module):
    """`name` of timm, at random: last map -> mean over its pixels -> linear -> features [N, D].

    taps: which of its stages, from 0 for the finest, are given as maps. channels: factor on the channels of
    MobileViT-v2's stages. Raises UnknownNameError for a model that timm has not, InputError for a stage that
    it has not, or for other channels of another family.
    """

    def __init__(self, name: str, taps: Sequence[int], width: int, channels: float = 1.0) -> None:
        super().__init__()
        self.name = name
        self.backbone = create(name) if channels == 1 else thinner(name, channels)
        stages = self.backbone.feature_info.channels()
        if beyond := [tap for tap in taps if not 0 <= tap < len(stages)]:
            raise InputError(f"no stage {beyond[0]}: {name} has {len(stages)}, numbered from 0")
        self.taps = tuple(taps)
        self.projection = nn.Linear(stages[-1], width)

    def forward(self, pixels_NCYX: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features [N, D], not normalised, and the tapped maps [N, C, Y, X]."""
        maps = self.backbone(pixels_NCYX)
        return self.projection(maps[-1].mean((2, 3))), [maps[tap] for tap in self.taps]

    def map_sizes(self, side: int) -> list[tuple[int, int]]:
        """Channels and side of each tapped map of frames of `side` x `side` pixels."""
        was_training = self.training
        with torch.no_grad():
            _, maps = self.eval()(torch.zeros(1, 3, side, side))
        self.train(was_training)
        return [(found.shape[1], found.shape[2]) for found in maps]

    def load_public(self, weights: str) -> dict[str, Any]:
        """Take over `weights`, a tag of timm or a file; what to record of them, their sha256 included."""
        state = create(self.name, weights).state_dict()
        load(self.backbone, state, f"weights {weights!r} of {self.name}")
        return {"vision": self.name, "weights": Path(weights).name, "sha256": digest(state)}


def vision_statistics(name: str, weights: str | None) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std [C] by which the encoder wants pixels normalised: those of its public `weights`, a tag or
    a file of timm's, else CLIP's. Raises UnknownNameError for a tag that timm has not."""
    if weights is None:
        return CLIP_MEAN, CLIP_STD
    import timm

    check_name("vision", name, timm.list_models())
    tag = name
    if Path(weights).suffix not in WEIGHT_FILES:
        tag = f"{name}.{weights}"
        there = [full.removeprefix(f"{name}.") for full in timm.list_pretrained(f"{name}.*")]
        check_name(f"weights of {name}", weights, there)
    facts: Any = timm.get_pretrained_cfg(tag)
    return facts.mean, facts.std


def create(name: str, weights: str | None = None) -> Any:
    """timm's model giving its feature maps, at random or with `weights`."""
    import timm

    check_name("vision", name, timm.list_models())
    if weights is None:
        return timm.create_model(name, features_only=True)
    from_file = Path(weights).suffix in WEIGHT_FILES
    if from_file and not Path(weights).is_file():
        raise MissingFileError(f"no weights at {weights}; place them there or name another file")
    tag, overlay = (name, {"file": weights}) if from_file else (f"{name}.{weights}", None)
    try:
        return timm.create_model(tag, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, OSError, ValueError) as error:
        raise MissingFileError(
            f"weights {weights!r} of {name} do not fit, or are not here and could not be downloaded "
            f"({type(error).__name__}); connect to a network, or name a file of timm's in their place"
        ) from error


def thinner(name: str, channels: float) -> Any:
    """MobileViT-v2 `name` with `channels` times the channels of every stage, in steps of 8."""
    import timm
    from timm.models.mobilevit import model_cfgs

    check_name("vision with a factor on its channels", name, model_cfgs)
    whole = model_cfgs[name]

    def scaled(block: Any) -> Any:
        if isinstance(block, tuple | list):
            return tuple(scaled(one) for one in block)
        return replace(block, c=in_steps(block.c * channels))

    blocks, stem = tuple(scaled(block) for block in whole.blocks), in_steps(whole.stem_chs * channels)
    return timm.create_model(name, features_only=True, blocks=blocks, stem_chs=stem)


def in_steps(count: float, step: int = 8) -> int:
    return max(step, int(count) // step * step)
