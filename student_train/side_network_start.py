"""What a side network starts from: the last norm and projection, text tower and backbone of public weights.

The layers in a cache end before the last norm; the norm and the projection behind it are a signal of their
own, `vision_head`. The text tower, which trains, and a backbone that runs live come from public weights: a
tag of open_clip, or the file that the teacher was dumped from (its parameters named as OpenAI's, alone or
under "clip."). So does a head that has a bias (EVA-CLIP), which no teacher stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from store.errors import InputError
from store.signals import VISION_HEAD
from student_train.clip_towers import digest, load, public_state
from student_train.text_towers import TEXT_PARTS, ClipText

VIDEO_MODEL, TEXT_MODEL, VISUAL = "clip.", "text.", "visual."
KNOWN_TOKENS, FIRST_KNOWN = "known_tokens", 2
TOKEN_TABLE = "token_embedding.weight"
OF_TIMM = {
    "visual.trunk.norm.weight": "visual.ln_post.weight",
    "visual.trunk.norm.bias": "visual.ln_post.bias",
    "visual.trunk.head.bias": "visual.proj_bias",
}
HEAD = ("ln_post.weight", "ln_post.bias", "proj", "proj_bias")


class FrameHead(nn.Module):
    """A frame's feature of its [CLS]: the frozen last norm, and the projection, which trains.

    bias: whether the projection has one (EVA-CLIP) or not (OpenAI's CLIP).
    """

    def __init__(self, width: int, joint: int, bias: bool) -> None:
        super().__init__()
        self.ln_post = nn.LayerNorm(width).requires_grad_(False)
        self.proj = nn.Parameter(torch.randn(width, joint) * width**-0.5)
        self.proj_bias = nn.Parameter(torch.zeros(joint)) if bias else None

    def take_over(self, rows_PD: Tensor) -> dict[str, Any]:
        """Set norm and projection to the signal `vision_head` [2 + joint, width]; what to record of it.

        Raises InputError for that of another architecture than the student's.
        """
        width, joint = self.proj.shape
        if tuple(rows_PD.shape) != (2 + joint, width):
            raise InputError(
                f"the teacher projects {rows_PD.shape[1]} numbers of [CLS] to {rows_PD.shape[0] - 2}, this "
                f"student {width} to {joint}; set "
                "model.architecture (and untaught_model.architecture) to the teacher's"
            )
        with torch.no_grad():
            self.ln_post.weight.copy_(rows_PD[0])
            self.ln_post.bias.copy_(rows_PD[1])
            self.proj.copy_(rows_PD[2:].T)
        return {"signal": VISION_HEAD, "sha256": digest({VISION_HEAD: rows_PD})}

    def forward(self, cls_BMD: Tensor) -> Tensor:
        """[B, M, joint], not normalised."""
        projected: Tensor = self.ln_post(cls_BMD) @ self.proj
        return projected if self.proj_bias is None else projected + self.proj_bias


@dataclass(frozen=True)
class Start:
    """state: by OpenAI's names. name: of the weights, for errors and the record."""

    architecture: str
    name: str
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, architecture: str, weights: str) -> Start:
        """weights: a tag of open_clip (downloaded), or a file. Raises MissingFileError, InputError."""
        return cls(architecture, Path(weights).name, openai_names(public_state(architecture, weights)))

    def into_head(self, head: FrameHead) -> dict[str, Any]:
        return self._into(head, self._visual(HEAD))

    def into_text(self, text: ClipText) -> dict[str, Any]:
        """Words that a teacher with a small vocabulary did not know stay as they are."""
        own = {name: value for name, value in self.state.items() if name.startswith(TEXT_PARTS)}
        if KNOWN_TOKENS in self.state and TOKEN_TABLE in own:
            table = text.tower.token_embedding.weight
            own[TOKEN_TABLE] = whole_table(own[TOKEN_TABLE], self.state[KNOWN_TOKENS].long(), table.detach())
        return self._into(text.tower, own)

    def into_visual(self, visual: nn.Module) -> dict[str, Any]:
        return self._into(visual, self._visual(("",)))

    @property
    def log_logit_scale(self) -> float:
        return float(self.state["logit_scale"])

    def _visual(self, parts: tuple[str, ...]) -> dict[str, Tensor]:
        names = {name: name.removeprefix(VISUAL) for name in self.state if name.startswith(VISUAL)}
        return {inner: self.state[name] for name, inner in names.items() if inner.startswith(parts)}

    def _into(self, module: nn.Module, own: Mapping[str, Tensor]) -> dict[str, Any]:
        load(module, own, f"weights {self.name!r} of {self.architecture}")
        taken = {name: own[name] for name in module.state_dict()}
        return {"architecture": self.architecture, "weights": self.name, "sha256": digest(taken)}


def openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` of a video model, of open_clip's towers on timm's trunks, or of CLIP itself, as CLIP names it.

    Raises InputError where there is no CLIP in it.
    """
    found = {}
    for name, value in state.items():
        plain = name.removeprefix(VIDEO_MODEL).removeprefix(TEXT_MODEL)
        found[OF_TIMM.get(plain, plain)] = value
    if "visual.trunk.head.weight" in found:
        found["visual.proj"] = found["visual.trunk.head.weight"].T
    if lacking := [name for name in ("visual.ln_post.weight", "visual.proj") if name not in found]:
        raise InputError(
            f"weights without {lacking[0]}, which stands behind the last layer of a vision transformer; give "
            "those of the teacher that made the layers"
        )
    return found


def whole_table(compact: Tensor, known_N: Tensor, table: Tensor) -> Tensor:
    """CLIP's table of words with the rows of a compact vocabulary: padding, unknown, N known, start, end."""
    if len(compact) != FIRST_KNOWN + len(known_N) + 2 or int(known_N.max()) >= len(table):
        raise InputError(f"{len(compact)} words do not fit {len(known_N)} known tokens; give a whole file")
    found = table.clone()
    found[known_N] = compact[FIRST_KNOWN:-2]
    found[-2:] = compact[-2:]
    return found
