"""X-Pool: dense logits and its attention as frame relevance, from the authors' checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import UNIFORM, View
from store.signals import SignalSpec
from teacher_dump.checkpoints import load_strictly, read_state, seeded
from teacher_dump.models.clip_towers import TowerSizes, choose_layers
from teacher_dump.models.frozen import FrozenTeacher, TowersTeacher, scale_of
from teacher_dump.models.tokens import byte_pair_tokenizer
from teacher_dump.models.xpool_model import XPool, XPoolSizes, own_state
from teacher_dump.teachers.base import OF_CLASSES, OF_OPEN_CLIP, TeacherCard, TeacherOptions

FRAMES, WORDS = 12, 77
OFFICIAL_TEMPERATURE = 1.0
CARD = TeacherCard(
    model="X-Pool on CLIP ViT-B/32",
    weights="linked from github.com/layer6ai-labs/xpool; place its model_best.pth at weights/xpool.pth",
    licence="as its repository states",
)


class XPoolTeacher(TowersTeacher):
    """An `XPool` model at `frames` frames of a uniform view, in which short videos repeat frames."""

    pair_inputs = ("frame_embedding", "text_embedding")

    def __init__(self, model: XPool, frames: int = FRAMES, layers: Sequence[int] | None = None) -> None:
        towers, scale = model.sizes.towers, scale_of(model.clip.logit_scale)
        view = View(f"{UNIFORM}_{frames}x{towers.image_size}", frames, towers.image_size, UNIFORM)
        described = {
            "architecture": "xpool",
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "logit_scale": scale,
            "temperature": OFFICIAL_TEMPERATURE,
            "layers": choose_layers(layers, towers.vision_layers),
        }
        words = byte_pair_tokenizer(min(WORDS, towers.context_length))
        super().__init__("xpool", model, towers, view, words, described)
        self.signals = (
            *self.tower_signals,
            SignalSpec("frame_relevance", self.frame_sizes, attributes={"temperature": OFFICIAL_TEMPERATURE}),
            SignalSpec("video_text_logits", {}, attributes={"logit_scale": scale}),
        )

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        with self.scoring(videos, texts) as (videos, texts):
            scores: Tensor = self.model.logits(videos["frame_embedding"], texts["text_embedding"])
            return scores

    def relevance(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        with self.scoring(videos, texts) as (videos, texts):
            return torch.cat(
                [
                    self.model.relevance(frames_MD[None], sentence_D[None])[:, 0]
                    for frames_MD, sentence_D in zip(
                        videos["frame_embedding"], texts["text_embedding"], strict=True
                    )
                ]
            )


def load(options: TeacherOptions) -> FrozenTeacher:
    """From the authors' `.pth`, whose weights lie under "state_dict" (or safetensors of the same names).

    Raises MissingFileError without a file, InputError if it does not fit or for options of other teachers.
    """
    options.refuse("xpool", *OF_OPEN_CLIP, *OF_CLASSES, "vocabulary", "words")
    options.check_variant("xpool", ())
    state = own_state(
        read_state(options.checkpoint, "xpool", "the model_best.pth of github.com/layer6ai-labs/xpool")
    )
    model = XPool(XPoolSizes.from_state(state))
    load_strictly(model, state, str(options.checkpoint))
    return XPoolTeacher(model, options.frames or FRAMES, options.layers).run_as(options)


def official(options: TeacherOptions) -> XPoolTeacher:
    """At the size of the published model; under `torch.device("meta")` it costs no memory."""
    options.refuse("xpool", "words")
    return XPoolTeacher(XPool(XPoolSizes(TowerSizes.vit_b_32())), options.frames or FRAMES, options.layers)


def tiny(seed: int) -> XPoolTeacher:
    """Two vision blocks of width 64 at random."""
    return XPoolTeacher(seeded(seed, lambda: XPool(XPoolSizes(TowerSizes.tiny()))), frames=4)
