"""Side4Video (Yao et al. 2023): a side network on cached layers of a frozen ViT; losses and recipes.

The model is `student_train.side_network_model`. Retrieval learns by InfoNCE, recognition by cross entropy
with label smoothing; no loss has a teacher, who teaches by the layers. The untaught student is the baseline
of the paper's tables: frozen mean pooling, the same [CLS], text tower and losses without a side network.
"""

from __future__ import annotations

from dataclasses import replace

from student_train.clip_towers import TINY
from student_train.config import KEEP_LAST, Optimizer, Recipe
from student_train.losses.recognition import class_cross_entropy
from student_train.losses.teachclip import info_nce
from student_train.needs import CLASS, IGNORED_PAIR, PIXELS
from student_train.rows import PerRow
from student_train.side_network_model import MEAN, RECOGNITION, RETRIEVAL, Config, SideStudent
from student_train.side_network_sizes import build
from student_train.students.base import Batch, LossTerm, Outputs, SignalSizes

__all__ = ["RECIPES", "Config", "SideStudent", "build", "losses", "small", "tiny"]


def losses(config: Config) -> dict[str, LossTerm]:
    """That of the task."""

    def contrast(outputs: Outputs, batch: Batch) -> PerRow:
        return info_nce(outputs["logits"], batch.get(IGNORED_PAIR))

    def classify(outputs: Outputs, batch: Batch) -> PerRow:
        return class_cross_entropy(outputs["class_logits"], batch[CLASS], config.label_smoothing)

    if config.task == RETRIEVAL:
        return {"info_nce": LossTerm(contrast, ("logits",))}
    return {"cross_entropy": LossTerm(classify, ("class_logits",))}


def small(config: Config) -> Config:
    """The same kind of student, small and without public weights, for the sizes of `tiny`."""
    return replace(
        config,
        layers=(0, 1) if len(config.layers) > 1 else config.layers and (1,),
        cls_layer=1,
        width=16,
        architecture=TINY,
        weights=None,
        words=8,
    )


def tiny() -> tuple[Config, SignalSizes]:
    layer = {"R": 1, "M": 3, "L": 17, "D": 64}
    sizes = {
        PIXELS: {"M": 3, "Y": 32, "X": 32, "C": 3},
        "vit_layers/0": layer,
        "vit_layers/1": layer,
        CLASS: {"C": 3},
    }
    return small(Config(mask_padding=True)), sizes


def by_interval(layers: int) -> tuple[int, ...]:
    """Every second of so many ViT blocks, the last included: the official "interval"."""
    return tuple(range(1, layers, 2))


def frozen(recipe: Recipe, weights: str | None = None) -> Recipe:
    """With frozen mean pooling of the last layer's [CLS] as the untaught student.

    weights: its own, where the side network starts from none.
    """
    model: Config = recipe.model
    pooled = replace(
        model,
        layers=(),
        cls_layer=model.last_layer,
        interaction=MEAN,
        weights=weights or model.weights,
        projection_bias=model.architecture == E_14,
    )
    return replace(recipe, untaught_model=pooled, untaught_losses=recipe.losses)


def retrieval(layers: tuple[int, ...], architecture: str, weights: str = "openai") -> Recipe:
    """Appendix E: 12 frames, 32 words, batches of 128, 5 epochs; 1e-7 for CLIP, 1e-4 for what is new."""
    model = Config(
        layers=layers, architecture=architecture, weights=weights, projection_bias=architecture == E_14
    )
    rates = {"text.": 1e-3, "head.": 1e-3, "log_logit_scale": 1e-3}
    return frozen(
        Recipe(
            model=model,
            losses={"info_nce": 1.0},
            optimizer=Optimizer(lr=(1e-4,), lr_scale=rates),
            epochs=5,
            batch_size=128,
            siblings_are_negatives=True,
        )
    )


def recognition(layers: tuple[int, ...], width: int, architecture: str) -> Recipe:
    """Table 12, Kinetics-400: AdamW, weight decay 0.15, label smoothing 0.1, 4 epochs of warm-up; rate, batch
    and epochs as for ViT-B/16 or as for the larger ones.

    Its augmentations are not here: cached layers belong to the frames as they were cached. The side network
    starts from nothing, its baseline from what stands behind the layers: in the cache, but for EVA-CLIP's.
    """
    rate, batch_size, epochs = (1e-3, 256, 30) if architecture == B_16 else (1e-4, 128, 20)
    model = Config(
        task=RECOGNITION, layers=layers, width=width, architecture=architecture, label_smoothing=0.1
    )
    recipe = Recipe(
        model=model,
        losses={"cross_entropy": 1.0},
        optimizer=Optimizer(
            lr=(rate,), weight_decay=0.15, betas=(0.9, 0.999), epsilon=1e-8, warmup=4 / epochs
        ),
        epochs=epochs,
        batch_size=batch_size,
    )
    return frozen(recipe, LAION if architecture == E_14 else None)


B_16, B_32, L_14 = (f"ViT-{size}-quickgelu" for size in ("B-16", "B-32", "L-14"))
E_14, LAION = "EVA02-E-14", "laion2b_s4b_b115k"

# Three ViT blocks, 32 x 32 pixels; `weights` names the file of the demo's teacher (the Makefile gives it).
DEMO_MODEL = Config(layers=(0, 1, 2), width=64, mask_padding=True, architecture=TINY, words=24)
DEMO = frozen(
    Recipe(
        model=DEMO_MODEL,
        losses={"info_nce": 1.0},
        optimizer=Optimizer(lr=(1e-3,), lr_scale={"text.": 0.3, "head.": 0.3}, weight_decay=0.05),
        epochs=6,
        batch_size=50,
        keep=KEEP_LAST,
    )
)
DEMO_RECOGNITION = frozen(
    replace(
        DEMO,
        model=replace(DEMO_MODEL, task=RECOGNITION, label_smoothing=0.1),
        losses={"cross_entropy": 1.0},
        optimizer=replace(DEMO.optimizer, lr=(3e-3,)),
        epochs=20,
        batch_size=25,
    )
)

RECIPES = {
    # Table 6; 320 wide, 12, 24 and 32 layers
    "retrieval-b32": retrieval(tuple(range(12)), B_32),
    "retrieval-b16": retrieval(tuple(range(12)), B_16),
    "retrieval-l14": retrieval(tuple(range(24)), L_14),
    "retrieval-e14": retrieval(by_interval(64), E_14, LAION),
    # Table 1
    "recognition-b16-light": recognition(by_interval(12), 192, B_16),
    "recognition-b16": recognition(tuple(range(12)), 320, B_16),
    "recognition-l14-light": recognition(by_interval(24), 320, L_14),
    "recognition-l14": recognition(tuple(range(24)), 512, L_14),
    "recognition-e14-light": recognition(by_interval(64), 576, E_14),
    "demo": DEMO,
    "demo-mean": replace(DEMO, model=replace(DEMO_MODEL, interaction=MEAN)),
    "demo-recognition": DEMO_RECOGNITION,
}
