"""The frozen classifier of Text4Vis: every text is a class name, its embedding the classifier's row.

By default names are read by CLIP's text tower in a prompt. --variant random, orthogonal or lda makes the
other classifiers of the paper, over the class names listed in --classes FILE. Frames go through `clip`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from store.errors import InputError
from store.signals import SignalSpec
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.models.learned_prompt import PLACE, LearnedPrompt, bare_name, encode_after
from teacher_dump.models.open_clip_models import RANDOM, one_side, widths
from teacher_dump.models.text_classifiers import (
    discriminant_classifier,
    orthogonal_classifier,
    random_classifier,
    read_classes,
    read_features,
)
from teacher_dump.models.tokens import tokenize
from teacher_dump.teachers import clip
from teacher_dump.teachers.base import TeacherCard, TeacherOptions
from teacher_dump.teachers.clip import ClipTeacher, load_towers, tiny_towers

PROMPT = "a video of a person {}."
RANDOM_ROWS, ORTHOGONAL, DISCRIMINANT = "random", "orthogonal", "lda"
VARIANTS = (RANDOM_ROWS, ORTHOGONAL, DISCRIMINANT)
CARD = TeacherCard(model="class names by CLIP ViT-B/32", weights=clip.CARD.weights, licence=clip.CARD.licence)


@dataclass(frozen=True)
class Classifier:
    """Rows [C, D] of the classes `names`, made by no text tower. described: plain JSON for the identity."""

    names: tuple[str, ...]
    rows: Tensor
    described: dict[str, Any]

    def rows_of(self, names: Sequence[str]) -> Tensor:
        """[B, D] of the names, bare or in a dataset's own template; raises InputError for one that is not in
        the list."""
        place = {bare_name(name): row for row, name in enumerate(self.names)}
        if unknown := [name for name in names if bare_name(name) not in place]:
            raise InputError(
                f"the text {unknown[0]!r} is none of the {len(place)} classes; --classes lists the "
                "dataset's own names, one a line"
            )
        return self.rows[[place[bare_name(name)] for name in names]]


class ClassesTeacher(ClipTeacher):
    """CLIP's towers, with texts taken for class names.

    prompts: one, or several whose normalised embeddings are averaged; a text that already has the datasets'
    own template around the name loses it first. classifier: in place of text. learned: vectors before the
    name, in place of prompts.
    """

    def __init__(
        self,
        *towers: Any,
        prompts: Sequence[str] = (PROMPT,),
        classifier: Classifier | None = None,
        learned: LearnedPrompt | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*towers, **{**settings, "layers": settings.get("layers") or ()})
        self.name = "classes"
        self.prompts = tuple(prompts)
        self.classifier = classifier
        self.learned = learned
        if learned is not None:
            self._described["classifier"] = learned.described()
        elif classifier is not None:
            self._described["classifier"] = classifier.described
        else:
            self._described["classifier"] = {"kind": "text", "prompts": list(prompts)}
        words = ("word_embedding", "word_valid")
        self.signals: tuple[SignalSpec, ...] = tuple(s for s in self.signals if s.name not in words)

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        if self.classifier is not None:
            return {"text_embedding": self.classifier.rows_of(texts).to(self.device)}
        if self.learned is not None:
            with self.forward() as device:
                context_KD = self.learned.vectors.to(device)
                rows = encode_after(self.model, self.tokenize, context_KD, texts)
                return {"text_embedding": rows.float()}
        found = [self._prompted(prompt, texts) for prompt in self.prompts]
        if len(found) > 1:
            found = [torch.stack([functional.normalize(one, dim=-1) for one in found]).mean(0)]
        return {"text_embedding": found[0]}

    def _prompted(self, prompt: str, texts: Sequence[str]) -> Tensor:
        names = texts if prompt == PLACE else [bare_name(text) for text in texts]
        return super().encode_texts([prompt.replace(PLACE, name) for name in names])["text_embedding"]


def load(options: TeacherOptions) -> FrozenTeacher:
    """As `clip` does; --prompt, --learned-prompt, --variant, --classes, --features say what the classifier is
    made of."""
    options.refuse("classes", "vocabulary", "words")
    return load_with(options, partial(load_towers, options), (PROMPT,)).run_as(options)


def load_with(
    options: TeacherOptions,
    build: Callable[[Callable[..., ClassesTeacher]], ClipTeacher],
    prompts: Sequence[str],
) -> ClipTeacher:
    """The classifier that the options name over the towers that `build` hands to what it is given. prompts:
    where the options name none."""
    options.check_variant("classes", VARIANTS)
    if options.learned_prompt is not None:
        options.refuse("classes", "prompts", "variant", "classes", "features")
        path = options.learned_prompt
        return build(
            lambda model, *t, **s: ClassesTeacher(model, *t, learned=LearnedPrompt.read(path, model), **s)
        )
    prompts = options.prompts or prompts
    if wrong := [prompt for prompt in prompts if prompt.count(PLACE) != 1]:
        raise InputError(f"a prompt has {PLACE} once, where the class name goes; {wrong[0]!r} has not")
    if not options.variant:
        options.refuse("classes", "classes", "features")
        return build(lambda *towers, **settings: ClassesTeacher(*towers, prompts=prompts, **settings))
    options.refuse("classes", "prompts")

    def make(model: Any, architecture: str, weights: str, ids_of: Any, **settings: Any) -> ClassesTeacher:
        _, width = widths(model, one_side(model.visual.image_size, architecture), ids_of(["a"]))
        classifier = classifier_of(options, width)
        return ClassesTeacher(model, architecture, weights, ids_of, classifier=classifier, **settings)

    return build(make)


def classifier_of(options: TeacherOptions, width: int) -> Classifier:
    """The one classifier that `options.variant` names, of `width` D."""
    if len(options.variant) != 1:
        raise InputError(f"one classifier at a time: {', '.join(VARIANTS)}; got {', '.join(options.variant)}")
    (kind,) = options.variant
    names = read_classes(options.classes)
    described = {"kind": kind, "classes_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()}
    if kind == DISCRIMINANT:
        features_ND, label_N = read_features(options.features)
        if features_ND.shape[1] != width:
            raise InputError(
                f"--features are {features_ND.shape[1]} wide, this tower's are {width}; take those of the "
                "same --architecture"
            )
        rows_CD = discriminant_classifier(features_ND, label_N, len(names))
    else:
        options.refuse("classes", "features")
        make = random_classifier if kind == RANDOM_ROWS else orthogonal_classifier
        rows_CD = make(len(names), width)
    described["rows_sha256"] = hashlib.sha256(rows_CD.numpy().tobytes()).hexdigest()
    return Classifier(tuple(names), rows_CD, described)


def official(options: TeacherOptions) -> ClassesTeacher:
    """ViT-B/32 of OpenAI; under `torch.device("meta")` it costs no memory."""
    options.refuse("classes", "words")
    plain, frames = clip.official(TeacherOptions(layers=())), options.frames or clip.FRAMES
    towers = (plain.model, clip.ARCHITECTURE, RANDOM, plain.tokenize)
    return ClassesTeacher(*towers, frames=frames, layers=options.layers)


def tiny(seed: int) -> ClassesTeacher:
    """The tiny towers of `clip`."""
    return ClassesTeacher(tiny_towers(seed), "tiny", RANDOM, lambda texts: tokenize(texts, 16), frames=3)
