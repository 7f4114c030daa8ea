"""TeachCLIP (Tian et al. 2024): the student, its losses, and every row of the paper's Table 2 as a recipe.

The model is `student_train.afa_model`. Paper and official code differ, so both are recipes: the paper adds
three losses of weight 1, sums fine teaching over frames, pools by the taught weights and lets AFA learn at
1e-4; the code weighs them 0.2, 1 and 2, averages fine teaching over frames, pools at a temperature of 0.1 and
lets AFA's matrices learn at 1e-3. Several teachers: the paper adds their losses, the code averages them. The
code's optimiser is its own (`student_train.optimizer.BertAdam`; norms decay too; CLIP's matrices in float16),
the paper says Adam, which is AdamW without decay. Recipes on features take AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from student_train.afa_model import AFA, FRAMES, MEAN, AfaStudent, Config, build
from student_train.clip_towers import TINY
from student_train.config import (
    BERT_ADAM,
    KEEP_BEST,
    KEEP_BEST_ON_TEST,
    KEEP_LAST,
    OFFICIAL_COSINE,
    Optimizer,
    Recipe,
)
from student_train.losses import teachclip
from student_train.losses.teachclip import info_nce
from student_train.needs import FRAME_VALID, IGNORED_PAIR, PAIR_KNOWN, PAIR_SCORES, PIXELS, RELEVANCE
from student_train.rows import PairBlock, PerRow
from student_train.students.base import Batch, LossTerm, Outputs, SignalSizes

__all__ = ["AFA", "LOSSES", "MEAN", "RECIPES", "AfaStudent", "Config", "build", "small", "tiny"]


def tiny() -> tuple[Config, SignalSizes]:
    sizes = {
        "frame_embedding": {"R": 1, "M": 4, "D": 16},
        "text_embedding": {"D": 16},
        PIXELS: {"M": 4, "Y": 32, "X": 32, "C": 3},
    }
    return Config(temporal_layers=1, heads=2), sizes


def small(config: Config) -> Config:
    """The same kind of student with towers that fit into a test, without public weights."""
    return replace(config, architecture=TINY, weights=None, half=False, words=8)


def coarse(function: Callable[[PairBlock, PairBlock, PairBlock | None], PerRow]) -> LossTerm:
    """A loss of coarse teaching: our logits against the teacher's."""

    def of_batch(outputs: Outputs, batch: Batch) -> PerRow:
        return function(outputs["logits"], batch[PAIR_SCORES], batch.get(PAIR_KNOWN))

    return LossTerm(of_batch, ("logits",), (PAIR_SCORES,))


def fine(function: Callable[[Tensor, Tensor, Tensor | None], PerRow], of_log: bool) -> LossTerm:
    """A loss of fine teaching: AFA's weights, or their logs, against the teacher's frame relevance."""

    def of_batch(outputs: Outputs, batch: Batch) -> PerRow:
        weight = outputs["log_frame_weight"] if of_log else torch.exp(outputs["log_frame_weight"])
        return function(weight, batch[RELEVANCE], batch[FRAME_VALID])

    return LossTerm(of_batch, ("log_frame_weight",), (RELEVANCE,))


LOSSES = {
    "info_nce": LossTerm(
        lambda outputs, batch: info_nce(outputs["logits"], batch.get(IGNORED_PAIR)), reads=("logits",)
    ),
    "coarse_pearson": coarse(teachclip.coarse_pearson),
    "coarse_huber": coarse(teachclip.coarse_huber),
    "coarse_cross_entropy": coarse(teachclip.coarse_cross_entropy),
    "fine_cross_entropy_mean": fine(teachclip.fine_cross_entropy_mean, of_log=True),
    "fine_cross_entropy_sum": fine(teachclip.fine_cross_entropy_sum, of_log=True),
    "fine_pearson": fine(teachclip.fine_pearson, of_log=False),
    "fine_huber": fine(teachclip.fine_huber, of_log=False),
}


@dataclass(frozen=True)
class Weights:
    """Of InfoNCE, coarse and fine teaching."""

    contrast: float
    coarse: float
    fine: float


PAPER_WEIGHTS = Weights(1.0, 1.0, 1.0)
CODE_WEIGHTS = Weights(0.2, 1.0, 2.0)
CODE_WEIGHTS_CROSS_ENTROPY = Weights(1.0, 10.0, 1.0)
"""What the code takes with cross entropy as coarse teaching."""
SECOND = "second"
"""The role of the second of two teachers."""


def taught_by(
    weights: Weights, coarse_loss: str | None, fine_loss: str | None, roles: tuple[str, ...] = ("",)
) -> dict[str, float]:
    """Weights by loss, teachers in several roles averaged."""
    found = {"info_nce": weights.contrast}
    for role in roles:
        end = f"@{role}" if role else ""
        for loss, weight in ((coarse_loss, weights.coarse), (fine_loss, weights.fine)):
            if loss is not None:
                found[loss + end] = weight / len(roles)
    return found


