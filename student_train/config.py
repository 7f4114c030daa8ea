"""Recipes: everything that decides a training besides its rows and its seed, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from store.errors import InputError
from store.lookup import check_name
from student_train.typed_fields import from_mapping, to_plain

TRAIN_SPLIT = "train"
VAL_SPLIT = "val"
TEST_SPLIT = "test"

UNTAUGHT = "untaught"
TAUGHT = "taught"
ARMS = (UNTAUGHT, TAUGHT)

KEEP_BEST = "best"
KEEP_LAST = "last"
KEEP_BEST_ON_TEST = "best_on_test"
KEEPS = (KEEP_BEST, KEEP_LAST, KEEP_BEST_ON_TEST)

ADAMW, BERT_ADAM = "adamw", "bert_adam"
COSINE, OFFICIAL_COSINE, CONSTANT = "cosine", "official_cosine", "constant"
BF16 = "bf16"
PRECISIONS = ("no", BF16)

FIRST, DRAWN = "first", "drawn"
RENDITIONS = (FIRST, DRAWN)


@dataclass(frozen=True)
class Optimizer:
    """The optimiser and the course of its learning rate; what the names mean says `student_train.optimizer`.

    lr: one learning rate, or a grid to choose from on val. lr_scale: factor on it for parameters whose name
    begins so. weight_decay: decoupled. undecayed: parameters whose name holds one of these do not; None:
    only matrices decay. warmup: share of all updates over which the rate rises linearly.
    clip_norm: largest norm of the whole gradient. accumulation: batches whose mean gradient makes one update;
    negatives are those of one batch.
    """

    lr: tuple[float, ...]
    name: str = ADAMW
    schedule: str = COSINE
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.2
    undecayed: tuple[str, ...] | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: float = 0.1
    clip_norm: float = 1.0
    accumulation: int = 1

    def __post_init__(self) -> None:
        check_name("optimizer", self.name, (ADAMW, BERT_ADAM))
        check_name("schedule", self.schedule, (COSINE, OFFICIAL_COSINE, CONSTANT))
        at_least("clip_norm", self.clip_norm, 1e-30)
        at_least("weight_decay", self.weight_decay, 0)
        at_least("epsilon", self.epsilon, 0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas lie from 0 to below 1, got {', '.join(map(str, self.betas))}")
        at_least("warmup", self.warmup, 0)
        at_least("accumulation", self.accumulation, 1)
        if self.warmup >= 1:
            raise InputError(f"warmup is a share of all steps below 1, got {self.warmup}")
        if not self.lr or not all(0 < rate < 10 for rate in self.lr):
            raise InputError(f"lr is one or more numbers between 0 and 10, got {self.lr}")
        if len(set(self.lr)) < len(self.lr):
            raise InputError(f"lr holds a number twice: {self.lr}")


@dataclass(frozen=True)
class Recipe:
    """A named training configuration of one student.

    model: the student's own Config. losses: weight of each loss of the taught arm, by its name in the
    student's LOSSES; untaught_losses: of the untaught arm. epochs: passes over the training rows.
    batch_size: rows of the global batch. keep: which epoch's parameters a training leaves, the "best" by SumR
    on val, the "last", or "best_on_test" where a paper reports its peak on test (the table says so).
    siblings_are_negatives: whether another caption of the same video in a batch counts as a negative
    of it (official codes) or is left out. precision: "no" (float32) or "bf16". compile: whether torch.compile
    is applied to the encoders. channels_last: whether convolutions get that order of memory.
    least_taught_share: training stops if less of an epoch's taught loss than this was taught.
    untaught_model: of the untaught arm, where that is a model of its own; None: the same. shots: how many
    videos of each class are trained on, drawn from the seed of the training; None: all. Where these are fewer
    than batch_size, they are the batch. classes: numbers of the classes that are trained on and tested, for
    zero-shot recognition of the others; None: all. renditions: of a view that holds several of each
    video, a row shows the "first", or one "drawn" anew in every epoch (`student_train.renditions`).
    """

    model: Any
    losses: Mapping[str, float]
    optimizer: Optimizer
    epochs: int
    batch_size: int
    untaught_losses: Mapping[str, float] = field(default_factory=lambda: {"info_nce": 1.0})
    keep: str = KEEP_BEST
    siblings_are_negatives: bool = False
    precision: str = "no"
    compile: bool = False
    channels_last: bool = False
    least_taught_share: float = 0.5
    untaught_model: Any = None
    shots: int | None = None
    classes: tuple[int, ...] | None = None
    renditions: str = FIRST

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 1)
        at_least("batch_size", self.batch_size, 2)
        at_least("shots", 1 if self.shots is None else self.shots, 1)
        at_least("least_taught_share", self.least_taught_share, 0)
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise InputError(f"classes names one twice: {', '.join(map(str, self.classes))}")
        check_name("keep", self.keep, KEEPS)
        check_name("precision", self.precision, PRECISIONS)
        check_name("renditions", self.renditions, RENDITIONS)

    def model_of(self, arm: str) -> Any:
        """The Config of the student in `arm`."""
        return self.model if arm == TAUGHT or self.untaught_model is None else self.untaught_model

    def weights(self, arm: str) -> dict[str, float]:
        """Weight by loss of the losses that count in `arm`."""
        losses = self.losses if arm == TAUGHT else self.untaught_losses
        return {name: weight for name, weight in losses.items() if weight}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, in the order of the fields."""
        return {name: to_plain(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], model: type) -> Recipe:
        """The recipe that `to_dict` described; model: the student's Config."""
        return from_mapping(cls, settings, "recipe", {"model": model, "untaught_model": model | None})


def at_least(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise InputError(f"{name} is at least {low:g}, got {value}")
