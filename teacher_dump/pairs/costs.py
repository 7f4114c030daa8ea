"""Which layout pair scores should have: what each would take, and why one is chosen (DESIGN.md, section 4).

factored   embeddings alone, the product at read time          O(V + T)
dense      every video against every text                      O(V T)
planned    the b x b blocks that E epochs of training see      O(T b E)
top-k      of those, the best K a row, both directions         O(T K E)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from store.encodings import FLOAT16, INT32
from store.layout import TableCounts
from store.pair_scores import DENSE, FACTORED, NO_PAIRS, PLANNED, TOPK
from store.signals import SignalSpec
from teacher_dump.estimates.planned_bytes import readable, signal_bytes
from teacher_dump.pairs.layouts import LOGITS

SHARD_ROWS = 1 << 12
DENSE_BYTES = 10_000_000_000
"""Up to here dense scores are advised unmeasured: readers map them into memory."""


@dataclass(frozen=True)
class PlanSize:
    """A batch plan to reckon with: b texts a batch, E epochs, K kept of each row where only those are."""

    batch: int = 240
    epochs: int = 5
    kept: int = 11


@dataclass(frozen=True)
class PairCost:
    """One layout: what it stores, how many pairs the teacher scores for it, and how long that takes.

    seconds: None where nothing was measured.
    """

    layout: str
    bytes: int
    pairs: int
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class PairChoice:
    """The layouts that a teacher could have, the one advised, and why."""

    costs: Sequence[PairCost]
    layout: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        return {"layouts": [cost.to_dict() for cost in self.costs], "advised": self.layout, "why": self.why}


def steps_of(texts: int, plan: PlanSize) -> int:
    """Steps of E epochs over `texts` training texts; the tail of an epoch is left out."""
    return max(texts // plan.batch, 1) * plan.epochs


def layout_costs(
    videos: int, texts: int, train_texts: int, plan: PlanSize = PlanSize(), pair_s: float | None = None
) -> list[PairCost]:
    """Of dense, planned and planned top-k scores. pair_s: seconds of one pair, where known."""
    steps = steps_of(train_texts, plan)
    counts = TableCounts(videos, texts, {"p": steps})
    blocks = steps * plan.batch**2
    kept = [
        SignalSpec(f"planned_topk/p/{way}_{part}", {"B": plan.batch, "K": plan.kept}, encoding)
        for way in ("text", "video")
        for part, encoding in (("index", INT32), ("score", FLOAT16))
    ]
    stored = {
        DENSE: ([SignalSpec(LOGITS, {})], videos * texts),
        PLANNED: ([SignalSpec("planned_scores/p", {"B": plan.batch})], blocks),
        TOPK: (kept, 2 * steps * plan.batch * plan.kept),
    }
    return [
        PairCost(
            layout,
            sum(signal_bytes(spec, counts, SHARD_ROWS) for spec in specs),
            pairs,
            None if pair_s is None else pairs * pair_s,
        )
        for layout, (specs, pairs) in stored.items()
    ]


def choose_layout(
    signals: Sequence[SignalSpec],
    is_cross_encoder: bool,
    costs: Sequence[PairCost],
    encoding_s: float | None,
    free_bytes: int | None,
) -> PairChoice:
    """By what the teacher emits and what scoring costs.

    encoding_s: seconds of encoding all videos, where measured: a dense block may take as long again.
    """
    names = {spec.name for spec in signals}
    if LOGITS not in names:
        if "text_embedding" in names:
            return PairChoice(
                (), FACTORED, "a dual encoder: logits are a product of stored embeddings, exact, any batch"
            )
        return PairChoice((), NO_PAIRS, "the teacher scores no pairs")
    dense, planned, topk = (next(c for c in costs if c.layout == name) for name in (DENSE, PLANNED, TOPK))
    if dense.pairs <= topk.pairs:
        why = f"all {dense.pairs:,} pairs are fewer than training would see of a plan ({planned.pairs:,})"
        return PairChoice(costs, DENSE, why)
    if is_cross_encoder:
        why = (
            f"a cross-encoder pays for every pair: the best of each row of a plan are {topk.pairs:,}, "
            f"all are {dense.pairs:,}"
        )
        return PairChoice(costs, TOPK, why)
    if free_bytes is not None and dense.bytes > free_bytes:
        return PairChoice(costs, PLANNED, f"dense scores take {readable(dense.bytes)}, more than is free")
    if dense.seconds is not None and encoding_s is not None:
        told = (
            f"scoring all {dense.pairs:,} pairs takes {dense.seconds:,.0f} s, encoding the videos "
            f"{encoding_s:,.0f} s"
        )
        if dense.seconds <= encoding_s:
            return PairChoice(costs, DENSE, f"late interaction: {told}; any batch can be taught")
        return PairChoice(
            costs, PLANNED, f"{told}; a plan has {dense.pairs / planned.pairs:,.1f} times fewer"
        )
    if dense.bytes <= DENSE_BYTES:
        why = f"late interaction: {readable(dense.bytes)} serve any batch and any number of epochs"
        return PairChoice(costs, DENSE, why)
    return PairChoice(
        costs, PLANNED, f"dense scores take {readable(dense.bytes)}, planned ones {readable(planned.bytes)}"
    )
