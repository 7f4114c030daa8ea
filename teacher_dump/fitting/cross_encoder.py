"""How ALBEF's retrieval model is trained: contrast against a queue, and matching against hard negatives.

Li et al. 2021, "Align before Fuse", sections 3.2 to 3.4; the numbers are those of salesforce/ALBEF
`models/model_retrieval.py`. Masked language modelling belongs to ALBEF's pre-training and is no part of
fine-tuning, there as here. BERT's dropout of 0.1 is left out: the frozen model has none. Letters: B videos
and their texts, Q entries of the queue, W words, N tokens of a video, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from teacher_dump.models.albef_model import ENCODERS, FRAME_POSITION, Albef

NO_VIDEO = -100
LEAST_WEIGHT = 1e-4
LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.001, 0.5


@dataclass(frozen=True)
class Encoded:
    """A batch after both encoders, before fusion.

    tokens: of all frames, [B, N, D]. words: [B, W, D]; valid [B, W]: which are there. frame, text: normalised
    embeddings, [B, M, D] of each frame and [B, D].
    """

    tokens: Tensor
    words: Tensor
    valid: Tensor
    frame: Tensor
    text: Tensor


def seen_frames(model: Albef, pixels: Tensor, places: Sequence[int]) -> Tensor:
    """Tokens [B, M, L, D] of the frames `pixels` [B * M, C, Y, X]; places: (B, M)."""
    blocks = model.image_blocks(pixels, [model.sizes.image_layers - 1])[0]
    return model.image_tokens(blocks.unflatten(0, tuple(places)))


def encode(model: Albef, image_BMLD: Tensor, ids_BW: Tensor, valid_BW: Tensor) -> Encoded:
    """The text encoder and both projections, beside the frames' tokens."""
    words_BWD = model.text_encoder.text(ids_BW, valid_BW)
    return Encoded(
        model.seen_tokens(image_BMLD),
        words_BWD,
        valid_BW,
        functional.normalize(model.vision_proj(image_BMLD[:, :, 0]), dim=-1),
        functional.normalize(model.text_proj(words_BWD[:, 0]), dim=-1),
    )


class MomentumCopy(nn.Module):
    """Slow copies of both encoders, and the queue of what they said last.

    momentum: share of a copy that a step keeps. queue: Q entries, each a video's frames [M, D] and a text [D]
    with the number of their video, by which repeated videos count as positives.
    """

    frame_queue: Tensor
    text_queue: Tensor
    owner_queue: Tensor
    place: Tensor

    def __init__(self, model: Albef, momentum: float, queue: int) -> None:
        super().__init__()
        self.momentum = momentum
        self.model = copy.deepcopy(model).requires_grad_(False)
        frames, width = model.sizes.frames, model.sizes.embed_dim
        generator = torch.Generator().manual_seed(0)
        for name, shape in (("frame_queue", (queue, frames, width)), ("text_queue", (queue, width))):
            noise = torch.randn(shape, generator=generator)
            self.register_buffer(name, functional.normalize(noise, dim=-1))
        self.register_buffer("owner_queue", torch.full((queue,), NO_VIDEO))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def follow(self, model: Albef) -> None:
        """Move the copies of the encoders a little towards `model`; what is no encoder's is taken over."""
        online = dict(model.named_parameters())
        for name, slow in self.model.named_parameters():
            if name.startswith(ENCODERS) or name == FRAME_POSITION:
                slow.lerp_(online[name], 1 - self.momentum)
            else:
                slow.copy_(online[name])

    @torch.no_grad()
    def push(self, encoded: Encoded, owner_B: Tensor) -> None:
        """Replace the oldest entries by this batch's, as many as the queue has places for."""
        size = len(self.owner_queue)
        rows = (self.place + torch.arange(min(len(owner_B), size), device=owner_B.device)) % size
        self.frame_queue[rows] = encoded.frame[: len(rows)]
        self.text_queue[rows] = encoded.text[: len(rows)]
        self.owner_queue[rows] = owner_B[: len(rows)]
        self.place.add_(len(rows)).remainder_(size)


def contrast_loss(
    online: Encoded, slow: Encoded, memory: MomentumCopy, owner_B: Tensor, temperature: Tensor, alpha: float
) -> Tensor:
    """ITC against this batch's slow embeddings and the queue (equations 3 and 6 of the paper).

    Targets: all entries of the same video in equal parts, mixed with what the slow copies believe by `alpha`.
    """
    owners = torch.cat([owner_B, memory.owner_queue])
    same_BN = (owner_B[:, None] == owners[None]).float()
    same_BN = same_BN / same_BN.sum(1, keepdim=True)
    texts_ND = torch.cat([slow.text, memory.text_queue])
    frames_NMD = torch.cat([slow.frame, memory.frame_queue])
    losses = []
    for similarity_BN, believed_BN in (
        (similarity(online.frame, texts_ND), similarity(slow.frame, texts_ND)),
        (similarity(frames_NMD, online.text).T, similarity(frames_NMD, slow.text).T),
    ):
        with torch.no_grad():
            target_BN = alpha * (believed_BN / temperature).softmax(-1) + (1 - alpha) * same_BN
        losses.append(-(target_BN * (similarity_BN / temperature).log_softmax(-1)).sum(-1).mean())
    return torch.stack(losses).mean()


def match_loss(
    model: Albef,
    online: Encoded,
    slow: Encoded,
    owner_B: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """ITM: a pair of each video with its text, one with a hard text, one of its text with a hard video.

    A negative is drawn by the softmax of its contrastive similarity, never of the same video.
    """
    with torch.no_grad():
        other_BB = owner_B[:, None] != owner_B[None]
        if not bool(other_BB.any(1).all()):
            return online.tokens.new_zeros(())  # a batch of one video has no negative
        of_video_BB = similarity(online.frame, slow.text) / model.temp
        of_text_BB = similarity(slow.frame, online.text).T / model.temp
        hard_text_B = drawn(of_video_BB, other_BB, generator)
        hard_video_B = drawn(of_text_BB, other_BB, generator)
    tokens = torch.cat([online.tokens, online.tokens[hard_video_B], online.tokens])
    words = torch.cat([online.words, online.words, online.words[hard_text_B]])
    valid = torch.cat([online.valid, online.valid, online.valid[hard_text_B]])
    fused_BD = model.text_encoder.fuse(words, valid, tokens)[:, 0]
    is_match = torch.zeros(len(fused_BD), dtype=torch.long, device=fused_BD.device)
    is_match[: len(owner_B)] = 1
    return functional.cross_entropy(model.itm_head(fused_BD), is_match)


def similarity(frames_VMD: Tensor, text_TD: Tensor) -> Tensor:
    """[V, T]: the cosine of each text with the nearest frame of each video; of one frame, ALBEF's own."""
    return torch.einsum("vmd,td->vtm", frames_VMD, text_TD).amax(-1)


def drawn(similarity_BB: Tensor, allowed_BB: Tensor, generator: torch.Generator) -> Tensor:
    """A column [B] of each row, drawn by softmax among the allowed ones; on the CPU, so that every device
    draws the same from the same similarities."""
    weight_BB = (similarity_BB.softmax(-1) + LEAST_WEIGHT) * allowed_BB
    return torch.multinomial(weight_BB.cpu(), 1, generator=generator)[:, 0].to(similarity_BB.device)


@torch.no_grad()
def clamp_temperature(model: Albef) -> None:
    """Keep it where ALBEF's pre-training does before each step (`models/model_pretrain.py`); the official
    fine-tuning has no bounds for it."""
    model.temp.clamp_(LEAST_TEMPERATURE, LARGEST_TEMPERATURE)
