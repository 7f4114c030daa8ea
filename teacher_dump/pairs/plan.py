"""What a plan fixes about pair scores before anything is written: specs, blocks that fit, rows of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.cache_state import CacheState
from store.parts import FIRST, Part
from store.signals import SignalSpec
from teacher_dump.pairs.layouts import (
    LOGITS,
    BatchOptions,
    competing_splits,
    is_of_all_rows,
    most_candidates,
)
from teacher_dump.pairs.memory import memory_for_pairs, pair_block
from teacher_dump.pairs.shortlist import shortlist_identity
from teacher_dump.plan import PLANNED_PHASE, TOPK_TEXTS, TOPK_VIDEOS
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import Teacher

BLOCK = ("block_videos", "block_texts", "strip_videos")
PAIRS_OF_A_TASK = 1 << 19
"""Of a cross-encoder: minutes of a GPU, which is what a kill may cost."""


@dataclass(frozen=True)
class PairPlan:
    """signals: all that the teacher stores. execution: what a resume repeats, plain JSON."""

    signals: tuple[SignalSpec, ...]
    execution: Mapping[str, Any]


def plan_pairs(writer: CacheState, teacher: Teacher, settings: DumpSettings) -> PairPlan:
    """From what the user said.

    Raises InputError for options that do not fit the teacher or the dataset, and as `shortlist_identity`.
    """
    # Batches and rankings are never of appended rows.
    options, samples = settings.pairs, writer.samples_of(FIRST)
    stored = settings.storage.applied(teacher.signals, teacher.pair_inputs)
    options.layout_of(stored)
    shortlist = shortlist_identity(writer.root, teacher.name, options.shortlist) if options.chooses else None
    topk = None
    if options.topk is not None:
        splits = competing_splits(samples, options.splits)
        topk = {"k": min(options.topk, most_candidates(samples, splits)), "splits": list(splits)}
    if options.plan is not None:
        options.plan.steps_at_most(samples)
    signals = options.stored_as(stored, teacher.fused_width, shortlist or {}, topk or {})
    told = {
        "plan": options.plan.to_dict() if options.plan else None,
        "topk": topk,
        "shortlist": shortlist,
        "fused_cls": options.fused_cls,
    }
    return PairPlan(signals, told)


def pairs_of_part(told: Mapping[str, Any], signals: Sequence[SignalSpec]) -> dict[str, Any]:
    """What a part of a teacher repeats of `PairPlan.execution`: plans, rankings where it stores them."""
    planned = any(spec.row_axis == "S" for spec in signals)
    ranked = any(spec.name.startswith("topk_scores/") for spec in signals)
    return {
        **told,
        "plan": told["plan"] if planned else None,
        "topk": told["topk"] if ranked else None,
        "shortlist": told["shortlist"] if planned or ranked else None,
        "fused_cls": told["fused_cls"] and planned,
    }


def pairs_of_finished(told: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished part has `stored`, with what is told now of the same things.

    Another plan, top-k or shortlist than it has is of signals that are to be added beside it.
    """
    again = {name: told[name] for name in BLOCK if name in told and name in stored}
    if told["plan"] and stored["plan"] and told["plan"]["name"] == stored["plan"]["name"]:
        again["plan"] = told["plan"]
    return {**stored, **again}


def scores_pairs(signals: Sequence[SignalSpec]) -> bool:
    """Whether one of `signals` is made by scoring pairs."""
    return any(spec.name == LOGITS or is_of_all_rows(spec) for spec in signals)


def rows_up_to(writer: CacheState, part: Part) -> tuple[int, int]:
    """Videos and texts of the segment of `part` and of those before it: all that it scores.

    Rows that were appended later don't count, so that a teacher's plan is the same before and after them.
    """
    counts = writer.part_counts(part)
    return counts.first_video + counts.videos, counts.first_text + counts.texts


def block_of_part(writer: CacheState, teacher: Teacher, settings: DumpSettings, part: Part) -> dict[str, int]:
    """block_videos x block_texts scored at once, and strip_videos whose logits with all texts are held
    (`video_text_logits`); what an earlier run of the part fixed stays fixed.

    The memory itself is no part of the plan: what is free on a machine makes no other labels where all fits.
    """
    wanted_mb, earlier = settings.pairs.memory_mb, writer.stored_plan(teacher.name, part)
    if wanted_mb is None and earlier is not None:
        return {name: size for name, size in earlier.execution["pairs"].items() if name in BLOCK}
    memory = memory_for_pairs(teacher.device) if wanted_mb is None else wanted_mb << 20
    all_videos, all_texts = rows_up_to(writer, part)
    block = min(settings.batch_videos, all_videos), min(settings.batch_texts, all_texts)
    videos, texts = pair_block(teacher, *block, memory)
    strip = max(videos, memory // (4 * all_texts))
    return dict(zip(BLOCK, (videos, texts, min(strip, all_videos)), strict=True))


def most_rows_of_tasks(teacher: Teacher, told: Mapping[str, Any], texts: int) -> dict[str, int]:
    """Of a task, by phase, where pairs are so dear that a shard would be too much work to lose.

    told: what the part repeats of its pairs. texts: that each video is scored with.
    """
    if teacher.fused_width is None:
        return {}
    pairs_of_a_row = {"pairs": texts}
    if told["plan"] is not None:
        plan = BatchOptions(**told["plan"])
        pairs_of_a_row[PLANNED_PHASE] = plan.batch * (plan.batch if plan.k is None else 2 * plan.k)
    if told["topk"] is not None:
        pairs_of_a_row |= dict.fromkeys((TOPK_TEXTS, TOPK_VIDEOS), told["topk"]["k"])
    return {
        phase: 1 << (max(PAIRS_OF_A_TASK // max(pairs, 1), 1).bit_length() - 1)
        for phase, pairs in pairs_of_a_row.items()
    }
