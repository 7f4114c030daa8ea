"""X-CLIP, the late-interaction teacher: dense logits and frame relevance from the authors' checkpoints.

Ma et al. 2022; the numbers are those of the authors' `modules/modeling_xclip.py` and, for the relevance,
of TeachCLIP's fork of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from store.errors import InputError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import ONE_PER_SECOND, View
from store.signals import SignalSpec
from teacher_dump.checkpoints import load_strictly, read_state, seeded
from teacher_dump.models.clip_towers import TowerSizes, choose_layers
from teacher_dump.models.frozen import FrozenTeacher, TowersTeacher, scale_of
from teacher_dump.models.tokens import Tokenizer, byte_pair_tokenizer
from teacher_dump.models.xclip_scores import XClip, XClipSizes, frame_relevance
from teacher_dump.teachers.base import OF_CLASSES, TeacherCard, TeacherOptions

OFFICIAL_TEMPERATURE = 1.0
CARD = TeacherCard(
    model="X-CLIP on CLIP ViT-B/32",
    weights="train it with github.com/xuguohai/X-CLIP; place its pytorch_model.bin at weights/xclip.bin",
    licence="as its repository states",
)


class XClipTeacher(TowersTeacher):
    """An `XClip` model with its tokenizer and view.

    layers: ViT blocks to tap, from 0; the middle and the last by default. temperature: by which frame
    relevance is to be divided before its softmax.
    """

    pair_inputs = ("frame_embedding", "text_embedding", "word_embedding")

    def __init__(
        self,
        name: str,
        model: XClip,
        view: View,
        tokenizer: Tokenizer,
        layers: Sequence[int] | None,
        temperature: float,
    ) -> None:
        if view.frames != model.sizes.frames:
            raise InputError(
                f"teacher {name!r} was trained with {model.sizes.frames} frames, which its matrices fix; "
                f"--frames {view.frames} can't be had"
            )
        towers, scale = model.sizes.towers, scale_of(model.clip.logit_scale)
        described = {
            "architecture": "xclip",
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "logit_scale": scale,
            "temperature": temperature,
            "layers": choose_layers(layers, towers.vision_layers),
        }
        super().__init__(name, model, towers, view, tokenizer, described)
        self.signals = (
            *self.tower_signals,
            SignalSpec("frame_relevance", self.frame_sizes, attributes={"temperature": temperature}),
            SignalSpec("video_text_logits", {}, attributes={"logit_scale": scale}),
        )

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        with self.scoring(videos, texts) as (videos, texts):
            scores: Tensor = self.model.logits(
                videos["frame_embedding"],
                videos["frame_valid"],
                texts["text_embedding"],
                texts["word_embedding"],
            )
            return scores

    def relevance(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        with self.scoring(videos, texts) as (videos, texts):
            return frame_relevance(videos["frame_embedding"], texts["text_embedding"])


def load(options: TeacherOptions) -> FrozenTeacher:
    """From `pytorch_model.bin` of the authors' training (or safetensors of the same names).

    Raises MissingFileError without a file, InputError if it does not fit or for options of other teachers.
    """
    if options.architecture or options.pretrained:
        raise InputError(
            "teacher 'xclip' reads its architecture off --checkpoint; leave out --architecture/--pretrained"
        )
    options.refuse("xclip", *OF_CLASSES, "vocabulary", "words")
    options.check_variant("xclip", ())
    state = read_state(
        options.checkpoint, "xclip", "the pytorch_model.bin of github.com/xuguohai/X-CLIP's training"
    )
    model = XClip(XClipSizes.from_state(state))
    load_strictly(model, state, str(options.checkpoint))
    return teacher_of(model, options.frames, options.layers).run_as(options)


def teacher_of(model: XClip, frames: int | None = None, layers: Sequence[int] | None = None) -> XClipTeacher:
    """The teacher with CLIP's own tokenizer, CLIP4Clip's frames and the relevance of TeachCLIP's fork."""
    size, frames = model.sizes.towers.image_size, frames or model.sizes.frames
    view = View(f"{ONE_PER_SECOND}_{frames}x{size}", frames, size, ONE_PER_SECOND)
    tokenizer = byte_pair_tokenizer(model.sizes.words)
    return XClipTeacher("xclip", model, view, tokenizer, layers, OFFICIAL_TEMPERATURE)


def official(options: TeacherOptions) -> XClipTeacher:
    """At the size of the published model; under `torch.device("meta")` it costs no memory."""
    options.refuse("xclip", "words")
    sizes = XClipSizes(TowerSizes.vit_b_32(), options.frames or 12, 32, 4, 77)
    return teacher_of(XClip(sizes), layers=options.layers)


def tiny(seed: int) -> XClipTeacher:
    """Two blocks of width 64 at random."""
    sizes = XClipSizes(TowerSizes.tiny(), frames=4, words=12, temporal_layers=1, positions=8)
    return teacher_of(seeded(seed, lambda: XClip(sizes)))
