"""The contract of a student: light, trained from cached signals only.

A student module offers five names, and nothing else is asked of it:

    Config                          frozen dataclass, a StudentConfig: what the model is made of
    build(config, sizes) -> Student sizes: {signal: {axis letter: length}} of what the cache holds
    LOSSES                          losses by name, with what each needs
    RECIPES                         named recipes, at the foot of the file
    tiny() -> (config, sizes)       weight-free and small, for the contract tests

A task is a student, the losses that train it, and what both need from the cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from store.lookup import look_up

PAIR_SCORES = "pair_scores"
Tensors = Mapping[str, Tensor]
SignalSizes = Mapping[str, Mapping[str, int]]


class StudentConfig(ABC):
    """What a student is made of; subclasses are frozen dataclasses of plain values."""

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Signals, by their names in the cache, that a student so made reads."""


class Student(nn.Module, ABC):
    """Turns a batch of cached signals into one vector a video and one a text.

    config.needs: signals that it reads from the batch; `frame_valid` [B, M] is always there.
    gives: names in the result of `forward`.
    """

    config: StudentConfig
    gives: tuple[str, ...]

    @abstractmethod
    def encode_videos(self, batch: Tensors) -> dict[str, Tensor]:
        """`video_embedding` [B, D], and `frame_weight` [B, M] (rows sum to 1) if it weighs frames."""

    @abstractmethod
    def encode_texts(self, batch: Tensors) -> dict[str, Tensor]:
        """`text_embedding` [B, D]."""

    @abstractmethod
    def forward(self, batch: Tensors) -> dict[str, Tensor]:
        """Both, and `logits` [V, T]: every video of the batch against every text, scale included."""

    def after_step(self) -> None:
        """Called after every step of the optimiser, for limits that a gradient does not know."""


@dataclass(frozen=True)
class LossTerm:
    """A loss as a student's LOSSES lists it.

    function: (outputs of the student, batch) -> scalar. reads: outputs that it uses. needs: what the
    teacher has to have said, names of signals or PAIR_SCORES; () for a loss without a teacher.
    """

    function: Callable[[Tensors, Tensors], Tensor]
    reads: tuple[str, ...]
    needs: tuple[str, ...] = ()


class Task:
    """A student, the losses that train it (weight by name), and what both need from the cache.

    Raises UnknownNameError for a loss that the student does not list, InputError for one that it
    can't compute.
    """

    def __init__(
        self, student: Student, losses: Mapping[str, LossTerm], weights: Mapping[str, float]
    ) -> None:
        self.student = student
        self.weights = dict(weights)
        self.terms = {name: look_up("loss", name, losses) for name in weights}
        for name, term in self.terms.items():
            missing = set(term.reads) - set(student.gives)
            if missing:
                raise InputError(
                    f"loss {name!r} reads {sorted(missing)}, which this student does not give "
                    f"(it gives {list(student.gives)}); leave the loss out or choose another aggregation"
                )

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals, and PAIR_SCORES, in the order of first need."""
        taught = (need for term in self.terms.values() for need in term.needs)
        return tuple(dict.fromkeys((*self.student.config.needs, *taught)))

    def losses(self, batch: Tensors) -> dict[str, Tensor]:
        """Every term, unweighted, and `loss`, their weighted sum."""
        outputs = self.student(batch)
        terms = {name: term.function(outputs, batch) for name, term in self.terms.items()}
        total = sum(self.weights[name] * value for name, value in terms.items())
        return {"loss": total, **terms}  # type: ignore[dict-item]


def cosine_similarity(video_embedding_VD: Tensor, text_embedding_TD: Tensor) -> Tensor:
    """Cosine [V, T] of every video with every text: what retrieval ranks by."""
    return (
        functional.normalize(video_embedding_VD, dim=-1) @ functional.normalize(text_embedding_TD, dim=-1).T
    )
