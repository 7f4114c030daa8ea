"""Text4Vis (Wu et al. 2023): recognition by the text of class names, and the rows of the paper's tables.

The model is `student_train.text4vis_model`; the untaught arm is the paper's vision-only baseline, the same
tower under mean pooling and a linear classifier that starts at random. What a frozen classifier is made of is
the cache's matter: a dump of the teacher `classes` (text in a prompt, several prompts, a learned prompt,
random, orthogonal, discriminant) in the role "classifier", see tables 1 and 4 in docs/text4vis.md.

Paper and official code agree on AdamW at 5e-5 for what is new and a tenth of it for CLIP (`utils/solver.py`),
30 epochs, 5 of them warming up; batches are of 128 in the paper and of 8 x 32 in the code.
"""

from __future__ import annotations

from dataclasses import replace

from student_train.clip_towers import TINY, TINY_RESNET
from student_train.config import KEEP_LAST, Optimizer, Recipe
from student_train.losses.recognition import class_cross_entropy
from student_train.losses.teachclip import info_nce
from student_train.needs import CLASS, IGNORED_PAIR, PIXELS, in_role
from student_train.students.base import LossTerm, SignalSizes
from student_train.text4vis_model import (
    CLASS_ROWS,
    FRAMES,
    LINEAR,
    MATCHING,
    NAMES_ROLE,
    ONE_DRAWN,
    T1D,
    TAP,
    UNFROZEN,
    Config,
    Text4VisStudent,
    build,
)
from student_train.visual_tower import T1D as INSIDE_T1D
from student_train.visual_tower import TOKEN_T1D, TSM

__all__ = ["LOSSES", "RECIPES", "Config", "Text4VisStudent", "build", "small", "tiny"]

SHOTS = (1, 3, 5)
"""Videos of each class in table 8, beside all of them."""
EPOCHS, FEW_SHOT_EPOCHS, WARMUP_EPOCHS = 30, 200, 5


def tiny() -> tuple[Config, SignalSizes]:
    sizes = {
        "frame_embedding": {"R": 1, "M": 4, "D": 16},
        in_role("text_embedding", NAMES_ROLE): {"D": 16},
        CLASS: {"C": 3},
        CLASS_ROWS: {"P": 1, "C": 3, "D": 16},
        PIXELS: {"M": 4, "Y": 32, "X": 32, "C": 3},
    }
    return Config(temporal_layers=1, heads=2), sizes


def small(config: Config) -> Config:
    """The same kind of student with a tower that fits into a test, without public weights."""
    is_resnet = config.architecture.startswith("RN") or config.architecture == TINY_RESNET
    architecture = TINY_RESNET if is_resnet else TINY
    return replace(config, architecture=architecture, weights=None, temporal_layers=1, heads=2)


LOSSES = {
    "cross_entropy": LossTerm(
        lambda outputs, batch: class_cross_entropy(outputs["class_logits"], batch[CLASS]),
        reads=("class_logits",),
    ),
    "info_nce": LossTerm(
        lambda outputs, batch: info_nce(outputs["logits"], batch.get(IGNORED_PAIR)), reads=("logits",)
    ),
}

BY_CLASS = {"cross_entropy": 1.0}
VIT_B_16, RESNET_50 = "ViT-B-16-quickgelu", "RN50-quickgelu"
ONLY_VISION = Config(
    temporal=TAP, classifier=LINEAR, projection=False, way_in=FRAMES, architecture=VIT_B_16, weights="openai"
)
VISION_TEXT = replace(Config(), projection=False, way_in=FRAMES, architecture=VIT_B_16, weights="openai")
# What CLIP brought along learns at a tenth of the rate; all decays.
LIKE_THE_CODE = Optimizer(
    lr=(5e-5,),
    lr_scale={"tower.visual.": 0.1, "log_logit_scale": 0.1},
    weight_decay=0.2,
    undecayed=(),
    epsilon=1e-8,
    warmup=WARMUP_EPOCHS / EPOCHS,
)
CODE = Recipe(
    model=VISION_TEXT,
    losses=BY_CLASS,
    optimizer=LIKE_THE_CODE,
    epochs=EPOCHS,
    batch_size=128,
    untaught_losses=BY_CLASS,
    untaught_model=ONLY_VISION,
    keep=KEEP_LAST,
)
FEATURES = replace(
    CODE,
    model=Config(),
    untaught_model=Config(temporal=TAP, classifier=LINEAR, projection=False),
    optimizer=Optimizer(lr=(1e-3,), weight_decay=0.2, epsilon=1e-8, warmup=WARMUP_EPOCHS / EPOCHS),
)


