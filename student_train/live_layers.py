"""A vision transformer that makes the layers itself, where the cache holds none, or to compare.

Frozen it runs without gradients, so that its memory is that of a forward pass; tuned it is trained as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from store.errors import InputError
from student_train.clip_towers import create


class LiveLayers(nn.Module):
    """`visual`, a vision transformer of open_clip, frozen or tuned."""

    def __init__(self, visual: Any, tuned: bool) -> None:
        super().__init__()
        if not hasattr(visual, "forward_intermediates") or not hasattr(visual, "ln_post"):
            raise InputError(
                f"{type(visual).__name__} is no vision transformer of open_clip that gives its layers; take "
                "the layers from a cache"
            )
        # The student has a last norm and a projection of its own.
        visual.ln_post, visual.proj = nn.Identity(), None
        self.visual, self.tuned = visual.requires_grad_(tuned), tuned

    @classmethod
    def of(cls, architecture: str, tuned: bool) -> LiveLayers:
        """That of `architecture`, freshly initialised; raises UnknownNameError, InputError."""
        return cls(create(architecture, half=False).visual, tuned)

    @property
    def width(self) -> int:
        return len(self.visual.class_embedding)

    @property
    def patches(self) -> int:
        return len(self.visual.positional_embedding) - 1

    @property
    def depth(self) -> int:
        return len(self.visual.transformer.resblocks)

    def forward(self, pixels_BMCYX: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Tokens [B, M, L, width] after each of `layers`, [CLS] first, of normalised pixels."""
        wanted = sorted(set(layers))
        with nullcontext() if self.tuned else torch.no_grad():
            found = self.visual.forward_intermediates(
                pixels_BMCYX.flatten(0, 1), indices=wanted, output_fmt="NLC", output_extra_tokens=True,
                intermediates_only=True,
            )  # fmt: skip
        parts = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
        tokens = (torch.cat(part, dim=1).unflatten(0, pixels_BMCYX.shape[:2]) for part in parts)
        return dict(zip(wanted, tokens, strict=True))
