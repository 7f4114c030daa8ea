"""Any dual encoder of open_clip, frame by frame: a factored teacher, whose logits are a product at read time.

--architecture is open_clip's name; --pretrained one of its tags (downloaded, or from its cache) or a file;
without it the weights are random, which the identity says.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import open_clip
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from store.errors import InputError, MissingFileError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import UNIFORM, View
from store.lookup import check_name
from store.signals import SignalSpec
from teacher_dump import tokens
from teacher_dump.checkpoints import load_strictly, read_state, weights_digest
from teacher_dump.clip_towers import (
    TowerSizes,
    build_towers,
    check_layers,
    default_layers,
    encode_frames,
    to_pixels,
)
from teacher_dump.teachers.base import Teacher, TeacherOptions

ARCHITECTURE = "ViT-B-32"
FRAMES = 12
RANDOM_SEED = 0
CONNECT_S = 5.0
RANDOM = "random"
FILE = "file"
CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
NEEDED = "a file with the tensors of that architecture"


class ClipTeacher(Teacher):
    """Towers of open_clip. weights: "random", "file" or the tag; tokenize(texts) gives ids [B, W]."""

    name = "clip"

    def __init__(
        self,
        model: Any,
        architecture: str,
        weights: str,
        tokenize: Callable[[list[str]], Tensor],
        *,
        frames: int = FRAMES,
        layers: Sequence[int] | None = None,
    ) -> None:
        visual = model.visual
        self._model: Any = model.eval().requires_grad_(False)
        self._architecture = architecture
        self._weights = weights
        self._tokenize = tokenize
        self._mean = tuple(getattr(visual, "image_mean", None) or CLIP_MEAN)
        self._std = tuple(getattr(visual, "image_std", None) or CLIP_STD)
        size = one_side(visual.image_size, architecture)
        self.view = View(f"{UNIFORM}_{frames}x{size}", frames, size, UNIFORM)
        self.layers = tapped_layers(visual, layers, architecture)
        self.signals = self._specs(size)

    @torch.inference_mode()
    def _specs(self, size: int) -> tuple[SignalSpec, ...]:
        """Widths come from one blank frame and one word: open_clip's families name them differently."""
        blank = torch.zeros(1, 1, size, size, 3, dtype=torch.uint8)
        frame = self.encode_videos(blank, torch.ones(1, 1, dtype=torch.bool))
        text = self.encode_texts(["a"])
        places = {"R": self.view.renditions, "M": self.view.frames}
        scale = {"logit_scale": self._logit_scale()}
        layers = {name: value for name, value in frame.items() if name.startswith("vit_layers/")}
        return (
            SignalSpec(
                "frame_embedding", {**places, "D": frame["frame_embedding"].shape[-1]}, attributes=scale
            ),
            SignalSpec("text_embedding", {"D": text["text_embedding"].shape[-1]}, attributes=scale),
            *(
                SignalSpec(name, {**places, "L": value.shape[-2], "D": value.shape[-1]})
                for name, value in layers.items()
            ),
        )

    def _logit_scale(self) -> float:
        return float(self._model.logit_scale.exp())

    def identity(self) -> dict[str, Any]:
        return {
            "weights_sha256": weights_digest(self._model),
            "architecture": {"family": "open_clip", "name": self._architecture},
            "pretrained": self._weights,
            "quick_gelu": any(isinstance(part, QuickGELU) for part in self._model.modules()),
            "dtype": "float32",
            "tokenizer": {"name": self._architecture},
            "context_length": int(self._model.context_length),
            "mean": list(self._mean),
            "std": list(self._std),
            "logit_scale": self._logit_scale(),
            "layers": list(self.layers),
        }

    @torch.inference_mode()
    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        shape = frame_valid_BM.shape
        pixels = to_pixels(frames_BMYXC.flatten(0, 1), self._mean, self._std)
        pixels = pixels * frame_valid_BM.flatten()[:, None, None, None]
        features, layer_tokens = encode_frames(self._model.visual, pixels, self.layers)
        found = {"frame_embedding": features}
        found |= {f"vit_layers/{layer}": value for layer, value in layer_tokens.items()}
        return {name: value.unflatten(0, shape).float() for name, value in found.items()}

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        ids_BW = self._tokenize(list(texts))
        return {"text_embedding": self._model.encode_text(ids_BW).float()}


