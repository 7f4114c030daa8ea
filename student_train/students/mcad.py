"""MCAD (Lei et al. 2024): a light dual-stream student of a dual-stream and a single-stream teacher.

The model is `student_train.dual_student`, the losses `student_train.losses.mcad`, and what puts the teachers
together `student_train.teacher_integration`. The main teacher is the dual stream (CLIP), the one in the role
"single_stream" judges pairs (ALBEF). No code was published; docs/mcad.md says what the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from store.errors import InputError
from student_train.ablation_row import AblationRow
from student_train.clip_towers import TINY
from student_train.config import KEEP_LAST, Optimizer, Recipe
from student_train.dual_student import (
    FEATURES,
    FUSED,
    SINGLE_STREAM,
    TOPK,
    Config,
    DualStudent,
    build,
    cosine_block,
    dual_vectors,
    of_batch,
)
from student_train.losses import mcad as equations
from student_train.losses.mcad import Shortlist, SingleStream, side_by_side
from student_train.needs import (
    IGNORED_PAIR,
    LOGIT_SCALE,
    MATCH_KNOWN,
    MATCH_PROBABILITY,
    PAIR_KNOWN,
    PAIR_SCORES,
    PIXELS,
    in_role,
)
from student_train.rows import PairBlock, PerRow
from student_train.students.base import Batch, LossTerm, Outputs, SignalSizes
from student_train.teacher_integration import MEAN_TOPK
from student_train.text_towers import ALBERT, CLIP

__all__ = ["ABLATION", "RECIPES", "Config", "DualStudent", "ablated", "build", "losses", "small", "tiny"]

JUDGED = in_role(MATCH_PROBABILITY, SINGLE_STREAM)
JUDGED_KNOWN = in_role(MATCH_KNOWN, SINGLE_STREAM)
EMBEDDINGS = ("video_embedding", "text_embedding", "logit_scale")


def losses(config: Config) -> dict[str, LossTerm]:
    """L_GT, L_CLIP, L_ALBEF, L_MT, L_CLIP_FA and L_MT_FA, each under its own name."""
    judged = judged_needs(config)

    def single(batch: Batch) -> SingleStream:
        return single_stream_of(batch, config)

    def both(block: PairBlock, batch: Batch) -> PerRow:
        known = batch.get(PAIR_KNOWN)
        return equations.multi_teacher(block, batch[PAIR_SCORES], single(batch), known)

    def dual(block: PairBlock, batch: Batch) -> PerRow:
        return equations.dual_stream(block, batch[PAIR_SCORES], batch.get(PAIR_KNOWN))

    def teacher(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return *dual_vectors(batch, config), batch[LOGIT_SCALE]

    def fused(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        video, text, scale = (outputs[name] for name in FUSED)
        return video, text, scale[0]

    def taught_both_ways(outputs: Outputs, batch: Batch) -> PerRow:
        """Equation 8: the student, and the integrated teachers themselves."""
        integrated = cosine_block(*fused(outputs, batch))
        return side_by_side(both(outputs["logits"], batch), both(integrated, batch))

    every = (*config.teacher_vectors, *config.fused_pairs, PAIR_SCORES, *judged)
    return {
        "ground_truth": LossTerm(
            lambda outputs, batch: equations.ground_truth(outputs["logits"], batch.get(IGNORED_PAIR)),
            ("logits",),
        ),
        "dual_stream": LossTerm(
            lambda outputs, batch: dual(outputs["logits"], batch), ("logits",), (PAIR_SCORES,)
        ),
        "single_stream": LossTerm(
            lambda outputs, batch: equations.single_stream(outputs["logits"], single(batch)),
            ("logits",),
            judged,
        ),
        "multi_teacher": LossTerm(taught_both_ways, ("logits", *FUSED), every),
        "dual_stream_features": LossTerm(
            features_aligned(teacher, dual), EMBEDDINGS, (*config.teacher_vectors, PAIR_SCORES, LOGIT_SCALE)
        ),
        "multi_teacher_features": LossTerm(features_aligned(fused, both), (*EMBEDDINGS, *FUSED), every),
    }


Vectors = Callable[[Outputs, Batch], tuple[Tensor, Tensor, Tensor]]
"""Of own rows: videos and texts [b, D], and what multiplies their cosines, []."""


def features_aligned(
    teacher: Vectors, measure: Callable[[PairBlock, Batch], PerRow]
) -> Callable[..., PerRow]:
    """Equations 3 and 9, or 17: `measure` of our videos among its texts, of its videos among ours."""

    def of_batch(outputs: Outputs, batch: Batch) -> PerRow:
        their_video, their_text, their_scale = teacher(outputs, batch)
        scale = equations.mean_temperature_scale(outputs["logit_scale"][0], their_scale)
        our_video, our_text = outputs["video_embedding"], outputs["text_embedding"]
        pairs = ((our_video, their_text), (their_video, our_text))
        return side_by_side(*(measure(cosine_block(video, text, scale), batch) for video, text in pairs))

    return of_batch


def judged_needs(config: Config) -> tuple[str, ...]:
    """What the single-stream teacher has to have said of pairs."""
    if config.pairs == TOPK:
        return (PAIR_SCORES, JUDGED)
    return tuple(
        of_batch(f"{of}_{part}") for of in ("text", "video") for part in ("index", "score", "mismatch")
    )


def single_stream_of(batch: Batch, config: Config) -> SingleStream:
    """Equations 5 and 6 of a batch. From planned batches as they are stored; from the top-k of the whole
    split those of a row's k best by the dual stream that were judged."""
    if config.pairs == TOPK:
        dual, judged, known = batch[PAIR_SCORES], batch[JUDGED], batch[JUDGED_KNOWN]
        sides = (dual.rows, judged.rows, known.rows), (dual.columns.T, judged.columns.T, known.columns.T)
        return SingleStream(*(looked_up(*side, config.k) for side in sides))
    return SingleStream(*(planned(batch, of, config.k) for of in ("text", "video")))


