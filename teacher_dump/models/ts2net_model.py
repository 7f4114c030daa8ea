"""TS2-Net: patches shifted through time, the most telling ones kept, frames weighed by the sentence.

Liu et al. 2022, "TS2-Net: Token Shift and Selection Transformer for Text-Video Retrieval"; the numbers are
those of yuqi657/ts2_net `modules/modeling.py` (and, without the shift, of TeachCLIP's fork
`modules/modeling_ts2net.py`), but our scores are [video, text].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from teacher_dump.models.clip_towers import CLIP_HEAD_WIDTH, TowerSizes, build_towers, count_blocks, towers_of
from teacher_dump.models.temporal import over_time, temporal_transformer

SHIFTED = re.compile(r"clip\.visual\.transformer\.resblocks\.(\d+)\.attn\.net\.")
# In every official checkpoint, and never read in the official forward.
NEVER_USED = ("visual_prompt_encoder.", "text_token_selector.")
NEEDED = ("frame_position_embeddings.weight", "visual_token_selector.score_predictor.in_conv.1.weight")
MASKED_SCORE = -1e18
FRAME_WEIGHT_SCALE = 4.0


@dataclass(frozen=True)
class Ts2NetSizes:
    """Sizes of the towers and of what lies above.

    shifted: vision blocks whose attention sees tokens of the neighbouring frames; TeachCLIP's fork has none.
    shift_div: every (L // shift_div)-th token is one of them. kept: K patches of a frame that are selected.
    """

    towers: TowerSizes
    temporal_layers: int
    positions: int
    shifted: tuple[int, ...] = ()
    shift_div: int = 7
    kept: int = 3

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], head_width: int = CLIP_HEAD_WIDTH) -> Ts2NetSizes:
        """Read the sizes off an official state, whose shifted blocks are named `attn.net`."""
        for name in NEEDED:
            if name not in state:
                raise InputError(
                    f"not a TS2-Net checkpoint: it lacks {name!r}; it has {', '.join(sorted(state)[:3])} ..."
                )
        shifted = {int(found[1]) for name in state if (found := SHIFTED.match(name))}
        return cls(
            towers=TowerSizes.from_state(towers_of(state), head_width),
            temporal_layers=count_blocks(state, "transformerClip.resblocks."),
            positions=len(state["frame_position_embeddings.weight"]),
            shifted=tuple(sorted(shifted)),
        )


def own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state under our names: shifted blocks like any other, without what is never used."""
    return {
        name.replace(".attn.net.", ".attn.") if SHIFTED.match(name) else name: value
        for name, value in state.items()
        if not name.startswith(NEVER_USED)
    }


class ScorePredictor(nn.Module):
    """Scores [N, L] in -1..1 of tokens [N, L, D], each seen beside the frame's [CLS]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.in_conv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, half, bias=False), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(2 * half, half, bias=False), nn.GELU(), nn.Linear(half, 1, bias=False), nn.Tanh()
        )

    def forward(self, tokens_NLD: Tensor) -> Tensor:
        local_NLD = self.in_conv(tokens_NLD)
        beside_cls = torch.cat([local_NLD, local_NLD[:, :1].expand_as(local_NLD)], dim=-1)
        scores_NL: Tensor = self.out_conv(beside_cls)[..., 0]
        return scores_NL


class TokenSelector(nn.Module):
    """Holds the predictor under its official name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score_predictor = ScorePredictor(width)


class Ts2Net(nn.Module):
    """The towers, the token selector and the temporal transformer; parameters are named as in the fork."""

    def __init__(self, sizes: Ts2NetSizes) -> None:
        super().__init__()
        if sizes.shifted and sizes.towers.tokens < sizes.shift_div:
            raise InputError(
                f"a token shift by {sizes.shift_div} needs as many tokens; there are {sizes.towers.tokens}"
            )
        self.sizes = sizes
        width = sizes.towers.embed_dim
        self.clip = build_towers(sizes.towers)
        self.frame_position_embeddings = nn.Embedding(sizes.positions, width)
        self.transformerClip = temporal_transformer(width, sizes.temporal_layers, sizes.towers.head_width)
        self.visual_token_selector = TokenSelector(width)

    def tokens(
        self, pixels_BCYX: Tensor, frames: int, layers: tuple[int, ...] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Tokens [B, L, D] in the joint space, B = V * M, and [B, L, width] after each of `layers`."""
        visual: VisionTransformer = self.clip.visual
        hidden, tapped = visual._embeds(pixels_BCYX), {}
        for number, block in enumerate(visual.transformer.resblocks):
            hidden = self._shifted(block, hidden, frames) if number in self.sizes.shifted else block(hidden)
            if number in layers:
                tapped[number] = hidden
        return visual.ln_post(hidden) @ visual.proj, tapped

    def _shifted(self, block: ResidualAttentionBlock, hidden_BLD: Tensor, frames: int) -> Tensor:
        """The block with its attention's input, not its residual stream, shifted through time."""
        normed = block.ln_1(hidden_BLD).unflatten(0, (-1, frames))
        shifted = shift_through_time(normed, self.sizes.shift_div).flatten(0, 1)
        hidden_BLD = hidden_BLD + block.ls_1(block.attention(q_x=shifted))
        out: Tensor = hidden_BLD + block.ls_2(block.mlp(block.ln_2(hidden_BLD)))
        return out

    def select(self, tokens_BLD: Tensor, noise_BSN: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """[CLS] and the K kept patches [B, 1 + K, D], their indicator [B, K, L - 1], and the scores [B, L].

        noise_BSN: what is added to the patches' scores in each of S draws, already times its sigma; None
        keeps the K best patches without any.
        """
        scores_BL = self.visual_token_selector.score_predictor(tokens_BLD)
        indicator_BKN = soft_top_k(scores_BL[:, 1:], self.sizes.kept, noise_BSN)
        patches = indicator_BKN.to(tokens_BLD.dtype) @ tokens_BLD[:, 1:]
        return torch.cat([tokens_BLD[:, :1], patches], dim=1), indicator_BKN, scores_BL

    def temporal_frames(self, selected_VND: Tensor, frame_valid_VM: Tensor) -> Tensor:
        """Frames [V, M, D] after the temporal transformer over all N = M * (1 + K) tokens, not normalised."""
        each = 1 + self.sizes.kept
        out = over_time(
            self.transformerClip, self.frame_position_embeddings, selected_VND, frame_valid_VM.repeat(1, each)
        )
        return out[:, ::each]

    def effective_mask(self, frame_valid_VM: Tensor) -> Tensor:
        """Bool [V, M]: what the official similarity takes for the frames' mask.

        The mask is tiled over tokens although tokens are frame by frame, so that frame f sees the mask of
        frame (1 + K) * f mod M. Only videos that lack frames are concerned.
        """
        each = 1 + self.sizes.kept
        return frame_valid_VM.repeat(1, each)[:, ::each]

    def logits(self, temporal_VMD: Tensor, frame_valid_VM: Tensor, sentence_TD: Tensor) -> Tensor:
        """[V, T]: frames' cosines with the sentence, weighed by a softmax over the frames of themselves."""
        cosine_VTM = frame_cosine(temporal_VMD, sentence_TD)
        mask_V1M = self.effective_mask(frame_valid_VM)[:, None]
        masked = cosine_VTM * mask_V1M
        scaled = FRAME_WEIGHT_SCALE * masked / masked.norm(dim=-1, keepdim=True)
        weight = scaled.masked_fill(~mask_V1M, MASKED_SCORE).softmax(-1)
        scores: Tensor = (weight * cosine_VTM).sum(-1) * self.clip.logit_scale.exp()
        return scores


def shift_through_time(tokens_VMLD: Tensor, div: int) -> Tensor:
    """Whole tokens from the frame before and the frame after, [CLS] never; padded frames take part.

    Tokens 1, 1 + fold, ... come from the frame before, tokens 4, 4 + fold, ... from the one after (fold =
    L // div); the first and the last frame keep theirs where they have no such neighbour.
    """
    fold = tokens_VMLD.shape[2] // div
    out = tokens_VMLD.clone()
    out[:, 1:, 1::fold] = tokens_VMLD[:, :-1, 1::fold]
    out[:, :-1, 4::fold] = tokens_VMLD[:, 1:, 4::fold]
    return out


def soft_top_k(scores_BN: Tensor, kept: int, noise_BSN: Tensor | None) -> Tensor:
    """Mean over S draws of the one-hot places of the `kept` highest noisy scores: [B, K, N] float32.

    Slots are ordered by place, not by score (Cordonnier et al. 2021, perturbed top-k).
    """
    noisy_BSN = scores_BN[:, None].float()
    if noise_BSN is not None:
        noisy_BSN = noisy_BSN + noise_BSN
    place_BKS = noisy_BSN.topk(kept, dim=-1).indices.sort(dim=-1).values.transpose(1, 2)
    count_BKN = torch.zeros(len(scores_BN), kept, scores_BN.shape[1], device=scores_BN.device)
    count_BKN.scatter_add_(2, place_BKS, torch.ones_like(place_BKS, dtype=count_BKN.dtype))
    return count_BKN / place_BKS.shape[2]


def frame_cosine(frames_VMD: Tensor, sentence_TD: Tensor) -> Tensor:
    """Cosine [V, T, M] of every frame with every sentence."""
    return torch.einsum(
        "vmd,td->vtm", functional.normalize(frames_VMD, dim=-1), functional.normalize(sentence_TD, dim=-1)
    )
