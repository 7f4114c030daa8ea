"""ALBEF's text encoder: BERT whose upper half also looks at image tokens.

Li et al. 2021, "Align before Fuse"; parameters are named and numbers are those of salesforce/ALBEF
`models/xbert.py`. Letters: W words of a text, L tokens of an image, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-12
PADDED_WORD_BIAS = -10000.0


@dataclass(frozen=True)
class BertSizes:
    """Layers from `fusion_layer` on have cross-attention to image tokens of `image_width`."""

    vocabulary: int
    width: int
    layers: int
    fusion_layer: int
    heads: int
    hidden: int
    positions: int
    image_width: int
    token_types: int = 2


class Attention(nn.Module):
    """Query, key, value; keys and values come from elsewhere for cross-attention."""

    def __init__(self, width: int, heads: int, source_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key, self.value = (nn.Linear(source_width, width) for _ in range(2))

    def forward(self, states_BWD: Tensor, source_BND: Tensor, bias: Tensor | None) -> Tensor:
        """source_BND: B may be 1, then all rows look at the same. bias: added to the scores of keys."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(states_BWD), self.key(source_BND), self.value(source_BND))
        )
        batch = (len(states_BWD), -1, -1, -1)
        bias = None if bias is None else bias.to(query.dtype)
        seen = functional.scaled_dot_product_attention(query, key.expand(batch), value.expand(batch), bias)
        return seen.transpose(1, 2).flatten(2)


class AddAndNorm(nn.Module):
    """Post-norm: LayerNorm(dense(x) + residual)."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(inner) + residual)
        return out


class AttentionLayer(nn.Module):
    """Attention and its output; `self` is what BERT calls it."""

    def __init__(self, sizes: BertSizes, source_width: int) -> None:
        super().__init__()
        self.self = Attention(sizes.width, sizes.heads, source_width)
        self.output = AddAndNorm(sizes.width, sizes.width)

    def forward(self, states: Tensor, source: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = self.output(self.self(states, source, bias), states)
        return out


class Intermediate(nn.Module):
    """The widening half of the feed-forward part, with exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)

    def forward(self, states: Tensor) -> Tensor:
        return functional.gelu(self.dense(states))


class Layer(nn.Module):
    """Self-attention, in fusion layers cross-attention to the image, feed-forward."""

    def __init__(self, sizes: BertSizes, fuses: bool) -> None:
        super().__init__()
        self.attention = AttentionLayer(sizes, sizes.width)
        if fuses:
            self.crossattention = AttentionLayer(sizes, sizes.image_width)
        self.intermediate = Intermediate(sizes.width, sizes.hidden)
        self.output = AddAndNorm(sizes.hidden, sizes.width)

    def forward(self, states: Tensor, bias: Tensor, image: Tensor | None = None) -> Tensor:
        states = self.attention(states, states, bias)
        if image is not None:
            states = self.crossattention(states, image, None)
        out: Tensor = self.output(self.intermediate(states), states)
        return out


class Embeddings(nn.Module):
    """Word + position + type 0, then LayerNorm."""

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.vocabulary, sizes.width)
        self.position_embeddings = nn.Embedding(sizes.positions, sizes.width)
        self.token_type_embeddings = nn.Embedding(sizes.token_types, sizes.width)
        self.LayerNorm = nn.LayerNorm(sizes.width, eps=LAYER_NORM_EPS)

    def forward(self, ids_BW: Tensor) -> Tensor:
        position_WD = self.position_embeddings.weight[: ids_BW.shape[1]]
        out: Tensor = self.LayerNorm(
            self.word_embeddings(ids_BW) + self.token_type_embeddings.weight[0] + position_WD
        )
        return out


class Encoder(nn.Module):
    """Holds the layers under their official name."""

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            Layer(sizes, fuses=number >= sizes.fusion_layer) for number in range(sizes.layers)
        )


class FusionBert(nn.Module):
    """The lower layers read a text, the upper ones read it again beside an image."""

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embeddings = Embeddings(sizes)
        self.encoder = Encoder(sizes)

    def text(self, ids_BW: Tensor, valid_BW: Tensor) -> Tensor:
        """States [B, W, D] after the text-only layers; padded words are hidden as keys only."""
        states, bias = self.embeddings(ids_BW), padding_bias(valid_BW)
        for layer in self._layers(0, self.sizes.fusion_layer):
            states = layer(states, bias)
        return states

    def fuse(self, text_BWD: Tensor, valid_BW: Tensor, image_BLD: Tensor) -> Tensor:
        """States [B, W, D] after the fusion layers, from those of `text`; one image may serve all texts."""
        bias = padding_bias(valid_BW)
        for layer in self._layers(self.sizes.fusion_layer, self.sizes.layers):
            text_BWD = layer(text_BWD, bias, image_BLD)
        return text_BWD

    def _layers(self, start: int, stop: int) -> Iterable[nn.Module]:
        return list(self.encoder.layer)[start:stop]


def padding_bias(valid_BW: Tensor) -> Tensor:
    """What is added to attention scores, [B, 1, 1, W]."""
    return torch.where(valid_BW, 0.0, PADDED_WORD_BIAS)[:, None, None]