def with_model(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe of another model; the baseline gets what is of the tower alone."""
    model: Config = replace(recipe.model, **changes)
    baseline: Config = replace(recipe.untaught_model, architecture=model.architecture)
    return replace(recipe, model=model, untaught_model=baseline)


def few_shot(recipe: Recipe, shots: int) -> Recipe:
    """Table 8: mean pooling, and 200 epochs of the few videos, five of which warm up as everywhere."""
    optimizer = replace(recipe.optimizer, warmup=WARMUP_EPOCHS / FEW_SHOT_EPOCHS)
    few = with_model(recipe, temporal=TAP)
    return replace(few, shots=shots, epochs=FEW_SHOT_EPOCHS, optimizer=optimizer)


MATCHED = replace(with_model(CODE, classifier=MATCHING), losses={"info_nce": 1.0})

# In the demo both arms see the order of frames: they differ in the classifier alone. Table 2's ResNet with
# T1D in small, from nothing; and frozen features, which hold little of where an object is.
DEMO_FRAMES = Config(
    temporal_layers=1, heads=2, logit_scale=1 / 0.07, projection=False, way_in=FRAMES,
    architecture=TINY_RESNET, inside=INSIDE_T1D,
)  # fmt: skip
DEMO_FEATURES = Config(temporal_layers=1, heads=2, logit_scale=1 / 0.07)
DEMO = Recipe(
    model=DEMO_FRAMES,
    losses=BY_CLASS,
    optimizer=Optimizer(lr=(3e-3,), weight_decay=0.2, betas=(0.9, 0.98), epsilon=1e-8),
    epochs=30,
    batch_size=50,
    untaught_losses=BY_CLASS,
    untaught_model=replace(DEMO_FRAMES, classifier=LINEAR),
    keep=KEEP_LAST,
)

RECIPES = {
    "text4vis": FEATURES,
    # Tables 1, 5 and 7: ViT-B/16, T-Trans; 8, 16 or 32 frames are the view's matter
    "text4vis-code": CODE,
    # Table 2
    "rn50-tap": with_model(CODE, architecture=RESNET_50, temporal=TAP),
    "rn50-t1d": with_model(CODE, architecture=RESNET_50, temporal=TAP, inside=INSIDE_T1D),
    "rn50-tsm": with_model(CODE, architecture=RESNET_50, temporal=TAP, inside=TSM),
    "rn50-t-trans": with_model(CODE, architecture=RESNET_50, heads=8),
    "vit-b-16-tap": with_model(CODE, temporal=TAP),
    "vit-b-16-token-t1d": with_model(CODE, temporal=TAP, inside=TOKEN_T1D),
    # Table 4, several templates: one of the cache's prompts a step, the first in evaluation
    "drawn-prompts": with_model(CODE, prompts=ONE_DRAWN),
    # Table 5
    "vit-b-32": with_model(CODE, architecture="ViT-B-32-quickgelu"),
    "vit-l-14": with_model(CODE, architecture="ViT-L-14-quickgelu"),
    "vit-l-14-336": with_model(CODE, architecture="ViT-L-14-336-quickgelu"),
    # Table 6, offline text with batch gather
    "matching": MATCHED,
    # Table 8; its last row is "vit-b-16-tap"
    **{f"few-shot-{shots}": few_shot(CODE, shots) for shots in SHOTS},
    # Table A.2; its first row is "text4vis-code"
    "unfrozen": with_model(CODE, classifier=UNFROZEN),
    # The same on frozen features
    "text4vis-tap": with_model(FEATURES, temporal=TAP),
    "text4vis-t1d": with_model(FEATURES, temporal=T1D),
    "text4vis-unfrozen": with_model(FEATURES, classifier=UNFROZEN),
    "text4vis-matching": replace(with_model(FEATURES, classifier=MATCHING), losses={"info_nce": 1.0}),
    "demo": DEMO,
    "demo-features": replace(
        DEMO,
        model=DEMO_FEATURES,
        untaught_model=replace(DEMO_FEATURES, classifier=LINEAR, projection=False),
        epochs=100,
        batch_size=100,
    ),
}