def looked_up(dual_BN: Tensor, judged_BN: Tensor, known_BN: Tensor, k: int) -> Shortlist:
    places = equations.best_places(dual_BN, k)
    return Shortlist(places, judged_BN.gather(-1, places), known_BN.gather(-1, places))


def planned(batch: Batch, of: str, k: int) -> Shortlist:
    """One direction; raises InputError if fewer than k pairs of a row are stored."""
    index, score, mismatch = (batch[of_batch(f"{of}_{part}")] for part in ("index", "score", "mismatch"))
    if index.shape[-1] < k:
        raise InputError(
            f"the single-stream teacher judged the {index.shape[-1]} best pairs of a row, this recipe wants "
            f"k = {k}; lower model.k, or dump it with --plan ...,k={k}"
        )
    return Shortlist(index[:, :k], torch.sigmoid(score - mismatch)[:, :k])


def small(config: Config) -> Config:
    """The same kind of student, small and without public weights, for the sizes of `tiny`.

    TinyBERT has no small form: its place is taken by a small text tower of CLIP.
    """
    mobile = config.vision.startswith("mobilevitv2")
    return replace(
        config,
        vision="mobilevitv2_050" if mobile else "mobilevit_xxs",
        vision_channels=0.5 if mobile else 1.0,
        text=ALBERT if config.text == ALBERT else CLIP,
        architecture=TINY,
        vision_weights=None,
        text_weights=None,
        words=8,
        hidden=8,
        k=3,
    )


def tiny() -> tuple[Config, SignalSizes]:
    sizes: dict[str, dict[str, int]] = {
        PIXELS: {"M": 2, "Y": 32, "X": 32, "C": 3},
        "frame_embedding": {"R": 1, "M": 2, "D": 16},
        "text_embedding": {"D": 16},
        of_batch("text_fused_cls"): {"K": 4, "D": 12},
        of_batch("video_fused_cls"): {"K": 4, "D": 12},
    }
    return small(Config(way_in=FEATURES)), sizes