ALONE: Mapping[str, float] = {"info_nce": 1.0}
PEARSON, HUBER, CROSS_ENTROPY = "coarse_pearson", "coarse_huber", "coarse_cross_entropy"
FINE, FINE_SUM, FINE_PEARSON, FINE_HUBER = (
    "fine_cross_entropy_mean",
    "fine_cross_entropy_sum",
    "fine_pearson",
    "fine_huber",
)

# The official train.py and configs/msrvtt-9k.yaml: 2 x 120 rows; CLIP at 1e-7, AFA's matrices at 1e-3.
CODE = Recipe(
    model=Config(way_in=FRAMES, weights="openai", half=True),
    losses=taught_by(CODE_WEIGHTS, PEARSON, FINE),
    optimizer=Optimizer(
        lr=(1e-4,),
        name=BERT_ADAM,
        schedule=OFFICIAL_COSINE,
        lr_scale={
            "towers.": 1e-3,
            "log_logit_scale": 1e-3,
            "attention.hidden.weight": 10.0,
            "attention.score.weight": 10.0,
        },
        undecayed=("bias",),
    ),
    epochs=10,
    batch_size=240,
    keep=KEEP_BEST_ON_TEST,
    siblings_are_negatives=True,
)
PAPER = replace(
    CODE,
    model=replace(CODE.model, half=False, pooling_temperature=1.0, normalise_frames=False),
    losses=taught_by(PAPER_WEIGHTS, PEARSON, FINE_SUM),
    optimizer=Optimizer(
        lr=(1e-4,),
        lr_scale={"towers.": 1e-3, "log_logit_scale": 1e-3},
        weight_decay=0.0,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        warmup=0.0,
    ),
)

# On frozen features nothing of CLIP is left to be trained: minutes on a CPU.
FEATURES = replace(
    CODE,
    model=Config(),
    optimizer=Optimizer(lr=(1e-4,), lr_scale={"attention.": 10.0}),
    keep=KEEP_BEST,
)
VIT_B_16 = "ViT-B-16-quickgelu"
CLIP4CLIP = replace(CODE.model, aggregation=MEAN)


def with_backbone(recipe: Recipe, architecture: str) -> Recipe:
    model: Config = replace(recipe.model, architecture=architecture)
    return replace(recipe, model=model)


# Table 2 of the paper, at the code's weights. Setups 7, 8, 11 and 12 differ in their teacher only: X-CLIP but
# for TS2-Net in 11 and X-Pool in 12; in 13 TS2-Net is in the role "second"; 14 has X-CLIP on ViT-B/16.
SETUPS = [
    replace(CODE, model=CLIP4CLIP, losses=ALONE),
    replace(with_backbone(replace(CODE, model=CLIP4CLIP), VIT_B_16), losses=ALONE),
    replace(CODE, losses=ALONE),
    replace(CODE, model=CLIP4CLIP, losses=taught_by(CODE_WEIGHTS, PEARSON, None)),
    replace(CODE, losses=taught_by(CODE_WEIGHTS, PEARSON, None)),
    replace(CODE, losses=taught_by(CODE_WEIGHTS, HUBER, None)),
    replace(CODE, losses=taught_by(CODE_WEIGHTS, None, FINE)),
    CODE,
    CODE,
    replace(CODE, losses=taught_by(CODE_WEIGHTS, PEARSON, FINE_PEARSON)),
    replace(CODE, losses=taught_by(CODE_WEIGHTS, PEARSON, FINE_HUBER)),
    CODE,
    CODE,
    replace(CODE, losses=taught_by(CODE_WEIGHTS, PEARSON, FINE, ("", SECOND))),
    with_backbone(CODE, VIT_B_16),
]
RECIPES = {
    "teachclip": FEATURES,
    "teachclip-code": CODE,
    "teachclip-paper": PAPER,
    "teachclip-paper-features": replace(
        FEATURES,
        model=Config(pooling_temperature=1.0, normalise_frames=False),
        losses=PAPER.losses,
        optimizer=Optimizer(lr=(1e-4,)),
    ),
    "teachclip-code-cross-entropy": replace(
        CODE, losses=taught_by(CODE_WEIGHTS_CROSS_ENTROPY, CROSS_ENTROPY, FINE)
    ),
    **{f"setup-{number}": recipe for number, recipe in enumerate(SETUPS)},
    # Eight batches an epoch make a noisy val score: the last epoch varies less between seeds than the best
    # one, and is no worse for the untaught student.
    "demo": Recipe(
        model=Config(temporal_layers=1, heads=2, mask_padding=True, logit_scale=1 / 0.07, frame_scale=0.1),
        losses={"info_nce": 0.1, "coarse_pearson": 1.0, "fine_cross_entropy_sum": 0.3},
        optimizer=Optimizer(lr=(1e-3, 3e-3, 1e-2), weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8),
        epochs=40,
        batch_size=100,
        keep=KEEP_LAST,
    ),
}
