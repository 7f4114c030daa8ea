"""The contract between what is fitted and the loop that fits it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from store.inputs.samples import Samples
from teacher_dump.fitting.settings import FitSettings


@dataclass(frozen=True)
class Decoding:
    """What decoding the videos may cost.

    decoders: processes. time_limit_s, memory_limit_mb: of one video. keep_mb: decoded frames that stay in
    memory; the others are decoded anew each time. val_videos: at most as many are validated with.
    """

    decoders: int = 2
    time_limit_s: float = 60.0
    memory_limit_mb: int = 2048
    keep_mb: int = 512
    val_videos: int = 1000


@dataclass(frozen=True)
class FitRequest:
    """What a user asked of a fit.

    checkpoint: the weights to start from. settings: the course's defaults with the user's changes. options:
    the course's own, by name. vocabulary: of a cross-encoder.
    """

    samples: Samples
    settings: FitSettings
    decoding: Decoding
    checkpoint: Path | None = None
    vocabulary: Path | None = None
    device: str = "cpu"
    train_split: str = "train"
    val_split: str = "val"
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Place:
    """Where in the training a batch stands; `step` counts from 0 through all epochs."""

    step: int
    steps_per_epoch: int

    def generator(self, seed: int) -> torch.Generator:
        """The random numbers of this step, the same however the training came here."""
        return torch.Generator().manual_seed((seed << 32) + self.step)


class Course(ABC):
    """A model in training: its batches, its loss, how good it is, and what is kept of it.

    model: what the loop saves and takes up again, besides `memory`, which is what else a training
    remembers. started_from: file name and digest of the first weights, for the result's metadata.
    """

    model: nn.Module
    memory: nn.Module | None = None
    started_from: Mapping[str, Any]

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """How many batches each epoch has."""

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups, each with "params", "lr" and "weight_decay"."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of an epoch, a function of seed and epoch."""

    @abstractmethod
    def loss(self, batch: Any, place: Place) -> Tensor:
        """A scalar with gradients."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics on the validation rows; "score" is what the best epoch is chosen by. {} without any."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """What is written: tensors by their official names, as the teacher's loader reads them."""

    def after_step(self) -> None:  # noqa: B027
        """Keep a parameter in its range; most need nothing."""

    def told(self) -> dict[str, Any]:
        """What the loader of the result checks, plain JSON at the top of its metadata."""
        return {}

    def described(self) -> dict[str, Any]:
        """Settings of its own, plain JSON, for the result's metadata."""
        return {}

    def failures(self) -> Mapping[str, str]:
        """Videos that did not decode, by id."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """End the processes that it started."""


def decayed(
    named: Sequence[tuple[str, nn.Parameter]], lr: float, weight_decay: float, not_decayed: Sequence[str]
) -> list[dict[str, Any]]:
    """Two groups at one learning rate: without decay where the name holds a word of `not_decayed`."""

    def is_free(name: str) -> bool:
        return any(word in name for word in not_decayed)

    return [
        {
            "params": [p for n, p in named if is_free(n) == free],
            "lr": lr,
            "weight_decay": 0.0 if free else weight_decay,
        }
        for free in (False, True)
    ]