def one_side(image_size: int | tuple[int, int], architecture: str) -> int:
    """Side of the square that the tower takes, in pixels."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height != width:
        raise InputError(f"architecture {architecture!r} takes {height} x {width} pixels; views are square")
    return int(height)


def tapped_layers(visual: nn.Module, layers: Sequence[int] | None, architecture: str) -> tuple[int, ...]:
    """Checked block numbers; only CLIP's vision transformer has blocks that can be stored."""
    if not isinstance(visual, VisionTransformer):
        if layers:
            raise InputError(f"architecture {architecture!r} has no ViT blocks to store; leave out --layers")
        return ()
    count = len(visual.transformer.resblocks)
    return default_layers(count) if layers is None else check_layers(layers, count)


def load(options: TeacherOptions) -> Teacher:
    """Raises UnknownNameError for architecture or tag, MissingFileError for weights that can't be had."""
    architecture = options.architecture or ARCHITECTURE
    check_name("architecture", architecture, open_clip.list_models())
    pretrained = options.pretrained
    if options.checkpoint is not None:
        if pretrained is not None:
            raise InputError("teacher 'clip': give either --checkpoint or --pretrained, not both")
        pretrained = str(options.checkpoint)
    model, weights = with_weights(architecture, pretrained)
    tokenize = open_clip.get_tokenizer(architecture)
    return ClipTeacher(
        model,
        architecture,
        weights,
        tokenize,
        frames=options.frames or FRAMES,
        layers=options.layers,
    )


def with_weights(architecture: str, pretrained: str | None) -> tuple[nn.Module, str]:
    """The model, and where its weights are from: "random", "file" or the tag."""
    if pretrained is None:
        return random_model(architecture), RANDOM
    path = Path(pretrained)
    if path.suffix in CHECKPOINT_SUFFIXES or path.is_file():
        state = read_state(path, "clip", NEEDED)
        model = random_model(architecture)
        load_strictly(model, state, str(path))
        return model, FILE
    check_name(
        f"weights of {architecture}", pretrained, open_clip.list_pretrained_tags_by_model(architecture)
    )
    facts = open_clip.get_pretrained_cfg(architecture, pretrained)
    quick_gelu = facts.get("quick_gelu", False)
    if (
        facts.get("resize_mode", "shortest") != "shortest"
        or facts.get("interpolation", "bicubic") != "bicubic"
    ):
        raise InputError(
            f"{architecture} {pretrained!r} wants frames resized another way ({facts.get('resize_mode')}, "
            f"{facts.get('interpolation')}) than views are (shorter side, bicubic); choose other weights"
        )
    if not hub_is_reachable():
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # else it repeats its requests for minutes
    # Weights trained with QuickGELU need the architecture that has it: a file does not tell.
    architecture_of_file = architecture
    if quick_gelu and f"{architecture}-quickgelu" in open_clip.list_models():
        architecture_of_file = f"{architecture}-quickgelu"
    logging.disable(logging.ERROR)  # what it logs of a failure is in the one line below
    try:
        model = open_clip.create_model(architecture, pretrained, force_quick_gelu=quick_gelu)
    except (RuntimeError, OSError) as error:
        raise MissingFileError(
            f"the weights {pretrained!r} of {architecture} are not on this machine and could not be "
            f"downloaded ({type(error.__cause__ or error.__context__ or error).__name__}); connect to a "
            f"network, or give a file: --architecture {architecture_of_file} "
            f"--pretrained weights/{architecture}.safetensors"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return model, pretrained


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


def random_model(architecture: str) -> nn.Module:
    """Freshly initialised from a fixed seed, nothing downloaded."""
    with torch.random.fork_rng():
        torch.manual_seed(RANDOM_SEED)
        return open_clip.create_model(architecture, pretrained_text=False)


def tiny(seed: int) -> Teacher:
    """Random towers of width 32, three frames of 16 x 16 pixels."""
    sizes = TowerSizes(32, 16, 8, 32, 2, tokens.byte_pairs().vocab_size, 16, 32, 1, head_width=16)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_towers(sizes)
    return ClipTeacher(model, "tiny", RANDOM, lambda texts: tokens.tokenize(texts, 16), frames=3)
