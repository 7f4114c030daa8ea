"""The contract of a student: light, trained from the cache only. docs/students.md shows how to write one.

A student module offers five names, and nothing else is asked of it:

    Config                          frozen dataclass, a StudentConfig: what the model is made of
    build(config, sizes) -> Student sizes: {need: {axis letter: length}} of what the cache holds
    LOSSES                          losses by name, with what each needs; or losses(config), which gives them,
                                    where they depend on what the model is made of
    RECIPES                         named recipes, at the foot of the file
    tiny() -> (config, sizes)       weight-free and small, for the contract tests; where recipes are large,
                                    small(config) gives the same kind of student for the sizes of tiny

A task is a student, the losses that train it, and what both need from the cache. Needs are strings, see
`student_train.needs`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from store.lookup import look_up
from student_train.augmentation import refuse_where_places_count
from student_train.distributed import gather_rows, rank, world_size
from student_train.needs import in_role, seen_through, split_role
from student_train.rows import PairBlock, PerRow

Batch = Mapping[str, Any]
"""Tensors and PairBlocks (and the captions, a list) of this process's rows, by need."""
Outputs = Mapping[str, Any]
SignalSizes = Mapping[str, Mapping[str, int]]
FINITE_ROWS = "finite_rows"
MAX_LOGIT_SCALE = 100.0
"""Of CLIP and what is trained like it (ruc-aimc-lab/TeachCLIP `main_task_retrieval.py`: clamp to log 100)."""


class StudentConfig(ABC):
    """What a student is made of; subclasses are frozen dataclasses of plain values."""

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """What a student so made reads from a batch, see `student_train.needs`."""

    @property
    def recognises(self) -> bool:
        """Whether it learns the classes of videos also from a dataset that has captions."""
        return False

    @property
    def swaps_classes(self) -> bool:
        """Whether nothing that it learns belongs to one class, so that others may be put in their place."""
        return not self.recognises

    @property
    def shaped_by(self) -> tuple[str, ...]:
        """Signals that it does not read, but whose sizes decide the shape of its parameters."""
        return ()

    @property
    def starts_from(self) -> tuple[str, ...]:
        """Signals of the teacher itself, which it takes over before the first step; roles as in `needs`."""
        return ()


