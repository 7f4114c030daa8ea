"""How a teacher is fitted: plain numbers, and the schedules that they name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from store.errors import InputError

BERT_ADAM, ADAMW, SGD = "bert_adam", "adamw", "sgd"
OPTIMISERS = (BERT_ADAM, ADAMW, SGD)
BEST, LAST = "best", "last"
WARMUP_COSINE, STRAIGHT_TO_COSINE = "warmup_cosine", "straight_to_cosine"
COSINE_BY_EPOCH, WARM_EPOCH_COSINE = "cosine_by_epoch", "warm_epoch_cosine"


@dataclass(frozen=True)
class FitSettings:
    """Numbers of an optimisation; a course's own come beside them.

    batch_size: pairs of a step. learning_rate: of new modules. pretrained_learning_rate: of what comes from
    CLIP (or a pre-trained cross-encoder); 0 locks the image
    tower and trains all else at learning_rate. warmup: share of all steps, or, from 1 on,
    steps. floor: share of the learning rate at which `cosine_by_epoch` ends. clip_norm: of all gradients
    together, 0 for none (BertAdam clips each tensor besides). frames, words: of a video, of a text; None
    where the weights fix them. keep: weights of which epoch. threads: of torch; they change the last bits.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    pretrained_learning_rate: float
    weight_decay: float
    optimiser: str = BERT_ADAM
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: str = WARMUP_COSINE
    warmup: float = 0.1
    floor: float = 0.0
    clip_norm: float = 1.0
    frames: int | None = None
    words: int | None = None
    keep: str = BEST
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} starts at 1, not at {getattr(self, name)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not value >= 0:
                raise InputError(f"--{field.name.replace('_', '-')} is a number from 0, not {value}")
        if self.optimiser not in OPTIMISERS or self.schedule not in SCHEDULES:
            raise InputError(f"there is no {self.optimiser!r} with {self.schedule!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "betas": list(self.betas)}

    def rate(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """By what the learning rates are multiplied in `step`, from 0, of `steps`."""
        return SCHEDULES[self.schedule](self, step, steps, steps_per_epoch)


def warmup_cosine(settings: FitSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """CLIP4Clip's (`modules/optimization.py`): linear from 0, then the cosine of the *whole* training, which
    has left its top by then."""
    progress = step / steps
    warmup = settings.warmup if settings.warmup < 1 else settings.warmup / steps
    return progress / warmup if progress < warmup else 0.5 * (1 + math.cos(math.pi * progress))


def straight_to_cosine(settings: FitSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """The product of a linear warm-up, whose first step counts, and a cosine to 0."""
    warmup = settings.warmup if settings.warmup >= 1 else settings.warmup * steps
    ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return ramp * 0.5 * (1 + math.cos(math.pi * step / steps))


def cosine_by_epoch(settings: FitSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """ALBEF's (`Retrieval.py` with timm's scheduler): full in the first epoch, its warm-up being flat, then
    each epoch e at place (e + 1) / epochs of a cosine to `floor`."""
    epoch, epochs = step // steps_per_epoch, steps // steps_per_epoch
    if epoch == 0:
        return 1.0
    place = min(epoch + 1, epochs) / epochs
    return settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * place))


def warm_epoch_cosine(settings: FitSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """CoOp's (Dassl `optim/lr_scheduler.py`): the first epoch at `warmup` of the learning rate, then a cosine
    by epochs."""
    epoch, epochs = step // steps_per_epoch, steps // steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs)) if epoch else settings.warmup


SCHEDULES: dict[str, Callable[[FitSettings, int, int, int], float]] = {
    WARMUP_COSINE: warmup_cosine,
    STRAIGHT_TO_COSINE: straight_to_cosine,
    COSINE_BY_EPOCH: cosine_by_epoch,
    WARM_EPOCH_COSINE: warm_epoch_cosine,
}
