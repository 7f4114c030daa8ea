"""BERT's WordPiece with a vocabulary of one's own, after the cleaning of captions that ALBEF does."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from store.errors import InputError, MissingFileError
from teacher_dump.models.tokens import Tokenizer

WORDPIECE = "bert-wordpiece"
PADDING = "[PAD]"
SPECIAL = (PADDING, "[UNK]", "[CLS]", "[SEP]")
REMOVED = re.compile(r"[,.'!?\"()*#:;~]")
SPACES = re.compile(r"\s{2,}")


def clean(caption: str, most_words: int) -> str:
    """Lower case, without punctuation, at most `most_words` words (salesforce/ALBEF `dataset/utils.py`)."""
    caption = REMOVED.sub("", caption.lower()).replace("-", " ").replace("/", " ")
    caption = SPACES.sub(" ", caption.replace("<person>", "person")).rstrip("\n").strip(" ")
    return " ".join(caption.split(" ")[:most_words])


def read_vocabulary(path: Path | None, checkpoint: Path | None) -> dict[str, int]:
    """One token a line, its number the line's; `path`, or vocab.txt beside the checkpoint."""
    if path is None and checkpoint is not None:
        path = checkpoint.parent / "vocab.txt"
    if path is None or not path.is_file():
        raise MissingFileError(
            f"no WordPiece vocabulary at {path or 'weights/vocab.txt'}; place the vocab.txt of "
            "bert-base-uncased there, or name it by --vocabulary"
        )
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text file of one token a line ({error.reason})") from None
    words = words[:-1] if words[-1] == "" else words
    vocabulary = {word: number for number, word in enumerate(words)}
    if len(vocabulary) != len(words) or not set(SPECIAL) <= set(words):
        raise InputError(
            f"{path} is no vocabulary: one token a line, each once, {', '.join(SPECIAL)} among them"
        )
    return vocabulary


def wordpiece_tokenizer(vocabulary: Mapping[str, int], words: int) -> Tokenizer:
    """[CLS], word pieces, [SEP], then padding; a longer text is cut and ends with [SEP]."""
    from transformers import BertTokenizer  # here, since importing it takes seconds

    digest = hashlib.sha256("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)).encode()).hexdigest()
    padding = vocabulary[PADDING]
    return Tokenizer(
        partial(_ids, BertTokenizer(vocab=dict(vocabulary)), words),
        {"name": WORDPIECE, "vocabulary_sha256": digest},
        words,
        lambda ids_BW: ids_BW != padding,
    )


def _ids(bert: Any, words: int, texts: Sequence[str]) -> Tensor:
    cleaned = [clean(text, words) for text in texts]
    ids: Tensor = bert(
        cleaned, padding="max_length", truncation=True, max_length=words, return_tensors="pt"
    ).input_ids
    return ids.to(torch.long)
