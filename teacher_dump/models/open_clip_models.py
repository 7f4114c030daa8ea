"""open_clip's models by name: weights from a tag or a file, pixels as those weights want them, words kept."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import open_clip
import torch
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from store.errors import InputError, MissingFileError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import RESIZES, SHORTEST
from store.lookup import check_name
from teacher_dump.checkpoints import load_strictly, read_state, seeded

RANDOM_SEED = 0
CONNECT_S = 5.0
RANDOM = "random"
FILE = "file"
CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
NEEDED = "a file with the tensors of that architecture"
# OpenAI's state dicts carry these three numbers beside the weights.
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Preprocessing:
    """How frames become pixels: mean and std of RGB in 0..1, and how they are resized."""

    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    resize: str = SHORTEST
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, architecture: str, tag: str | None) -> Preprocessing:
        """What the weights `tag` were trained with; without a tag, what CLIP does if any weights of the
        architecture were trained so, else what they agree on. Raises InputError for what no view does."""
        tags = open_clip.list_pretrained_tags_by_model(architecture) if tag is None else [tag]
        there = [cls.from_facts(open_clip.get_pretrained_cfg(architecture, known)) for known in tags]
        found = cls() if not there or cls() in there else there[0]
        if found.resize not in RESIZES or found.interpolation != "bicubic":
            raise InputError(
                f"{architecture} {tag or 'weights'!r} wants frames resized another way ({found.resize}, "
                f"{found.interpolation}) than views are ({', '.join(RESIZES)}; bicubic); choose other weights"
            )
        return found

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Preprocessing:
        return cls(
            tuple(facts.get("mean") or CLIP_MEAN),
            tuple(facts.get("std") or CLIP_STD),
            facts.get("resize_mode", SHORTEST),
            facts.get("interpolation", "bicubic"),
        )


def with_weights(architecture: str, pretrained: str | None) -> tuple[nn.Module, str]:
    """The model, and where its weights are from: "random", "file" or the tag.

    Raises MissingFileError where no weights were named: nobody gets random ones without saying so.
    """
    if pretrained is None:
        raise MissingFileError(
            f"no weights were named for {architecture}; give --pretrained TAG, e.g. "
            f"{', '.join(open_clip.list_pretrained_tags_by_model(architecture)[:2]) or 'of open_clip'}, or "
            f"--checkpoint FILE (or, to try things out, --pretrained {RANDOM})"
        )
    if pretrained == RANDOM:
        return random_model(architecture), RANDOM
    path = Path(pretrained)
    if path.suffix in CHECKPOINT_SUFFIXES or path.is_file():
        state = read_state(path, "clip", NEEDED)
        numbers = [name for name in OPENAI_NUMBERS if name in state and state[name].ndim == 0]
        if numbers and f"{architecture}-quickgelu" in open_clip.list_models():
            raise InputError(
                f"{path} is of OpenAI, trained with QuickGELU; say --architecture {architecture}-quickgelu"
            )
        model = random_model(architecture)
        load_strictly(model, {k: v for k, v in state.items() if k not in numbers}, str(path))
        return model, FILE
    check_name(
        f"weights of {architecture}", pretrained, open_clip.list_pretrained_tags_by_model(architecture)
    )
    return download(architecture, pretrained), pretrained


def download(architecture: str, tag: str) -> nn.Module:
    """The weights `tag`, from the hub or its cache; raises MissingFileError where neither has them."""
    quick_gelu = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    # Weights trained with QuickGELU need the architecture that has it: a file does not tell.
    of_file = f"{architecture}-quickgelu" if quick_gelu else architecture
    of_file = of_file if of_file in open_clip.list_models() else architecture
    with hub(
        f"the weights {tag!r} of {architecture}",
        f"give a file: --architecture {of_file} --pretrained weights/{architecture}.safetensors",
    ):
        model: nn.Module = open_clip.create_model(architecture, tag, force_quick_gelu=quick_gelu)
        return model


def random_model(architecture: str) -> nn.Module:
    """Freshly initialised from a fixed seed; text towers of Hugging Face need the hub even so."""
    with hub(f"the text tower's configuration of {architecture}", "choose an architecture without one"):
        return seeded(RANDOM_SEED, lambda: open_clip.create_model(architecture, pretrained_text=False))


def tokenizer_of(architecture: str) -> Callable[[list[str]], Tensor]:
    """Texts -> ids [B, W]; CLIP's own lies in open_clip, others come from the hub."""
    with hub(f"the tokenizer of {architecture}", "choose an architecture with CLIP's own"):
        found: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(architecture)
        return found


@contextmanager
def hub(what: str, instead: str) -> Iterator[None]:
    """Whatever goes wrong with a download becomes one line that says `what` is missing and what to do."""
    if not hub_is_reachable():
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # else it repeats its requests for minutes
    logging.disable(logging.ERROR)  # what it logs of a failure is in the one line below
    try:
        yield
    except (RuntimeError, OSError, ImportError, ValueError) as error:
        reason = type(error.__cause__ or error.__context__ or error).__name__
        raise MissingFileError(
            f"not on this machine, and could not be downloaded ({reason}): {what}; connect to a network, or "
            f"{instead}"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def hub_is_reachable() -> bool:
    """Whether weights can be downloaded; behind a proxy only the download itself can tell."""
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname or ""
    if getproxies():
        return True
    try:
        socket.create_connection((host, 443), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


def one_side(image_size: int | tuple[int, int], architecture: str) -> int:
    """Side of the square that the tower takes, in pixels."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height != width:
        raise InputError(f"architecture {architecture!r} takes {height} x {width} pixels; views are square")
    return int(height)


def keeps_words(model: Any) -> bool:
    """Whether words have features: in towers of open_clip that read a text from left to right up to its end.

    SigLIP's read it whole with its padding, CoCa's and Hugging Face's have other ends.
    """
    if isinstance(model, CLIP):
        return bool(model.text_pool_type == "argmax")
    text = model.text
    return isinstance(text, TextTransformer) and text.cls_emb is None and text.pool_type == "argmax"


def encode_text(model: Any, ids_BW: Tensor) -> tuple[Tensor, Tensor | None]:
    """Sentence features [B, D] and, where `keeps_words`, those of every position [B, W, D]; none normalised.

    A word's feature is what the tower would give for the sentence if it ended there.
    """
    if not keeps_words(model):
        return model.encode_text(ids_BW), None
    text = model if isinstance(model, CLIP) else model.text
    words = ids_BW.shape[1]
    mask = None if text.attn_mask is None else text.attn_mask[:words, :words]
    hidden = text.token_embedding(ids_BW) + text.positional_embedding[:words]
    hidden = text.ln_final(text.transformer(hidden, attn_mask=mask))
    projection = text.text_projection
    if isinstance(projection, nn.Linear):
        hidden = projection(hidden)
    elif projection is not None:
        hidden = hidden @ projection
    return text_global_pool(hidden, ids_BW, "argmax"), hidden


def scalar(parameter: Tensor | None) -> float | None:
    """A number that a model learned, NaN on the meta device; None where it has none."""
    if parameter is None:
        return None
    return float("nan") if parameter.is_meta else float(parameter.detach().reshape(()))


@torch.inference_mode()
def widths(model: Any, size: int, ids_BW: Tensor) -> tuple[int, int]:
    """Width of a frame's feature and of a text's: open_clip's families name them differently."""
    device = next(model.parameters()).device
    frame = model.visual(torch.zeros(1, 3, size, size, device=device))
    return frame.shape[-1], encode_text(model, ids_BW.to(device))[0].shape[-1]
