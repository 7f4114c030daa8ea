"""CLIPPING (Pei et al. 2023): a mobile student taught by CLIP4Clip, layer by layer with the student as base.

The model is `student_train.mobile_student`; the four variants of Table 1 are with and without the temporal
transformer, and "*", with TinyBERT. No code was published. What the paper leaves open is said where it is
decided: divergences and similarities in `student_train.losses`, and here: the student's layers are the four
last stages of its encoder, the teacher's all of its blocks (figure 6 has 4 and 12); the mask's borders are
spread evenly; alpha to delta of equation 15 are 1; frames are pooled as CLIP4Clip does it, normalised; AdamW
learns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from student_train.ablation_row import AblationRow
from student_train.clip_towers import TINY
from student_train.config import KEEP_LAST, Optimizer, Recipe
from student_train.distributed import gather_rows, rank
from student_train.losses.clipping import distribution_divergence, frame_divergence, local_similarity
from student_train.losses.layers import (
    SCALED,
    LayerOptions,
    even_pairs,
    one_layer_to_one,
    sequential_mask,
    student_as_base,
    teacher_as_base,
)
from student_train.losses.teachclip import info_nce
from student_train.mobile_student import AFTER_TIME, BEFORE_TIME, OWN, Config, MobileStudent, build
from student_train.needs import FRAME_VALID, IGNORED_PAIR, LOGIT_SCALE, PAIR_KNOWN, PAIR_SCORES, PIXELS
from student_train.rows import PairBlock, PerRow
from student_train.students.base import Batch, LossTerm, Outputs, SignalSizes
from student_train.text_towers import TINYBERT

__all__ = ["RECIPES", "Config", "MobileStudent", "build", "losses", "small", "tiny"]


def local_block(
    frames: Tensor, frame_valid: Tensor, words: Tensor, word_valid: Tensor, scale: Tensor, axis: str
) -> PairBlock:
    """The strips of local similarities over which the softmax of equation 12 runs: `scale` times cosines.

    Own rows of frames [b, M, D] and words [b, W, D], with what is valid; the others' are gathered. With the
    axis "own", a video's row holds s'(v, t) and a caption's column s'(t, v), with "first" the reverse.
    """
    frame_valid, word_valid = frame_valid.float(), word_valid.float()
    all_frames, all_words = gather_rows(frames), gather_rows(words)
    all_frame_valid, all_word_valid = gather_rows(frame_valid).bool(), gather_rows(word_valid).bool()
    rows = local_similarity(frames, frame_valid.bool(), all_words, all_word_valid)
    columns = local_similarity(all_frames, all_frame_valid, words, word_valid.bool())
    first = 0 if axis == OWN else 1
    return PairBlock(scale * rows[first], scale * columns[1 - first], rank() * len(frames))


def losses(config: Config) -> dict[str, LossTerm]:
    """All losses of the paper as this configuration computes them, each with what it needs of the teacher."""
    count, depth = len(config.taps), len(config.teacher_layers)
    found = {
        "info_nce": LossTerm(
            lambda outputs, batch: info_nce(outputs["logits"], batch.get(IGNORED_PAIR)), ("logits",)
        ),
        "temporal": frame_term(config, AFTER_TIME, config.after_time),
        "spatial": frame_term(config, BEFORE_TIME, BEFORE_TIME),
        "global": LossTerm(
            lambda outputs, batch: distribution_divergence(
                outputs["logits"], batch[PAIR_SCORES], batch.get(PAIR_KNOWN), config.pair_temperature
            ),
            ("logits",),
            (PAIR_SCORES,),
        ),
        "local": local_term(config),
    }
    if depth:
        free, masked = sequential_mask(depth, count, ()), sequential_mask(depth, count, config.borders)
        pairs = even_pairs(depth, count)
        allowed = [(i, j) for i, j in pairs if masked[i, j]]
        found |= {
            "sab": layer_term(config, student_as_base, masked),
            "sab_unmasked": layer_term(config, student_as_base, free),
            "tab": layer_term(config, teacher_as_base, masked),
            "tab_unmasked": layer_term(config, teacher_as_base, free),
            "ol2ol": layer_term(config, one_layer_to_one, allowed),
            "ol2ol_unmasked": layer_term(config, one_layer_to_one, pairs),
        }
    return found


def in_float32(function: Callable[[Outputs, Batch], PerRow]) -> Callable[[Outputs, Batch], PerRow]:
    """`function` of the outputs in float32, whatever the encoders computed in: its products need the bits."""

    def of_batch(outputs: Outputs, batch: Batch) -> PerRow:
        whole = {
            name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in outputs.items()
        }
        with torch.autocast(batch[FRAME_VALID].device.type, enabled=False):
            return function(whole, batch)

    return of_batch


def frame_term(config: Config, ours: str, theirs: str) -> LossTerm:
    """Equation 5 or 6 between our frames and the teacher's."""

    def compare(outputs: Outputs, batch: Batch) -> PerRow:
        axis, temperature = config.feature_axis, config.feature_temperature
        return frame_divergence(outputs[ours], batch[theirs], batch[FRAME_VALID], axis, temperature)

    return LossTerm(in_float32(compare), (ours,), (theirs,))


