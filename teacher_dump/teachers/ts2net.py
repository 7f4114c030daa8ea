"""TS2-Net: dense logits and frame relevance from the authors' checkpoints.

Its token selection is random even in evaluation. Here the random numbers of a video are drawn from a seed
that is a digest of its frames: a function of the row alone, so that a resumed dump is the same dump.

--variant noise-free selects tokens without noise; no-shift leaves the token shift out, as TeachCLIP's fork
does (a checkpoint that was trained without it has it off by itself).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from store.errors import InputError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import ONE_PER_SECOND, View
from store.signals import SignalSpec
from teacher_dump.checkpoints import load_strictly, read_state, seeded
from teacher_dump.models.clip_towers import TowerSizes, choose_layers
from teacher_dump.models.frozen import FrozenTeacher, TowersTeacher, check_words, scale_of
from teacher_dump.models.tokens import byte_pair_tokenizer
from teacher_dump.models.ts2net_model import Ts2Net, Ts2NetSizes, own_state
from teacher_dump.models.xclip_scores import frame_relevance
from teacher_dump.teachers.base import OF_CLASSES, OF_OPEN_CLIP, TeacherCard, TeacherOptions

FRAMES, WORDS = 12, 32
SAMPLES, SIGMA = 500, 0.05
OFFICIAL_TEMPERATURE = 1.0
NOISE_FREE, NO_SHIFT = "noise-free", "no-shift"
CARD = TeacherCard(
    model="TS2-Net on CLIP ViT-B/32, with token shift",
    weights="train it with github.com/yuqi657/ts2_net; place its pytorch_model.bin at weights/ts2net.bin",
    licence="as its repository states",
)


class Ts2NetTeacher(TowersTeacher):
    """A `Ts2Net` model. samples: noise draws of the selection, 0 for none."""

    pair_inputs = ("temporal_frame_embedding", "text_embedding")

    def __init__(
        self,
        model: Ts2Net,
        frames: int = FRAMES,
        layers: Sequence[int] | None = None,
        samples: int = SAMPLES,
        words: int = WORDS,
    ) -> None:
        sizes, towers = model.sizes, model.sizes.towers
        if (steps := frames * (1 + sizes.kept)) > sizes.positions:
            raise InputError(
                f"teacher 'ts2net' has places for {sizes.positions} tokens, {frames} frames make {steps}; "
                f"give at most --frames {sizes.positions // (1 + sizes.kept)}"
            )
        view = View(
            f"{ONE_PER_SECOND}_{frames}x{towers.image_size}", frames, towers.image_size, ONE_PER_SECOND
        )
        noise = {"samples": samples, "sigma": SIGMA, "seed": "sha256 of the video's frames"}
        scale = scale_of(model.clip.logit_scale)
        described = {
            "architecture": "ts2net",
            "shifted_blocks": list(sizes.shifted),
            "noise": noise if samples else None,
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "logit_scale": scale,
            "temperature": OFFICIAL_TEMPERATURE,
            "layers": choose_layers(layers, towers.vision_layers),
        }
        tokenizer = byte_pair_tokenizer(check_words("ts2net", words, towers))
        super().__init__("ts2net", model, towers, view, tokenizer, described)
        self.samples = samples
        self.signals = (
            *self.tower_signals,
            SignalSpec("temporal_frame_embedding", {**self.frame_sizes, "D": towers.embed_dim}),
            SignalSpec("frame_relevance", self.frame_sizes, attributes={"temperature": OFFICIAL_TEMPERATURE}),
            SignalSpec("video_text_logits", {}, attributes={"logit_scale": scale}),
        )

    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        shape = frame_valid_BM.shape
        with self.forward() as device:
            pixels = self.pixels(frames_BMYXC, frame_valid_BM, device)
            tokens, layers = self.model.tokens(pixels, shape[1], self.layers)
            noise = self._noise(frames_BMYXC, frame_valid_BM, tokens.shape[1] - 1) if self.samples else None
            selected, _, _ = self.model.select(tokens, None if noise is None else noise.to(device))
            selected_VND = selected.unflatten(0, shape).flatten(1, 2)
            found = {f"vit_layers/{layer}": value.unflatten(0, shape) for layer, value in layers.items()}
            found["frame_embedding"] = tokens[:, 0].unflatten(0, shape)
            found["temporal_frame_embedding"] = self.model.temporal_frames(
                selected_VND, frame_valid_BM.to(device)
            )
            return {name: value.float() for name, value in found.items()}

    def _noise(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor, patches: int) -> Tensor:
        """[B * M, S, N] on the CPU, the same on any device."""
        return torch.cat(
            [
                SIGMA * torch.randn(len(valid), self.samples, patches, generator=seed_of(video[valid]))
                for video, valid in zip(frames_BMYXC.cpu(), frame_valid_BM.cpu(), strict=True)
            ]
        )

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        with self.scoring(videos, texts) as (videos, texts):
            scores: Tensor = self.model.logits(
                videos["temporal_frame_embedding"], videos["frame_valid"], texts["text_embedding"]
            )
            return scores

    def relevance(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        with self.scoring(videos, texts) as (videos, texts):
            return frame_relevance(videos["temporal_frame_embedding"], texts["text_embedding"])


def seed_of(frames_MYXC: Tensor) -> torch.Generator:
    """A generator whose seed is a digest of the frames that a video has."""
    digest = hashlib.sha256(frames_MYXC.contiguous().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def load(options: TeacherOptions) -> FrozenTeacher:
    """From `pytorch_model.bin` of the authors' training (or safetensors of the same names).

    Raises MissingFileError without a file, InputError if it does not fit or for options of other teachers.
    """
    options.refuse("ts2net", *OF_OPEN_CLIP, *OF_CLASSES, "vocabulary")
    options.check_variant("ts2net", (NOISE_FREE, NO_SHIFT))
    state = read_state(
        options.checkpoint, "ts2net", "the pytorch_model.bin of github.com/yuqi657/ts2_net's training"
    )
    sizes = Ts2NetSizes.from_state(state)
    if NO_SHIFT in options.variant:
        sizes = replace(sizes, shifted=())
    model = Ts2Net(sizes)
    load_strictly(model, own_state(state), str(options.checkpoint))
    samples = 0 if NOISE_FREE in options.variant else SAMPLES
    teacher = Ts2NetTeacher(model, options.frames or FRAMES, options.layers, samples, options.words or WORDS)
    return teacher.run_as(options)


def official(options: TeacherOptions) -> Ts2NetTeacher:
    """At the size of the published model; under `torch.device("meta")` it costs no memory."""
    model = Ts2Net(Ts2NetSizes(TowerSizes.vit_b_32(), 4, 77, shifted=(10, 11)))
    frames, words = options.frames or FRAMES, options.words or WORDS
    return Ts2NetTeacher(model, frames, options.layers, words=words)


def tiny(seed: int) -> Ts2NetTeacher:
    """Two vision blocks, the second shifted, and one over time, of width 64, at random."""
    towers = replace(TowerSizes.tiny(), patch_size=8)
    sizes = Ts2NetSizes(towers, temporal_layers=1, positions=16, shifted=(1,), kept=3)
    return Ts2NetTeacher(seeded(seed, lambda: Ts2Net(sizes)), frames=4)
