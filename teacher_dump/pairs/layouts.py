"""Which pairs a dump scores and how their scores are stored: what the user says, what follows, what it costs.

    dense      every video against every text                              O(V T)
    planned    the batches that training will see, b x b, or of each row of them the best k
                                                                           O(T b E), O(T k E)
    topk       the best K of every video and text of whole splits          O((V + T) K)
    factored   nothing: a dual encoder's score is a product at read time   O(V + T)

DESIGN.md section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from store.encodings import INT32
from store.errors import InputError
from store.inputs.samples import Samples
from store.layout import check_path_name
from store.pair_scores import DENSE, FACTORED, PLANNED, TOPK
from store.planned_topk import FUSED, INDEX, MISMATCH, SCORE, TEXTS_OF_VIDEO, VIDEOS_OF_TEXT, topk_signal
from store.signals import SignalSpec, plan_of

LOGITS = "video_text_logits"
CHOICES = (DENSE, PLANNED, TOPK, FACTORED)
DIRECTIONS = (TEXTS_OF_VIDEO, VIDEOS_OF_TEXT)
TRAIN = "train"
LARGEST_NUMBER = 1_000_000


@dataclass(frozen=True)
class BatchOptions:
    """What `--plan` says: E epochs of batches of `batch` training rows of `split`, drawn from `seed`.

    k: None to score whole batches, else only the best k of every row of one. name: of the stored plan.
    Raises InputError for numbers that mean nothing.
    """

    batch: int
    epochs: int
    seed: int = 0
    split: str = TRAIN
    k: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for field, least in (("batch", 1), ("epochs", 1), ("seed", 0), ("k", 1)):
            number = getattr(self, field)
            if number is not None and not least <= number <= LARGEST_NUMBER:
                raise InputError(f"--plan {field} is from {least} to {LARGEST_NUMBER:,}, not {number}")
        if self.k is not None and self.k > self.batch:
            raise InputError(f"--plan k={self.k} are more than a batch of {self.batch} has")
        if not self.name:
            name = f"{self.split}-b{self.batch}-e{self.epochs}-s{self.seed}"
            object.__setattr__(self, "name", name)
        check_path_name("batch plan", self.name)

    @classmethod
    def parse(cls, words: str) -> BatchOptions:
        """ "batch=240,epochs=5,seed=0,k=11"; raises InputError for anything else."""
        told: dict[str, Any] = {}
        for word in words.split(","):
            field, equals, value = word.partition("=")
            known = field in cls.__dataclass_fields__ and equals and field not in told
            numeric = field not in ("split", "name")
            if not known or (numeric and not (value.isascii() and value.isdigit())):
                raise InputError(
                    "--plan wants batch=NUMBER,epochs=NUMBER and perhaps seed=, k=, split=, name=, "
                    f"e.g. batch=240,epochs=5,seed=0,k=11; not {word!r}"
                )
            told[field] = int(value) if numeric else value
        if not {"batch", "epochs"} <= set(told):
            raise InputError(f"--plan needs batch= and epochs=, e.g. batch=240,epochs=5; got {words!r}")
        return cls(**told)

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def steps_at_most(self, samples: Samples) -> int:
        """Steps if every video decodes; raises InputError as `rows_of_split` and `steps_of`."""
        return self.steps_of(len(rows_of_split(samples, self.split)[0]))

    def steps_of(self, rows: int) -> int:
        """Steps over as many training rows; raises InputError where they do not fill one batch."""
        if rows < self.batch:
            raise InputError(
                f"--plan: a batch of {self.batch} needs as many training rows, split {self.split!r} has "
                f"{rows}; give a smaller batch="
            )
        return self.epochs * (rows // self.batch)


@dataclass(frozen=True)
class PairOptions:
    """What the user says about pair scores; without a word each teacher has its own layout.

    layout: one of CHOICES, which the other options must fit. plan: draw batches and score those. topk: K of
    `topk_scores`. splits: whose rows compete in it, each split for itself; () for all splits. shortlist: the
    teacher of the same cache whose ranking chooses the k; "" for this teacher's own embeddings. fused_cls:
    store the fused [CLS] of a batch's best pairs as well. memory_mb: for scoring; None: of what is at hand.
    """

    layout: str | None = None
    plan: BatchOptions | None = None
    topk: int | None = None
    splits: tuple[str, ...] = ()
    shortlist: str = ""
    fused_cls: bool = False
    memory_mb: int | None = None

    def __post_init__(self) -> None:
        chosen = {PLANNED: self.plan is not None, TOPK: self.topk is not None}
        if self.layout in chosen and not chosen[self.layout]:
            example = "--plan batch=240,epochs=5" if self.layout == PLANNED else "--topk 128"
            raise InputError(f"--pairs {self.layout} needs {example}")
        for other, given in chosen.items():
            if given and self.layout not in (None, PLANNED, TOPK):
                raise InputError(
                    f"--pairs {self.layout} and --{other.replace('ned', '')} are two layouts; choose"
                )
        if self.fused_cls and (self.plan is None or self.plan.k is None):
            raise InputError(
                "--fused-cls belongs to the best k of batches: --plan batch=...,epochs=...,k=..."
            )
        if (
            (self.shortlist or self.splits)
            and self.topk is None
            and (self.plan is None or self.plan.k is None)
        ):
            raise InputError("--shortlist and --topk-splits are for --topk, or for --plan with k=")

    @property
    def chooses(self) -> bool:
        """Whether a shortlist decides which pairs are scored."""
        return self.topk is not None or (self.plan is not None and self.plan.k is not None)

    def ranks(self, split: str) -> bool:
        """Whether the rows of `split` will be ranked against each other, as a report of R@1 needs them."""
        if self.topk is not None:
            return not self.splits or split in self.splits
        return self.plan is None

    def layout_of(self, emitted: Sequence[SignalSpec]) -> str:
        """The layout of a teacher that emits `emitted`; raises InputError for one that it can't have."""
        scores_pairs = any(spec.name == LOGITS for spec in emitted)
        wanted = self.layout or (PLANNED if self.plan else TOPK if self.topk else None)
        if wanted is None:
            return DENSE if scores_pairs else FACTORED
        if (wanted == FACTORED) == scores_pairs:
            told = (
                "scores a pair by more than a product of embeddings; choose dense, planned or topk"
                if scores_pairs
                else "is a dual encoder: any pair's score is a product at read time, so it is factored"
            )
            raise InputError(f"this teacher {told}, not {wanted}")
        return wanted

    def stored_as(
        self,
        specs: Sequence[SignalSpec],
        fused_width: int | None,
        shortlist: Mapping[str, Any],
        topk: Mapping[str, Any],
    ) -> tuple[SignalSpec, ...]:
        """`specs` with `video_text_logits` in the layout that was chosen; raises InputError as `layout_of`.

        fused_width: of a cross-encoder, else None. shortlist: what the specs tell of who ranked. topk: of
        `topk_scores`, "k", no more than there are candidates, and "splits".
        """
        if self.layout_of(specs) in (DENSE, FACTORED):
            return tuple(specs)
        if self.fused_cls and fused_width is None:
            raise InputError("--fused-cls: this teacher fuses no pairs, a cross-encoder does (albef)")
        logits = next(spec for spec in specs if spec.name == LOGITS)
        found = [spec for spec in specs if spec.name != LOGITS]
        chosen = replace(logits, attributes={**logits.attributes, "shortlist": dict(shortlist)})
        if self.plan is not None and self.plan.k is None:
            attributes = dict(logits.attributes)
            name = f"planned_scores/{self.plan.name}"
            found.append(SignalSpec(name, {"B": self.plan.batch}, attributes=attributes))
        elif self.plan is not None:
            width = fused_width if self.fused_cls else None
            found += self._planned_topk(chosen.attributes, fused_width is not None, width)
        if self.topk is not None:
            attributes = {**chosen.attributes, "splits": list(topk["splits"])}
            found += _topk_specs(attributes, topk["k"], fused_width is not None)
        return tuple(found)

    def _planned_topk(
        self, attributes: Mapping[str, Any], two_logits: bool, fused_width: int | None
    ) -> list[SignalSpec]:
        assert self.plan is not None
        assert self.plan.k is not None
        sizes = {"B": self.plan.batch, "K": self.plan.k}
        parts = [SCORE, *([MISMATCH] if two_logits else [])]
        found = []
        for way in DIRECTIONS:
            found.append(SignalSpec(topk_signal(self.plan.name, way, INDEX), sizes, INT32, attributes))
            for part in parts:
                name = topk_signal(self.plan.name, way, part)
                found.append(SignalSpec(name, sizes, attributes=attributes))
            if fused_width is not None:
                name = topk_signal(self.plan.name, way, FUSED)
                found.append(SignalSpec(name, {**sizes, "D": fused_width}, attributes=attributes))
        return found