def layer_term(config: Config, compare: Any, which: Any) -> LossTerm:
    """One of the layer-wise losses; which: its mask, or its pairs of layers."""

    def of_batch(outputs: Outputs, batch: Batch) -> PerRow:
        teacher = torch.stack([batch[signal][:, :, 1:] for signal in config.layer_signals], dim=2)
        found: PerRow = compare(outputs["layers"], teacher, batch[FRAME_VALID], which, config.layers)
        return found

    return LossTerm(in_float32(of_batch), ("layers",), config.layer_signals)


def local_term(config: Config) -> LossTerm:
    """Equations 11 to 13: local video-caption distributions of frames and words."""
    theirs = (config.after_time, "word_embedding", "word_valid", LOGIT_SCALE)

    def of_batch(outputs: Outputs, batch: Batch) -> PerRow:
        valid, axis = batch[FRAME_VALID], config.local_axis
        words, told = (side["word_embedding"] for side in (outputs, batch))
        there, told_there = (side["word_valid"] for side in (outputs, batch))
        student = local_block(outputs[AFTER_TIME], valid, words, there, outputs["logit_scale"][0], axis)
        teacher = local_block(batch[config.after_time], valid, told, told_there, batch[LOGIT_SCALE], axis)
        return distribution_divergence(student, teacher, temperature=config.pair_temperature)

    ours = (AFTER_TIME, "word_embedding", "word_valid", "logit_scale")
    return LossTerm(in_float32(of_batch), ours, theirs)


def small(config: Config) -> Config:
    """The same kind of student, small and without public weights, for the sizes of `tiny`."""
    return replace(
        config,
        vision="mobilevitv2_050",
        vision_channels=0.5,
        architecture=TINY,
        temporal_layers=min(1, config.temporal_layers),
        vision_weights=None,
        text_weights=None,
        words=8,
        taps=(2, 3),
        teacher_layers=(0, 1, 2) if config.teacher_layers else (),
        borders=((1, 1),) if config.borders else (),
    )


def tiny() -> tuple[Config, SignalSizes]:
    frames = {"R": 1, "M": 2, "D": 16}
    sizes: dict[str, dict[str, int]] = {
        PIXELS: {"M": 2, "Y": 32, "X": 32, "C": 3},
        BEFORE_TIME: frames,
        AFTER_TIME: frames,
        **{f"vit_layers/{layer}": {"R": 1, "M": 2, "L": 5, "D": 12} for layer in range(3)},
        "text_embedding": {"D": 16},
        "word_embedding": {"W": 6, "D": 16},
        "word_valid": {"W": 6},
    }
    return small(Config(teacher_layers=(0, 1, 2), borders=((1, 1),))), sizes


# Epochs are the paper's (table 5). It tells neither batch nor rates, so they are CLIP4Clip's: 1e-7 for CLIP's
# tower, 1e-4 for the rest.
ALONE = Recipe(
    model=Config(text_weights="openai"),
    losses={"info_nce": 1.0},
    optimizer=Optimizer(lr=(1e-4,), lr_scale={"text.tower.": 1e-3}),
    epochs=36,
    batch_size=128,
    siblings_are_negatives=True,
)
LAYERED = replace(
    ALONE, model=replace(ALONE.model, teacher_layers=tuple(range(12)), borders=((4, 2), (8, 3)))
)
T = {"info_nce": 1.0, "temporal": 1.0}
T_S = {**T, "spatial": 1.0}
T_S_SAB = {**T_S, "sab": 1.0}
ALL = {**T_S_SAB, "global": 1.0, "local": 1.0}
CLIPPING = replace(LAYERED, losses=ALL)
STAR = replace(
    CLIPPING,
    model=replace(CLIPPING.model, text=TINYBERT, text_weights=None),
    optimizer=Optimizer(lr=(1e-4,)),
)


