"""CLIP's visual tower as a recognising student trains it: frames of a video may see each other inside.

    plain       every frame by itself
    token_t1d   [CLS] of a vision transformer takes part in a convolution over frames, before attention and
                again before the MLP of every block, by one kernel a block
    t1d, tsm    what every block of a ResNet's last two stages reads in its residual branch

open_clip's modules keep their parameters' names, so that public weights fit. Equal in numbers to
whwu95/Text4Vis (`clip/model.py`, `modules/temporal_modeling.py`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from store.errors import InputError
from store.lookup import check_name
from student_train.clip_towers import (
    create,
    digest,
    load,
    normalised,
    pixel_statistics,
    public_state,
)
from student_train.frame_shift import TOKEN_SHARE, TSM_SHARE, FrameConvolution

PLAIN, TOKEN_T1D, T1D, TSM = "plain", "token_t1d", "t1d", "tsm"
INSIDE = (PLAIN, TOKEN_T1D, T1D, TSM)
VISUAL = "visual."


class VisualTower(nn.Module):
    """`visual`, a vision transformer or a ResNet of open_clip, with `inside` of INSIDE.

    weights: those that it starts from, whose mean and std of pixels it takes, also where it is evaluated.
    Raises InputError where the tower has no place for `inside`.
    """

    def __init__(
        self, visual: Any, architecture: str, inside: str = PLAIN, weights: str | None = None
    ) -> None:
        super().__init__()
        check_name("inside", inside, INSIDE)
        is_transformer = hasattr(visual, "transformer")
        if inside != PLAIN and is_transformer != (inside == TOKEN_T1D):
            kind = "a vision transformer" if is_transformer else "no vision transformer"
            raise InputError(
                f"{architecture} is {kind}, where {inside!r} has no place; choose {TOKEN_T1D!r} for "
                f"transformers, {T1D!r} or {TSM!r} for ResNets, or {PLAIN!r}"
            )
        self.visual, self.architecture, self.inside = visual, architecture, inside
        self.mean, self.std = pixel_statistics(architecture, weights)
        self.shifts = nn.ModuleList()
        self._frames = 1
        if inside == TOKEN_T1D:
            width = len(visual.class_embedding)
            self.shifts.extend(FrameConvolution(width, TOKEN_SHARE) for _ in visual.transformer.resblocks)
        elif inside != PLAIN:
            for block in (*visual.layer3, *visual.layer4):
                shift = FrameConvolution(block.conv1.in_channels, TSM_SHARE, learned=inside == T1D)
                self.shifts.append(shift)
                block.conv1.register_forward_pre_hook(partial(self._shift_maps, shift))

    @classmethod
    def of(cls, architecture: str, inside: str = PLAIN, weights: str | None = None) -> VisualTower:
        """That of an architecture of open_clip, freshly initialised; raises UnknownNameError."""
        return cls(create(architecture, half=False).visual, architecture, inside, weights)

    @property
    def image_size(self) -> int:
        side = self.visual.image_size
        return int(side if isinstance(side, int) else side[0])

    @property
    def width(self) -> int:
        """D of a frame's feature."""
        return int(self.visual.output_dim)

    def encode_frames(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> Tensor:
        """Frame features [B, M, D] of uint8 RGB; a missing frame is encoded as zeros after normalisation."""
        frames = normalised(frames_BMYXC, self.mean, self.std) * frame_valid_BM[..., None, None, None]
        return self.encode_pixels(frames)

    def encode_pixels(self, pixels_BMCYX: Tensor) -> Tensor:
        """Frame features [B, M, D], not normalised, of pictures that have been normalised."""
        videos, frames = pixels_BMCYX.shape[:2]
        self._frames = frames
        pixels = pixels_BMCYX.flatten(0, 1)
        features = self._shifted_tokens(pixels) if self.inside == TOKEN_T1D else self.visual(pixels)
        return features.unflatten(0, (videos, frames))

    def _shift_maps(self, shift: FrameConvolution, _: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """Maps [B * M, C, Y, X] as a block's first convolution shall read them."""
        return shift(inputs[0].unflatten(0, (-1, self._frames))).flatten(0, 1)

    def _shifted_tokens(self, pixels_NCYX: Tensor) -> Tensor:
        """The transformer's features [N, D], with [CLS] shifted in every block."""
        tokens = self.visual._embeds(pixels_NCYX)
        for block, shift in zip(self.visual.transformer.resblocks, self.shifts, strict=True):
            tokens = self.shifted_block(block, shift, tokens)
        pooled, _ = self.visual._pool(tokens)
        features: Tensor = pooled @ self.visual.proj
        return features

    def shifted_block(self, block: Any, shift: nn.Module, tokens_NLD: Tensor) -> Tensor:
        """One block of the transformer; the shifted [CLS] stands in the residual stream from there on."""
        tokens_NLD = self._shift_first(shift, tokens_NLD)
        tokens_NLD = tokens_NLD + block.ls_1(block.attention(block.ln_1(tokens_NLD)))
        tokens_NLD = self._shift_first(shift, tokens_NLD)
        shifted: Tensor = tokens_NLD + block.ls_2(block.mlp(block.ln_2(tokens_NLD)))
        return shifted

    def _shift_first(self, shift: nn.Module, tokens_NLD: Tensor) -> Tensor:
        first = shift(tokens_NLD[:, 0].unflatten(0, (-1, self._frames))).flatten(0, 1)
        return torch.cat((first[:, None], tokens_NLD[:, 1:]), dim=1)

    def load_public(self, weights: str) -> dict[str, Any]:
        """Take over the visual tower of `weights`, a tag of open_clip or a file; what to record of them,
        sha256 and `log_logit_scale` included."""
        state = public_state(self.architecture, weights)
        self.mean, self.std = pixel_statistics(self.architecture, weights)
        own = {name.removeprefix(VISUAL): value for name, value in state.items() if name.startswith(VISUAL)}
        load(self.visual, own, f"weights {weights!r} of {self.architecture}")
        return {
            "architecture": self.architecture,
            "weights": Path(weights).name,
            "sha256": digest(own),
            "log_logit_scale": float(state["logit_scale"]),
        }
