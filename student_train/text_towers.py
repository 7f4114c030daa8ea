"""Text towers of a light student: CLIP's, TinyBERT (Jiao et al. 2020) or ALBERT (Lan et al. 2020).

Both give sentence features [B, D], and word features [B, W, D] with `word_valid` [B, W]; none normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from store.errors import InputError, MissingFileError
from store.lookup import check_name
from student_train.clip_towers import (
    TINY,
    TINY_SIZES,
    digest,
    load,
    public_state,
    read_tensors,
    tokenizer_of,
    word_features,
)

CLIP, TINYBERT, ALBERT = "clip", "tinybert", "albert"
TOWERS = (CLIP, TINYBERT, ALBERT)
TINYBERT_SIZES: dict[str, Any] = {
    "hidden_size": 312,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "intermediate_size": 1200,
}
ALBERT_SIZES: dict[str, Any] = {
    "embedding_size": 128,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
BERT_VOCABULARY = 30522
CLIP_VOCABULARY = 49408
TEXT_PARTS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


class ClipText(nn.Module):
    """The text tower of an architecture of open_clip, projected to `width`, freshly initialised."""

    def __init__(self, architecture: str, width: int, words: int) -> None:
        super().__init__()
        self.architecture, self.words = architecture, words
        sizes, quick_gelu = text_sizes(architecture)
        if words > sizes["context_length"]:
            raise InputError(f"{architecture} reads {sizes['context_length']} words at most, not {words}")
        self.tower = text_transformer(sizes, quick_gelu, width)
        self._ids_of = tokenizer_of(architecture, words)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Sentence, words and which of them are valid; the end token's feature is the sentence's."""
        device = self.tower.positional_embedding.device
        ids_BW = self._ids_of(list(texts)).to(device)
        words_BWD = word_features(self.tower, ids_BW, torch.float32)
        end_B = ids_BW.argmax(-1)
        valid_BW = torch.arange(ids_BW.shape[1], device=device) <= end_B[:, None]
        return words_BWD[torch.arange(len(ids_BW), device=device), end_B], words_BWD, valid_BW

    def load_public(self, weights: str) -> dict[str, Any]:
        """Take over the text tower of `weights`, a tag of open_clip or a file; what to record of them."""
        state = public_state(self.architecture, weights)
        own = {name: value for name, value in state.items() if name.startswith(TEXT_PARTS)}
        load(self.tower, own, f"weights {weights!r} of {self.architecture}")
        return {"text": self.architecture, "weights": Path(weights).name, "sha256": digest(own)}


class WordPieceText(nn.Module):
    """A BERT-like encoder; the sentence is what [CLS] became, projected to `width` as words are.

    vocabulary: a vocab.txt of BERT; without one CLIP's byte pairs are read, which needs no file and fits no
    public weights.
    """

    name: str

    def __init__(self, width: int, words: int, vocabulary: str | None) -> None:
        super().__init__()
        self.words, self.vocabulary = words, vocabulary
        self.bert = self.encoder(BERT_VOCABULARY if vocabulary else CLIP_VOCABULARY)
        self.projection = nn.Linear(self.bert.config.hidden_size, width)
        self._tokenize = bert_tokenizer(vocabulary, words) if vocabulary else tokenizer_of(TINY, words)

    def encoder(self, word_pieces: int) -> Any:
        """The freshly initialised encoder for a vocabulary of that size."""
        raise NotImplementedError(f"{type(self).__name__} has no encoder")

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Sentence, words and which of them are valid."""
        ids_BW = self._tokenize(list(texts)).to(self.projection.weight.device)
        valid_BW = ids_BW != 0
        hidden = self.bert(input_ids=ids_BW, attention_mask=valid_BW.long()).last_hidden_state
        words_BWD = self.projection(hidden)
        return words_BWD[:, 0], words_BWD, valid_BW

    def load_public(self, weights: str) -> dict[str, Any]:
        """Take over a file of the encoder's tensors (Hugging Face's names); what to record of them."""
        if self.vocabulary is None:
            raise InputError(
                f"public weights of {self.name} need its words: give its vocab.txt as vocabulary"
            )
        names = set(self.bert.state_dict())
        found = {key.removeprefix("bert."): value for key, value in read_tensors(Path(weights)).items()}
        own = {name: value for name, value in found.items() if name in names}
        load(self.bert, own, weights)
        return {"text": self.name, "weights": Path(weights).name, "sha256": digest(own)}


class TinyBert(WordPieceText):
    """BERT of 4 layers, 312 wide."""

    name = TINYBERT

    def encoder(self, word_pieces: int) -> Any:
        from transformers import BertConfig, BertModel

        return BertModel(BertConfig(vocab_size=word_pieces, **TINYBERT_SIZES), add_pooling_layer=False)


class Albert(WordPieceText):
    """ALBERT base: 12 layers that share their parameters, words of 128 numbers, 768 wide.

    The published one reads pieces of SentencePiece; here BERT's or CLIP's are read, so its public weights do
    not fit and it starts at random.
    """

    name = ALBERT

    def encoder(self, word_pieces: int) -> Any:
        from transformers import AlbertConfig, AlbertModel

        return AlbertModel(AlbertConfig(vocab_size=word_pieces, **ALBERT_SIZES), add_pooling_layer=False)


TextTower = ClipText | WordPieceText


def text_tower(name: str, architecture: str, width: int, words: int, vocabulary: str | None) -> TextTower:
    """The tower `name`; architecture: CLIP's, vocabulary: of the others. Raises UnknownNameError."""
    check_name("text", name, TOWERS)
    if name == CLIP:
        return ClipText(architecture, width, words)
    return (TinyBert if name == TINYBERT else Albert)(width, words, vocabulary)


def text_sizes(architecture: str) -> tuple[dict[str, Any], bool]:
    """The text tower's sizes, and whether it has QuickGELU; raises UnknownNameError, InputError."""
    import open_clip

    if architecture == TINY:
        return TINY_SIZES["text_cfg"], True
    check_name("architecture", architecture, [TINY, *open_clip.list_models()])
    config = open_clip.get_model_config(architecture)
    sizes = config["text_cfg"]
    if set(sizes) - {"context_length", "vocab_size", "width", "heads", "layers"}:
        raise InputError(f"the text tower of {architecture} is unlike CLIP's; choose a ViT or RN of OpenAI")
    return sizes, bool(config.get("quick_gelu", False))


def text_transformer(sizes: dict[str, Any], quick_gelu: bool, width: int) -> Any:
    """open_clip's text transformer, whose parameters are named as in OpenAI's CLIP."""
    from open_clip.transformer import QuickGELU, TextTransformer

    activation = QuickGELU if quick_gelu else nn.GELU
    return TextTransformer(**sizes, output_dim=width, act_layer=activation)


def bert_tokenizer(vocabulary: str, words: int) -> Any:
    """Texts -> ids [B, W] of BERT's word pieces, 0 for padding."""
    from transformers import BertTokenizer

    if not Path(vocabulary).is_file():
        raise MissingFileError(f"no vocabulary at {vocabulary}; place BERT's vocab.txt there")
    tokenizer = BertTokenizer(vocab=vocabulary)

    def ids_of(texts: list[str]) -> Tensor:
        found: Tensor = tokenizer(
            texts, padding="max_length", truncation=True, max_length=words, return_tensors="pt"
        ).input_ids
        return found

    return ids_of
