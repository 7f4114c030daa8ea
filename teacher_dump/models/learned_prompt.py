"""Texts with learned vectors before them: "[V]1 ... [V]K name", Text4Vis equation 7.

Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (CoOp); the numbers are those of
KaiyangZhou/CoOp `trainers/coop.py` with the name at the end, but for the full stop that Text4Vis has not.
Letters: C classes, W words, K learned vectors, D width of the text tower, E of the joint space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from store.errors import InputError
from store.inputs.class_names import IMAGE_PROMPT, PERSON_PROMPT
from teacher_dump.checkpoints import read_state, weights_digest
from teacher_dump.models.open_clip_models import keeps_words
from teacher_dump.weights_file import told_by

PLACEHOLDER = "X"
CONTEXT = "context"
PLACE = "{}"


@dataclass(frozen=True)
class LearnedPrompt:
    """The vectors [K, D], and plain JSON of them for an identity."""

    vectors: Tensor

    def described(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.vectors.numpy().tobytes()).hexdigest()
        return {"kind": "learned prompt", "vectors": len(self.vectors), "sha256": digest}

    @classmethod
    def read(cls, path: Path, model: nn.Module) -> LearnedPrompt:
        """From what a fit wrote; raises InputError where it was learned before other towers than `model`."""
        state = read_state(path, "classes", "what python -m teacher_dump fit classes writes")
        towers, wanted = told_by(path).get("towers_sha256"), weights_digest(model)
        if set(state) != {CONTEXT} or towers != wanted:
            raise InputError(
                f"{path} was learned for towers of digest {str(towers)[:12]}, these have {wanted[:12]}; "
                "learn the prompt for these, or give the towers that it was learned for"
            )
        return cls(state[CONTEXT])


def bare_name(text: str) -> str:
    """The class name of a text that has one of the datasets' single templates around it; any other as it
    is."""
    for template in (PERSON_PROMPT, IMAGE_PROMPT):
        before, _, after = template.partition(PLACE)
        if text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after):
            return text[len(before) : len(text) - len(after)]
    return text


def check_tower(model: Any) -> Any:
    """The text tower of `model`; InputError for one whose word vectors can't be replaced."""
    if not keeps_words(model):
        raise InputError("a prompt is learned for CLIP's text towers; choose another --architecture")
    return model if isinstance(model, CLIP) else model.text


def text_width(model: Any) -> int:
    """D of the vectors that go in."""
    return int(check_tower(model).token_embedding.weight.shape[1])


def encode_after(
    model: Any, tokenize: Callable[[list[str]], Tensor], context_KD: Tensor, names: Sequence[str]
) -> Tensor:
    """Features [C, E] of the names after the learned vectors, not normalised; with gradients to those."""
    text, count = check_tower(model), len(context_KD)
    start = " ".join([PLACEHOLDER] * count)
    ids_CW = tokenize([f"{start} {bare_name(name)}" for name in names]).to(context_KD.device)
    words = ids_CW.shape[1]
    hidden = text.token_embedding(ids_CW)
    context_CKD = context_KD.to(hidden.dtype).expand(len(names), -1, -1)
    hidden = torch.cat([hidden[:, :1], context_CKD, hidden[:, 1 + count :]], dim=1)
    mask = None if text.attn_mask is None else text.attn_mask[:words, :words]
    hidden = text.transformer(hidden + text.positional_embedding[:words], attn_mask=mask)
    hidden = text.ln_final(hidden)
    projection = text.text_projection
    hidden = projection(hidden) if isinstance(projection, nn.Linear) else hidden @ projection
    return text_global_pool(hidden, ids_CW, "argmax")
