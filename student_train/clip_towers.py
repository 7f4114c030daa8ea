"""CLIP's towers as a student trains them: any architecture of open_clip, at random or from public weights.

A teacher's towers are frozen and tapped (teacher_dump); these are trained, so they share only open_clip with
them. open_clip is imported where it is needed, since that takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from store.errors import InputError, MissingFileError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.lookup import check_name

TINY, TINY_RESNET = "tiny", "tiny-resnet"
"""Architectures of our own, for tests and the demo; the others are open_clip's."""
TINY_SIZES: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    "quick_gelu": True,
}
RESNET_VISION = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 32}
TINIES = {TINY: TINY_SIZES, TINY_RESNET: {**TINY_SIZES, "vision_cfg": RESNET_VISION}}
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")
BY_END_TOKEN = "argmax"
NOT_TOWERS = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")


def require_frame_size(pixels: Mapping[str, int], side: int, architecture: str) -> None:
    """Raise InputError unless a view's `pixels` {"Y": ..., "X": ...} are `side` x `side`."""
    if (pixels["Y"], pixels["X"]) != (side, side):
        raise InputError(
            f"the view has frames of {pixels['Y']} x {pixels['X']} pixels, {architecture} takes "
            f"{side} x {side}; choose another architecture, or dump a teacher with such a view"
        )