def without_t(recipe: Recipe) -> Recipe:
    model: Config = replace(recipe.model, temporal_layers=0)
    return replace(recipe, model=model)


# From nothing, in minutes on a CPU: a quarter of the channels of the smallest MobileViT-v2. At weight 1 the
# cross-modal losses are most of the gradient of so small a student, and it learns less than without them.
DEMO = Recipe(
    model=Config(
        vision="mobilevitv2_050",
        vision_channels=0.25,
        temporal_layers=1,
        architecture=TINY,
        words=24,
        taps=(1, 2, 3),
        teacher_layers=(0, 1, 2),
        borders=((1, 1), (2, 2)),
        layers=LayerOptions(similarity=SCALED),
    ),
    losses={**ALL, "sab": 0.2, "global": 0.2, "local": 0.2},
    optimizer=Optimizer(lr=(2e-3,), weight_decay=0.05),
    epochs=12,
    batch_size=40,
    keep=KEEP_LAST,
)

RECIPES = {
    # Table 1
    "clipping": CLIPPING,
    "clipping-without-t": without_t(CLIPPING),
    "clipping-star": STAR,
    "clipping-star-without-t": without_t(STAR),
    # Table 4; its last row is "clipping"
    "clipping-none": ALONE,
    "clipping-t": replace(ALONE, losses=T),
    "clipping-ts": replace(ALONE, losses=T_S),
    "clipping-ts-sab": replace(LAYERED, losses=T_S_SAB),
    "clipping-ts-sab-global": replace(LAYERED, losses={**T_S_SAB, "global": 1.0}),
    # Table 5; its first row is "clipping-ts", its last "clipping-ts-sab"
    "clipping-ts-ol2ol": replace(LAYERED, losses={**T_S, "ol2ol_unmasked": 1.0}),
    "clipping-ts-tab": replace(LAYERED, losses={**T_S, "tab_unmasked": 1.0}),
    "clipping-ts-sab-unmasked": replace(LAYERED, losses={**T_S, "sab_unmasked": 1.0}),
    "clipping-ts-ol2ol-masked": replace(LAYERED, losses={**T_S, "ol2ol": 1.0}),
    "clipping-ts-tab-masked": replace(LAYERED, losses={**T_S, "tab": 1.0}),
    "demo": DEMO,
}


# Tables 4 and 5 on MSR-VTT; "+" is what comes to T and S, SAB with its mask.
ABLATION = (
    AblationRow("none", (), (25.7, 24.5)),
    AblationRow("T", ("temporal",), (28.8, 27.3)),
    AblationRow("T+S", ("temporal", "spatial"), (33.0, 32.8)),
    AblationRow("+OL2OL", ("temporal", "spatial", "ol2ol_unmasked"), (34.6, 33.4)),
    AblationRow("+TAB", ("temporal", "spatial", "tab_unmasked"), (35.1, 34.4)),
    AblationRow("+SAB", ("temporal", "spatial", "sab"), (37.6, 36.2)),
    AblationRow("+SAB+CM", ("temporal", "spatial", "sab", "global", "local"), (40.7, 40.2)),
)


def ablated(recipe: Recipe, taught: tuple[str, ...]) -> Recipe:
    """`recipe` with these losses beside InfoNCE, at its own weights (other ways to teach layers at SAB's).

    The model is the same, but that it has no map to the teacher's layers where nothing learns from them.
    """
    weights = {name: recipe.losses.get(name, recipe.losses["sab"]) for name in taught}
    model: Config = recipe.model
    if not set(taught) & set(losses(model)) - set(losses(replace(model, teacher_layers=(), borders=()))):
        model = replace(model, teacher_layers=(), borders=())
    return replace(recipe, model=model, losses={"info_nce": recipe.losses["info_nce"], **weights})
