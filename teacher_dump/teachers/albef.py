"""ALBEF, the cross-encoder: match logits of pairs, their fused [CLS], and embeddings of its own.

A pair costs a pass through the fusion layers, from stored image tokens (`vit_layers/<last>`) and text states
(`word_embedding`), so that the pair pass needs neither encoder. --variant momentum takes the momentum copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from store.encodings import BOOL
from store.errors import InputError
from store.inputs.preprocess import CLIP_MEAN, CLIP_STD
from store.inputs.view import SQUASH, UNIFORM, View
from store.signals import SignalSpec
from teacher_dump.checkpoints import load_strictly, read_state, seeded
from teacher_dump.models.albef_model import MATCH, Albef, AlbefSizes, own_state
from teacher_dump.models.bert_fusion import BertSizes
from teacher_dump.models.clip_towers import check_layers, to_pixels
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.models.open_clip_models import scalar
from teacher_dump.models.tokens import Tokenizer
from teacher_dump.models.wordpiece import SPECIAL, read_vocabulary, wordpiece_tokenizer
from teacher_dump.teachers.base import OF_CLASSES, OF_OPEN_CLIP, TeacherCard, TeacherOptions

WORDS = 30
MOMENTUM = "momentum"
CARD = TeacherCard(
    model="ALBEF, ViT-B/16 at 384 px and BERT-base",
    weights="linked from github.com/salesforce/ALBEF; place e.g. mscoco.pth at weights/albef.pth and the "
    "vocab.txt of bert-base-uncased beside it",
    licence="BSD-3-Clause",
)


class AlbefTeacher(FrozenTeacher):
    """An `Albef` model that sees the middle frame of a video, or as many as it has places for.

    momentum: whose copies it holds.
    """

    pair_inputs: tuple[str, ...]

    def __init__(
        self,
        model: Albef,
        tokenizer: Tokenizer,
        layers: Sequence[int] | None = None,
        momentum: bool = False,
        name: str = "albef",
        view: View | None = None,
    ) -> None:
        sizes = model.sizes
        self.tokenizer = tokenizer
        self.last = sizes.image_layers - 1
        chosen = check_layers(() if layers is None else layers, sizes.image_layers)
        self.layers = sorted({*chosen, self.last})
        frames, side = sizes.frames, sizes.image_size
        view = view or View(f"{UNIFORM}_{frames}x{side}_{SQUASH}", frames, side, resize=SQUASH)
        described = {
            "architecture": "albef",
            "encoders": MOMENTUM if momentum else "online",
            "tokenizer": dict(tokenizer.identity),
            "context_length": tokenizer.words,
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "logit_scale": 1.0,
            "temperature": scalar(model.temp),
        }
        super().__init__(name, model, view, described)
        self.pair_inputs = (f"vit_layers/{self.last}", "word_embedding", "word_valid")
        self.fused_width = sizes.text.width
        self.signals = self._specs(sizes)

    def _specs(self, sizes: AlbefSizes) -> tuple[SignalSpec, ...]:
        frames = {"R": self.view.renditions, "M": self.view.frames}
        tokens = {**frames, "L": sizes.tokens, "D": sizes.image_width}
        words = self.tokenizer.words
        return (
            SignalSpec("frame_embedding", {**frames, "D": sizes.embed_dim}),
            *(SignalSpec(f"vit_layers/{layer}", tokens) for layer in self.layers),
            SignalSpec("text_embedding", {"D": sizes.embed_dim}),
            SignalSpec("word_embedding", {"W": words, "D": sizes.text.width}),
            SignalSpec("word_valid", {"W": words}, BOOL),
            SignalSpec("video_text_logits", {}, attributes={"logit_scale": 1.0}),
        )

    def pixels(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor, device: torch.device) -> Tensor:
        """Normalised [B * M, C, Y, X]; a missing frame is zero after that."""
        pixels = to_pixels(frames_BMYXC.flatten(0, 1).to(device), CLIP_MEAN, CLIP_STD)
        return pixels * frame_valid_BM.flatten().to(device)[:, None, None, None]

    def encode_videos(self, frames_BMYXC: Tensor, frame_valid_BM: Tensor) -> dict[str, Tensor]:
        shape = frame_valid_BM.shape
        with self.forward() as device:
            blocks = self.model.image_blocks(self.pixels(frames_BMYXC, frame_valid_BM, device), self.layers)
            found = {f"vit_layers/{layer}": block for layer, block in zip(self.layers, blocks, strict=True)}
            found["frame_embedding"] = self.model.vision_proj(self.model.image_tokens(blocks[-1])[:, 0])
            return {name: value.unflatten(0, shape).float() for name, value in found.items()}

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        with self.forward() as device:
            ids_BW = self.tokenizer.ids_of(texts).to(device)
            valid_BW = self.tokenizer.valid_of(ids_BW)
            states_BWD = self.model.text_encoder.text(ids_BW, valid_BW)
            return {
                "text_embedding": self.model.text_proj(states_BWD[:, 0]).float(),
                "word_embedding": states_BWD.float(),
                "word_valid": valid_BW,
            }

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        """Raw match logits [V, T], by which the official evaluation ranks; no scale, no softmax."""
        with self.scoring(videos, texts, self.dtype) as (videos, texts):
            words, valid = texts["word_embedding"], texts["word_valid"].bool()
            rows = [
                self.model.matched(tokens_LD[None], words, valid)[1][:, MATCH]
                for tokens_LD in self._image_tokens(videos)
            ]
            return torch.stack(rows).float()

    def match_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with self.scoring(videos, texts, self.dtype) as (videos, texts):
            fused_BD, logits_B2 = self.model.matched(
                self._image_tokens(videos), texts["word_embedding"], texts["word_valid"].bool()
            )
            return {
                "match_logits": logits_B2.float(),
                "match_probability": logits_B2.float().softmax(-1)[:, MATCH],
                "fused_cls": fused_BD.float(),
            }

    def _image_tokens(self, videos: Mapping[str, Tensor]) -> Tensor:
        """[V, M * L, D]: what the fusion layers look at."""
        tokens: Tensor = self.model.seen_tokens(self.model.image_tokens(videos[f"vit_layers/{self.last}"]))
        return tokens


def load(options: TeacherOptions) -> FrozenTeacher:
    """From the authors' `.pth` (weights under "model"), of retrieval or pre-training.

    Raises MissingFileError without weights or vocabulary, InputError if they do not fit.
    """
    options.refuse("albef", *OF_OPEN_CLIP, *OF_CLASSES, "words")
    options.check_variant("albef", (MOMENTUM,))
    momentum = MOMENTUM in options.variant
    state = own_state(
        read_state(options.checkpoint, "albef", "a .pth of github.com/salesforce/ALBEF"), momentum
    )
    model = Albef(AlbefSizes.from_state(state))
    load_strictly(model, state, str(options.checkpoint))
    if options.frames not in (None, model.sizes.frames):
        raise InputError(
            f"teacher 'albef' was trained to see {model.sizes.frames} frame(s) of a video (one is the middle "
            "one); leave out --frames"
        )
    vocabulary = read_vocabulary(options.vocabulary, options.checkpoint)
    if len(vocabulary) != model.sizes.text.vocabulary:
        raise InputError(
            f"the vocabulary has {len(vocabulary)} tokens, {options.checkpoint} was trained with "
            f"{model.sizes.text.vocabulary}; give its own by --vocabulary"
        )
    tokenizer = wordpiece_tokenizer(vocabulary, WORDS)
    return AlbefTeacher(model, tokenizer, options.layers, momentum).run_as(options)


def official(options: TeacherOptions) -> AlbefTeacher:
    """At the size of the published model; under `torch.device("meta")` it costs no memory."""
    options.refuse("albef", "frames", "words")
    text = BertSizes(30522, 768, 12, 6, 12, 3072, 512, 768)
    model = Albef(AlbefSizes(384, 16, 768, 12, 12, 3072, text, 256))
    tokenizer = wordpiece_tokenizer(dict(zip(SPECIAL, range(4), strict=True)), WORDS)
    return AlbefTeacher(model, tokenizer, options.layers)


def tiny(seed: int) -> AlbefTeacher:
    """Two image blocks, one text layer and one of fusion, at random; it reads letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    text = BertSizes(len(tokens), 32, 2, 1, 2, 64, WORDS, 48)
    sizes = AlbefSizes(32, 16, 48, 2, 2, 96, text, 16)
    tokenizer = wordpiece_tokenizer({token: number for number, token in enumerate(tokens)}, 16)
    return AlbefTeacher(seeded(seed, lambda: Albef(sizes)), tokenizer)
