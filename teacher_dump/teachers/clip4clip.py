"""CLIP4Clip (meanP, seqTransf): embeddings before and after time, from the authors' checkpoints.

A factored teacher: its logits are a product of the stored embeddings (`store/pair_scores.py`). Which of the
two heads it has is read off the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from store.errors import InputError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import ONE_PER_SECOND, View
from store.signals import SignalSpec
from teacher_dump.checkpoints import load_strictly, read_state, seeded
from teacher_dump.models.clip4clip_model import SEQUENCE, Clip4Clip, Clip4ClipSizes
from teacher_dump.models.clip_towers import TowerSizes, choose_layers
from teacher_dump.models.frozen import FrozenTeacher, TowersTeacher, check_words, scale_of
from teacher_dump.models.tokens import Tokenizer, byte_pair_tokenizer
from teacher_dump.teachers.base import OF_CLASSES, OF_OPEN_CLIP, TeacherCard, TeacherOptions

FRAMES, WORDS = 12, 32
CARD = TeacherCard(
    model="CLIP4Clip seqTransf on CLIP ViT-B/32",
    weights="train it with github.com/ArrowLuo/CLIP4Clip; pytorch_model.bin goes to weights/clip4clip.bin",
    licence="as its repository states",
)


class Clip4ClipTeacher(TowersTeacher):
    """A `Clip4Clip` model with its view and tokenizer. layers: ViT blocks to tap, the middle and the last by
    default."""

    def __init__(
        self,
        model: Clip4Clip,
        view: View,
        tokenizer: Tokenizer,
        layers: Sequence[int] | None = None,
        name: str = "clip4clip",
    ) -> None:
        sizes, towers = model.sizes, model.sizes.towers
        if sizes.temporal_layers and view.frames > sizes.positions:
            raise InputError(
                f"teacher {name!r} has places for {sizes.positions} frames, not for {view.frames}; "
                "give fewer --frames"
            )
        described = {
            "architecture": "clip4clip",
            "head": sizes.head,
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "logit_scale": scale_of(model.clip.logit_scale),
            "layers": choose_layers(layers, towers.vision_layers),
        }
        super().__init__(name, model, towers, view, tokenizer, described)
        temporal = SignalSpec("temporal_frame_embedding", {**self.frame_sizes, "D": towers.embed_dim})
        self.signals = (*self.tower_signals, *([temporal] if sizes.head == SEQUENCE else []))

    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        found = super().encode_videos(frames_BMYXC, frame_valid_BM)
        if self.model.sizes.head == SEQUENCE:
            with self.forward() as device:
                temporal = self.model.temporal_frames(found["frame_embedding"], frame_valid_BM.to(device))
                found["temporal_frame_embedding"] = temporal.float()
        return found


def teacher_of(
    model: Clip4Clip, frames: int = FRAMES, layers: Sequence[int] | None = None, words: int = WORDS
) -> Clip4ClipTeacher:
    """With CLIP's own tokenizer and CLIP4Clip's frames; it was trained at 12 frames and 32 words, for long
    videos at 64 and 64."""
    size = model.sizes.towers.image_size
    view = View(f"{ONE_PER_SECOND}_{frames}x{size}", frames, size, ONE_PER_SECOND)
    tokenizer = byte_pair_tokenizer(check_words("clip4clip", words, model.sizes.towers))
    return Clip4ClipTeacher(model, view, tokenizer, layers)


def load(options: TeacherOptions) -> FrozenTeacher:
    """From `pytorch_model.bin` of the authors' training (or safetensors of the same names).

    Raises MissingFileError without a file, InputError if it does not fit or for options of other teachers.
    """
    options.refuse("clip4clip", *OF_OPEN_CLIP, *OF_CLASSES, "vocabulary")
    options.check_variant("clip4clip", ())
    state = read_state(
        options.checkpoint, "clip4clip", "the pytorch_model.bin of github.com/ArrowLuo/CLIP4Clip's training"
    )
    model = Clip4Clip(Clip4ClipSizes.from_state(state))
    load_strictly(model, state, str(options.checkpoint))
    teacher = teacher_of(model, options.frames or FRAMES, options.layers, options.words or WORDS)
    return teacher.run_as(options)


def official(options: TeacherOptions) -> Clip4ClipTeacher:
    """seqTransf at the size of the published model; under `torch.device("meta")` it costs no memory."""
    model = Clip4Clip(Clip4ClipSizes(TowerSizes.vit_b_32(), 4, 77))
    return teacher_of(model, options.frames or FRAMES, options.layers, options.words or WORDS)


def tiny(seed: int) -> Clip4ClipTeacher:
    """seqTransf: two vision blocks and one over time, of width 64, at random."""
    sizes = Clip4ClipSizes(TowerSizes.tiny(), temporal_layers=1, positions=8)
    return teacher_of(seeded(seed, lambda: Clip4Clip(sizes)), frames=4)