INTEGRATED = {"multi_teacher", "multi_teacher_features"}
"""Losses for which the two teachers are put together."""


def taught_by(recipe: Recipe, taught: Iterable[str]) -> Recipe:
    """`recipe` with these losses, each at a weight of 1."""
    weights = {name: recipe.losses.get(name, 1.0) for name in taught}
    model: Config = replace(recipe.model, integrate=bool(INTEGRATED & set(weights)))
    return replace(recipe, model=model, losses=weights)


def with_model(recipe: Recipe, **changed: object) -> Recipe:
    model: Config = replace(recipe.model, **changed)
    return replace(recipe, model=model)


# Appendix B; it tells neither batch nor weight decay nor warm-up nor how much a crop keeps (0.08 is
# torchvision's).
MCAD = Recipe(
    model=Config(crop_area=0.08),
    losses={"multi_teacher": 1.0, "multi_teacher_features": 1.0},
    optimizer=Optimizer(lr=(1e-3,), weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8),
    epochs=100,
    batch_size=240,
    untaught_losses={"ground_truth": 1.0},
    siblings_are_negatives=True,
)

# R@1 on Flickr30K of Table 1. Its heads are exchanged: CLIP ViT-L/14 finds images for texts at 64.9, which
# stands under "Text Retrieval".
ABLATION = (
    AblationRow("GT", ("ground_truth",), (31.0, 43.5)),
    AblationRow("ALBEF+GT", ("single_stream", "ground_truth"), (40.5, 54.3)),
    AblationRow("CLIP+GT", ("dual_stream", "ground_truth"), (40.5, 56.2)),
    AblationRow("CLIP", ("dual_stream",), (43.6, 61.3)),
    AblationRow("ALBEF", ("single_stream",), (29.9, 39.7)),
    AblationRow("MT", ("multi_teacher",), (47.9, 63.5)),
    AblationRow("CLIP_FA", ("dual_stream_features",), (41.9, 60.5)),
    AblationRow("MT_FA", ("multi_teacher_features",), (46.0, 61.3)),
    AblationRow("CLIP+CLIP_FA", ("dual_stream", "dual_stream_features"), (46.2, 64.3)),
    AblationRow("CLIP+MT_FA", ("dual_stream", "multi_teacher_features"), (50.3, 65.2)),
    AblationRow("MT+CLIP_FA", ("multi_teacher", "dual_stream_features"), (51.1, 66.0)),
    AblationRow("MT+MT_FA", ("multi_teacher", "multi_teacher_features"), (52.1, 66.6)),
)


def ablated(recipe: Recipe, taught: tuple[str, ...]) -> Recipe:
    """`recipe` with the losses of a row of Table 1; the model is the same, but that nothing puts the teachers
    together where no loss asks for it."""
    return taught_by(recipe, taught)


# MobileViT of timm, which has no v3.
ALBERT_PAIR = replace(
    with_model(MCAD, vision="mobilevit_s", text=ALBERT), optimizer=replace(MCAD.optimizer, lr=(1e-4,))
)
RECIPES = {
    # Table 1; "mcad" is its last row
    "mcad": MCAD,
    **{f"mcad-{row.folder}": taught_by(MCAD, row.losses) for row in ABLATION[:-1]},
    # Table 3
    "mcad-albert-clip-clip-fa": taught_by(ALBERT_PAIR, ("dual_stream", "dual_stream_features")),
    "mcad-albert": ALBERT_PAIR,
    # Table 4; its middle row is "mcad"
    "mcad-k5": with_model(MCAD, k=5),
    "mcad-k17": with_model(MCAD, k=17),
    # The other reading of equation 13, and the other source of scores
    "mcad-mean-topk": with_model(MCAD, fusion_pairs=MEAN_TOPK),
    "mcad-global": with_model(MCAD, pairs=TOPK),
    "demo": replace(
        with_model(MCAD, way_in=FEATURES, crop_area=None),
        epochs=40,
        batch_size=100,
        keep=KEEP_LAST,
        siblings_are_negatives=False,
    ),
}