def _topk_specs(attributes: Mapping[str, Any], topk: int, two_logits: bool) -> list[SignalSpec]:
    sizes, found = {"K": topk}, []
    for way in DIRECTIONS:
        found.append(SignalSpec(f"topk_scores/{way}_{INDEX}", sizes, INT32, attributes))
        for part in (SCORE, *([MISMATCH] if two_logits else [])):
            found.append(SignalSpec(f"topk_scores/{way}_{part}", sizes, attributes=attributes))
    return found


def is_of_all_rows(spec: SignalSpec) -> bool:
    """Whether a signal is made from all rows at once: batches drawn from them, the best K of them."""
    return plan_of(spec.name) is not None or spec.name.startswith("topk_scores/")


def rows_of_split(samples: Samples, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(video, text) [N] int64 of a split's captions, in its order; raises InputError if there is none."""
    if split not in samples.splits:
        raise InputError(
            f"dataset {samples.name!r} has no split {split!r}, it has {', '.join(sorted(samples.splits))}"
        )
    text = samples.splits[split].text
    video = np.array([samples.texts[row].video for row in text.tolist()], dtype=np.int64)
    return video[video >= 0], text[video >= 0]


def competing_splits(samples: Samples, wanted: Sequence[str]) -> tuple[str, ...]:
    """The splits whose rows compete for `topk_scores`, all of them if none is `wanted`.

    Raises InputError for one that is not there, or where a row stands in two: it would have two rankings.
    """
    names = tuple(wanted) or tuple(sorted(samples.splits))
    rows = {name: rows_of_split(samples, name) for name in names}
    for one, other in combinations(names, 2):
        for kind, ours, theirs in zip(("video", "text"), rows[one], rows[other], strict=True):
            if len(shared := np.intersect1d(ours, theirs)):
                raise InputError(
                    f"{kind} row {shared[0]} is in splits {one!r} and {other!r}, so whom it competes with is "
                    "open; name the splits of topk_scores by --topk-splits"
                )
    return names


def most_candidates(samples: Samples, splits: Sequence[str]) -> int:
    """The most videos or texts that compete in one of `splits`: a longer top-k would be empty places."""
    sizes = [1]
    for name in splits:
        video, text = rows_of_split(samples, name)
        sizes += [len(np.unique(video)), len(text)]
    return max(sizes)