class ClipTowers(nn.Module):
    """Both towers of a model of open_clip, as `of` makes it.

    architecture: its name. ids_of: texts -> token ids [B, W]. half: whether the model's matrices are float16.
    weights: those that it starts from, whose mean and std of pixels it takes, also where it is evaluated.
    """

    def __init__(
        self,
        model: Any,
        architecture: str,
        ids_of: Callable[[list[str]], Tensor],
        half: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        # The student has a logit scale of its own, and no use for a bias.
        model.logit_scale = model.logit_bias = None
        self.model, self.architecture = model, architecture
        self.dtype = torch.float16 if half else torch.float32
        self._ids_of = ids_of
        self.mean, self.std = pixel_statistics(architecture, weights)

    @classmethod
    def of(
        cls, architecture: str, words: int | None = None, half: bool = False, weights: str | None = None
    ) -> ClipTowers:
        """The towers of `architecture`, freshly initialised, for pixels as `weights` take them.

        words: ids of a text, by default the architecture's own. half: matrices in float16 and the rest in
        float32, as OpenAI's towers are trained by CLIP4Clip and TeachCLIP on a GPU. Raises UnknownNameError
        for an architecture that open_clip has not, InputError for more words than it has positions.
        """
        model = create(architecture, half)
        positions = int(text_part(model).context_length)
        if words is not None and words > positions:
            raise InputError(f"{architecture} reads {positions} words at most, not {words}")
        return cls(model, architecture, tokenizer_of(architecture, words or positions), half, weights)

    @property
    def image_size(self) -> int:
        side = self.model.visual.image_size
        return int(side if isinstance(side, int) else side[0])

    def widths(self) -> tuple[int, int]:
        """Width of a frame's feature and of a text's."""
        pixels = torch.zeros(1, 3, self.image_size, self.image_size)
        with torch.no_grad():
            frame = self.encode_pixels(pixels.to(self._device))
            sentence, _ = self.encode_texts(["a"])
        return frame.shape[-1], sentence.shape[-1]

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode_pixels(self, pixels_NCYX: Tensor) -> Tensor:
        """Features [N, D] in float32, not normalised, of pictures that have been normalised."""
        features: Tensor = self.model.encode_image(pixels_NCYX.to(self.dtype))
        return features.float()

    def encode_frames(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> Tensor:
        """Frame features [B, M, D] of uint8 RGB; a missing frame is encoded as zeros after normalisation."""
        frames = normalised(frames_BMYXC, self.mean, self.std) * frame_valid_BM[..., None, None, None]
        return self.encode_pixels(frames.flatten(0, 1)).unflatten(0, frame_valid_BM.shape)

    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sentence features [B, D]; and word features [B, W, D] with `word_valid` where the tower has any."""
        return self.encode_ids(self._ids_of(list(texts)).to(self._device))

    def encode_ids(self, ids_BW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The same of token ids, W at most the context length."""
        text = text_part(self.model)
        if text_pooling(text) != BY_END_TOKEN:
            return self.model.encode_text(ids_BW).float(), {}
        words_BWD = word_features(text, ids_BW, self.dtype).float()
        end_B = ids_BW.argmax(-1)
        sentence = words_BWD[torch.arange(len(ids_BW), device=ids_BW.device), end_B]
        valid_BW = torch.arange(ids_BW.shape[1], device=ids_BW.device) <= end_B[:, None]
        return sentence, {"word_embedding": words_BWD, "word_valid": valid_BW}

    def load_public(self, weights: str) -> dict[str, Any]:
        """Take over `weights`, a tag of open_clip or a file; what to record of them, their sha256 and
        `log_logit_scale` included.

        Raises MissingFileError where they are not to be had, InputError where they do not fit.
        """
        state = public_state(self.architecture, weights)
        own = {name: value for name, value in state.items() if name not in NOT_TOWERS}
        load(self.model, own, f"weights {weights!r} of {self.architecture}")
        self.mean, self.std = pixel_statistics(self.architecture, weights)
        return {
            "architecture": self.architecture,
            "weights": Path(weights).name,
            "sha256": digest(own),
            "log_logit_scale": float(state["logit_scale"]),
        }


def create(architecture: str, half: bool) -> Any:
    """The towers at random; of open_clip, or of TINIES."""
    import open_clip
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, convert_weights_to_lp

    if architecture not in TINIES:
        check_name("architecture", architecture, [*TINIES, *open_clip.list_models()])
        precision, device = "fp16" if half else "fp32", torch.get_default_device()
        return open_clip.create_model(architecture, precision=precision, device=device, pretrained_text=False)
    sizes = TINIES[architecture]
    model = CLIP(
        embed_dim=sizes["embed_dim"],
        vision_cfg=CLIPVisionCfg(**sizes["vision_cfg"]),
        text_cfg=CLIPTextCfg(**sizes["text_cfg"]),
        quick_gelu=True,
        cast_dtype=torch.float16 if half else None,
    )
    if half:
        convert_weights_to_lp(model, torch.float16)
    return model


def text_part(model: Any) -> Any:
    """What holds the text tower's parameters: the model itself in OpenAI's layout."""
    return model if hasattr(model, "token_embedding") else model.text


def text_pooling(text: Any) -> str | None:
    """How a text tower makes a sentence of its words; None where we do not know its words."""
    if getattr(text, "cls_emb", None) is not None or not hasattr(text, "token_embedding"):
        return None
    pooling: str | None = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    return pooling


def word_features(text: Any, ids_BW: Tensor, dtype: torch.dtype) -> Tensor:
    """Features [B, W, D] of every position: what the tower gives for a text that ends there."""
    words = ids_BW.shape[1]
    mask = None if text.attn_mask is None else text.attn_mask[:words, :words].to(dtype)
    hidden = text.token_embedding(ids_BW).to(dtype) + text.positional_embedding[:words].to(dtype)
    hidden = text.ln_final(text.transformer(hidden, attn_mask=mask))
    projection = text.text_projection
    if projection is None:
        return hidden
    projected: Tensor = projection(hidden) if isinstance(projection, nn.Linear) else hidden @ projection
    return projected


def normalised(frames_BMYXC: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 RGB [B, M, Y, X, C] -> float32 [B, M, C, Y, X] as a tower takes it."""
    pixels = frames_BMYXC.movedim(-1, 2).float() / 255
    shape = (3, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)


def tokenizer_of(architecture: str, words: int) -> Any:
    """Texts -> ids [B, W]; CLIP's own vocabulary lies in open_clip, others come from the hub."""
    import open_clip

    if architecture in TINIES:
        return open_clip.tokenizer.SimpleTokenizer(context_length=words)
    return open_clip.get_tokenizer(architecture, context_length=words)


def is_file(architecture: str, weights: str) -> bool:
    """Whether `weights` name a file, not a tag of open_clip."""
    return Path(weights).suffix in WEIGHT_FILES or architecture in TINIES


def pixel_statistics(architecture: str, weights: str | None) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std [C] by which `weights` want pixels normalised; CLIP's for a file, and for none."""
    if weights is None or is_file(architecture, weights):
        return CLIP_MEAN, CLIP_STD
    import open_clip

    facts = open_clip.get_pretrained_cfg(architecture, weights)
    return tuple(facts.get("mean") or CLIP_MEAN), tuple(facts.get("std") or CLIP_STD)


def public_state(architecture: str, weights: str) -> Mapping[str, Tensor]:
    """Parameters of `weights`: a tag of open_clip (downloaded) or a file."""
    if is_file(architecture, weights):
        return read_tensors(Path(weights))
    import open_clip

    check_name(f"weights of {architecture}", weights, open_clip.list_pretrained_tags_by_model(architecture))
    try:
        model = open_clip.create_model(architecture, weights)
    except (RuntimeError, OSError, ValueError) as error:
        raise MissingFileError(
            f"weights {weights!r} of {architecture} are not on this machine and could not be downloaded "
            f"({type(error).__name__}); connect to a network, or name a .safetensors file in their place"
        ) from error
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a .safetensors or a PyTorch file that holds nothing but tensors; nothing is executed."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise MissingFileError(f"no weights at {path}; place them there or name another file")
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} holds more than tensors ({type(error).__name__}); save its state_dict as .safetensors"
        ) from error
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and float32 values in the order of names."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().float().contiguous()
        found.update(f"{name} {tuple(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def load(module: nn.Module, state: Mapping[str, Tensor], told: str) -> None:
    """All that the module has; raises InputError naming a tensor that is missing or of another shape."""
    for name, value in module.state_dict().items():
        if name not in state or state[name].shape != value.shape:
            there = tuple(state[name].shape) if name in state else "missing"
            raise InputError(f"{told} do not fit: {name} is {there}, expected {tuple(value.shape)}")
    module.load_state_dict({name: state[name] for name in module.state_dict()})
