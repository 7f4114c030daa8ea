"""Recipes: everything that decides a training besides its rows and its seed, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from store.errors import InputError

TRAIN_SPLIT = "train"
VAL_SPLIT = "val"
TEST_SPLIT = "test"

UNTAUGHT = "untaught"
TAUGHT = "taught"
ARMS = (UNTAUGHT, TAUGHT)

KEEP_BEST = "best"
KEEP_LAST = "last"

PRECISIONS = ("no", "bf16")


@dataclass(frozen=True)
class Recipe:
    """A named training configuration of one student.

    model: the student's own Config. losses: weight of each loss of the taught arm, by its name in the
    student's LOSSES; untaught_losses: of the untaught arm. epochs: passes over the training rows.
    batch_size: rows of the global batch. learning_rates: the grid to choose from on val.
    learning_rate_scale: factor on the learning rate for parameters whose name begins so.
    optimizer, schedule: names in `student_train.optimizer`. weight_decay: decoupled; undecayed: parameters
    whose name holds one of these do not decay, None: matrices decay, nothing else does. warmup: share of all
    updates over which the learning rate rises linearly. clip_norm: largest norm of the whole gradient.
    accumulation: batches whose mean gradient makes one update; negatives are those of one batch.
    precision: "no" (float32) or "bf16". compile: whether torch.compile is applied to the encoders.
    channels_last: whether convolutions see their input in that order of memory.
    least_taught_share: training stops if less of an epoch's taught loss than this was taught.
    keep: which epoch's parameters a training leaves, the "best" by val SumR or the "last".
    siblings_are_negatives: whether another caption of the same video in a batch counts as a negative
    of it (official codes) or is left out.
    """

    model: Any
    losses: Mapping[str, float]
    epochs: int
    batch_size: int
    learning_rates: tuple[float, ...]
    untaught_losses: Mapping[str, float] = field(default_factory=lambda: {"info_nce": 1.0})
    learning_rate_scale: Mapping[str, float] = field(default_factory=dict)
    optimizer: str = "adamw"
    schedule: str = "cosine"
    undecayed: tuple[str, ...] | None = None
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: float = 0.1
    clip_norm: float = 1.0
    keep: str = KEEP_BEST
    siblings_are_negatives: bool = False
    accumulation: int = 1
    precision: str = "no"
    compile: bool = False
    channels_last: bool = False
    least_taught_share: float = 0.5

    def __post_init__(self) -> None:
        for name, low, value in (
            ("epochs", 1, self.epochs),
            ("batch size", 2, self.batch_size),
            ("clip norm", 1e-30, self.clip_norm),
            ("warm-up", 0, self.warmup),
            ("accumulation", 1, self.accumulation),
            ("least taught share", 0, self.least_taught_share),
        ):
            if not value >= low:
                raise InputError(f"{name} is at least {low}, got {value}")
        if not self.learning_rates or not all(0 < rate < 10 for rate in self.learning_rates):
            raise InputError(
                f"learning rates are one or more numbers between 0 and 10, got {self.learning_rates}"
            )
        if self.keep not in (KEEP_BEST, KEEP_LAST):
            raise InputError(f"keep is {KEEP_BEST!r} or {KEEP_LAST!r}, not {self.keep!r}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.warmup >= 1:
            raise InputError(f"warm-up is a share of all steps below 1, got {self.warmup}")

    def weights(self, arm: str) -> dict[str, float]:
        """Weight by loss of the losses that count in `arm`."""
        losses = self.losses if arm == TAUGHT else self.untaught_losses
        return {name: weight for name, weight in losses.items() if weight}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(
        cls, fields: Mapping[str, Any], model: Callable[..., Any], learning_rates: tuple[float, ...]
    ) -> Recipe:
        """The recipe that `to_dict` described; model: the student's Config."""
        own = {
            "model": model(**fields["model"]),
            "betas": tuple(fields["betas"]),
            "learning_rates": learning_rates,
            "undecayed": None if fields["undecayed"] is None else tuple(fields["undecayed"]),
        }
        return cls(**{**fields, **own})

    def overridden(
        self,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rates: tuple[float, ...] | None = None,
    ) -> Recipe:
        """The recipe with what is given put in place of its own."""
        given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "learning_rates": learning_rates}
        return replace(self, **{name: value for name, value in given.items() if value is not None})