class Student(nn.Module, ABC):
    """Turns this process's rows into representations, and representations into logits of pairs.

    serves: beginnings of the names of parameters that serve some outputs alone, with these; they learn only
    where a loss reads one of them. crops_frames: whether it sees random parts of the frames while it trains.
    gives: names in the result of `forward`, of a batch that holds what its losses need. gathers: those of
    them, [b, ...], that the logits are computed from; only they are exchanged between processes. A student
    without them gives no logits.
    averaged: an output [b, D] whose mean over a video's renditions is classified; None: each rendition is,
    and the probabilities are averaged.
    limited_scales: names of parameters that hold the logarithm of a logit scale, at most MAX_LOGIT_SCALE.
    compiled: methods that `forward` calls and torch.compile is applied to.
    """

    config: StudentConfig
    gives: tuple[str, ...]
    gathers: tuple[str, ...] = ("video_embedding", "text_embedding")
    serves: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    averaged: str | None = None
    crops_frames = False
    limited_scales: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ("encode_videos", "encode_texts")

    def start(self) -> dict[str, Any]:
        """Called once, before the first step: take over public weights; what to record of them, digests
        included. A student that is only evaluated never asks for them."""
        return {}

    def take_over(self, signals: Mapping[str, Tensor]) -> dict[str, Any]:
        """Called once, after `start`, with what `Config.starts_from` names, whole; what to record of it."""
        return {}

    @abstractmethod
    def encode_videos(self, batch: Batch) -> dict[str, Tensor]:
        """`video_embedding` [b, D], `frame_weight` [b, M] (rows sum to 1) if it weighs frames, and more."""

    @abstractmethod
    def encode_texts(self, batch: Batch) -> dict[str, Tensor]:
        """`text_embedding` [b, D], and more."""

    def similarity(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        """Logits [V, T], scale included, from what `gathers` names of `encode_videos` and `encode_texts`."""
        raise NotImplementedError(f"{type(self).__name__} gathers {self.gathers} and has no similarity")

    def classify(self, video_embedding: Tensor, batch: Batch) -> Tensor:
        """Logits [b, C] of what `averaged` names; `batch` holds what the student needs of all classes."""
        raise NotImplementedError(f"{type(self).__name__} averages {self.averaged} and has no classify")

    def forward(self, batch: Batch) -> dict[str, Any]:
        """All that both encoders give, and the PairBlock `logits`, computed in float32."""
        videos, texts = self.encode_videos(batch), self.encode_texts(batch)
        outputs: dict[str, Any] = {**videos, **texts}
        if self.gathers:
            outputs["logits"] = self.pair_logits(*(self.gathered_of(side) for side in (videos, texts)))
        return outputs

    def gathered_of(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in outputs.items() if name in self.gathers}

    def pair_logits(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> PairBlock:
        """This process's strips of the global batch's logits; gathers what the others encoded."""
        device = next(iter(videos.values())).device.type
        with torch.autocast(device, enabled=False):
            videos = {name: value.float() for name, value in videos.items()}
            texts = {name: value.float() for name, value in texts.items()}
            if world_size() == 1:
                return PairBlock.whole(self.similarity(videos, texts))
            all_videos = {name: gather_rows(value) for name, value in videos.items()}
            all_texts = {name: gather_rows(value) for name, value in texts.items()}
            rows, columns = self.similarity(videos, all_texts), self.similarity(all_videos, texts)
        return PairBlock(rows, columns, rank() * len(rows))

    def after_step(self) -> None:
        """Called after every step of the optimiser, for limits that a gradient does not know."""
        with torch.no_grad():
            for name in self.limited_scales:
                self.get_parameter(name).clamp_(max=math.log(MAX_LOGIT_SCALE))


@dataclass(frozen=True)
class LossTerm:
    """A loss as a student's LOSSES lists it.

    function: (outputs of the student, batch) -> a number for each of the rows. reads: outputs that it
    uses. needs: what the teacher has to have said; () for a loss without a teacher.
    """

    function: Callable[[Outputs, Batch], PerRow]
    reads: tuple[str, ...]
    needs: tuple[str, ...] = ()


def losses_of(module: ModuleType, config: StudentConfig) -> Mapping[str, LossTerm]:
    """The losses of a student module for a model made so."""
    found: Mapping[str, LossTerm] = module.losses(config) if hasattr(module, "losses") else module.LOSSES
    return found


class Task(nn.Module):
    """A student, the losses that train it (weight by name), and what both need from the cache.

    A name "coarse_pearson@second" is the loss `coarse_pearson` taught by the teacher in the role
    "second". Raises UnknownNameError for a loss that the student does not list, InputError for one that
    it can't compute, or that tells of places in frames which the student crops.
    """

    def __init__(
        self, student: Student, losses: Mapping[str, LossTerm], weights: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.student = student
        self.weights = dict(weights)
        if not weights:
            raise InputError(f"there is no loss to learn by; give one a weight: {', '.join(sorted(losses))}")
        self.terms = {name: look_up("loss", split_role(name)[0], losses) for name in weights}
        for name, term in self.terms.items():
            missing = set(term.reads) - set(student.gives)
            if missing:
                raise InputError(
                    f"loss {name!r} reads {sorted(missing)}, which this student does not give "
                    f"(it gives {list(student.gives)}); leave the loss out or choose another aggregation"
                )
        if student.crops_frames:
            refuse_where_places_count(self.needs)

    @property
    def needs(self) -> tuple[str, ...]:
        """Of student and losses, with their roles, in the order of first need."""
        taught = (
            in_role(need, split_role(name)[1]) for name, term in self.terms.items() for need in term.needs
        )
        return tuple(dict.fromkeys((*self.student.config.needs, *taught)))

    def freeze_unread(self) -> None:
        """Let parameters not learn that serve only outputs which none of the losses reads."""
        read = {output for term in self.terms.values() for output in term.reads}
        idle = tuple(start for start, outputs in self.student.serves.items() if read.isdisjoint(outputs))
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not name.startswith(idle))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This process's part of `loss`, of every unweighted term, and of `taught_share`: all parts add up.

        `taught_share`, of a task with a teacher, is the share of rows about which the teacher said something,
        over the losses that it teaches, each by its weight. `finite_rows` [b] bool: which of its rows are so.
        """
        outputs = self.student(batch)
        found = {
            name: term.function(outputs, seen_through(batch, split_role(name)[1]))
            for name, term in self.terms.items()
        }
        terms = {name: per_row.mean() for name, per_row in found.items()}
        losses: dict[str, Any] = {
            "loss": sum(self.weights[name] * value for name, value in terms.items()),
            **terms,
        }
        taught = {name: abs(self.weights[name]) for name, term in self.terms.items() if term.needs}
        if taught:
            said = sum(weight * found[name].share() for name, weight in taught.items())
            losses["taught_share"] = said / sum(taught.values())
        losses[FINITE_ROWS] = finite_rows(outputs, found)
        return losses


def finite_rows(outputs: Outputs, found: Mapping[str, PerRow]) -> Tensor:
    """[b] bool: rows whose own outputs are finite; where all are, those whose losses are.

    A video or text that comes out broken breaks the losses of all rows that it is compared with.
    """
    each = [per_row.values.detach() for per_row in found.values()]
    embeddings = [
        value.detach()
        for value in outputs.values()
        if isinstance(value, Tensor) and value.ndim == 2 and len(value) == len(each[0])
    ]
    own = all_finite(embeddings or each)
    return torch.where(own.all(), all_finite(each), own)


def all_finite(values: Sequence[Tensor]) -> Tensor:
    """[b] bool: whether all numbers of a row are finite, of tensors [b, ...]."""
    return torch.stack([value.isfinite().reshape(len(value), -1).all(1) for value in values]).all(0)


def cosine_similarity(video_embedding_VD: Tensor, text_embedding_TD: Tensor) -> Tensor:
    """Cosine [V, T] of every video with every text: what retrieval ranks by."""
    return (
        functional.normalize(video_embedding_VD, dim=-1) @ functional.normalize(text_embedding_TD, dim=-1).T
    )
