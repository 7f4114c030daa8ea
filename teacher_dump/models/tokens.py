"""Texts to token ids: CLIP's byte pairs, and the same mapped to the few that a small teacher knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

BYTE_PAIRS = "clip-bpe"
COMPACT = "clip-bpe-compact"

PADDING, UNKNOWN, FIRST_KNOWN = 0, 1, 2


@dataclass(frozen=True)
class Tokenizer:
    """How a teacher reads a text.

    ids_of: texts -> ids [B, W], W = `words`. identity: plain JSON. valid_of: ids -> bool [B, W], which
    positions hold a token.
    """

    ids_of: Callable[[Sequence[str]], Tensor]
    identity: Mapping[str, Any]
    words: int
    valid_of: Callable[[Tensor], Tensor]


@cache
def byte_pairs() -> SimpleTokenizer:
    """CLIP's tokenizer; its vocabulary comes with open_clip, no network needed."""
    return SimpleTokenizer()


def tokenize(texts: Sequence[str], words: int) -> Tensor:
    """CLIP ids [B, W]: start, words, end, then 0; a longer text is cut and ends with the end token."""
    return byte_pairs()(list(texts), context_length=words)


def byte_pair_tokenizer(words: int) -> Tokenizer:
    """CLIP's own, at `words` ids a text."""
    return Tokenizer(partial(tokenize, words=words), {"name": BYTE_PAIRS}, words, valid_words)


def valid_words(ids_BW: Tensor) -> Tensor:
    """Bool [B, W]: the positions up to the end token, which is the largest id of its row."""
    return torch.arange(ids_BW.shape[1], device=ids_BW.device) <= ids_BW.argmax(dim=1, keepdim=True)


class CompactVocabulary:
    """CLIP ids onto 0..N+3: padding, unknown, the N known ids in their order, start, end.

    The end token stays the largest id, by which the text tower finds it. known_N: CLIP ids, ascending.
    """

    def __init__(self, known_N: Tensor) -> None:
        self.known_N = known_N.long()
        self.size = FIRST_KNOWN + len(known_N) + 2

    @classmethod
    def of(cls, texts: Iterable[str]) -> CompactVocabulary:
        """The vocabulary of every word in `texts`."""
        known = {token for text in texts for token in byte_pairs().encode(text)}
        return cls(torch.tensor(sorted(known), dtype=torch.long, device="cpu"))

    def tokenize(self, texts: Sequence[str], words: int) -> Tensor:
        """Ids [B, W]: start, words, end, padding; a longer text is cut and ends with the end token."""
        ids_BW = tokenize(texts, words)
        place_BW = torch.searchsorted(self.known_N, ids_BW)
        known_BW = torch.isin(ids_BW, self.known_N)
        compact_BW = torch.where(known_BW, place_BW + FIRST_KNOWN, UNKNOWN)
        compact_BW[ids_BW == byte_pairs().sot_token_id] = self.size - 2
        compact_BW[ids_BW == byte_pairs().eot_token_id] = self.size - 1
        # "!" is CLIP's id 0 as well as its padding, so only what follows the end is padding here.
        return compact_BW.masked_fill(~valid_words(compact_BW), PADDING)
