"""Dataset + teacher -> shard tasks, as plain data.

A dump goes in phases, each over the rows of one axis; a later phase reads what an earlier one stored:

    videos (V)     frames -> frame features, layers, and the view itself
    texts (T)      captions -> text features
    relevance (T)  stored features of a text and of its own video -> frame scores
    pairs (V)      stored features of some videos and of all texts -> logits
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.layout import TeacherPlan
from store.signals import SignalSpec

PHASES = ("videos", "texts", "relevance", "pairs")
PHASE_AXIS = {"videos": "V", "texts": "T", "relevance": "T", "pairs": "V"}
SHARD_BYTES = 1 << 28
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class ShardTask:
    """Rows [start, stop) of one phase: writes shard `number` of each of the phase's signals."""

    teacher: str
    phase: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.teacher}/{self.phase}/{self.number}"


def phase_of(spec: SignalSpec) -> str:
    """The phase that writes a signal."""
    by_name = {"video_text_logits": "pairs", "frame_relevance": "relevance"}
    return by_name.get(spec.name) or ("texts" if spec.row_axis == "T" else "videos")


def execution(
    signals: Sequence[SignalSpec],
    counts: Mapping[str, int],
    settings: Mapping[str, Any],
    shard_rows: int | None,
) -> dict[str, Any]:
    """What a resume repeats to the letter: `settings`, each signal's phase, and the rows of its shards.

    counts: {"V": videos, "T": texts}. shard_rows: of every phase; by default as many rows as make the
    phase's largest signal fill 256 MB, and a small cache is one shard.
    """
    phases = {spec.name: phase_of(spec) for spec in signals}
    rows = {
        phase: shard_rows
        if shard_rows is not None
        else _default_shard_rows([s for s in signals if phases[s.name] == phase], counts)
        for phase in PHASES
    }
    return {**settings, "phase_of": phases, "shard_rows": rows}


def _default_shard_rows(signals: Sequence[SignalSpec], counts: Mapping[str, int]) -> int:
    row_bytes = 1
    for spec in signals:
        size = FLOAT16_BYTES
        for axis in spec.kind.axes[1:]:
            size *= {**spec.sizes, **counts}[axis]
        row_bytes = max(row_bytes, size)
    return max(1, min(SHARD_BYTES // row_bytes, max(counts.values())))


def shard_tasks(plan: TeacherPlan, counts: Mapping[str, int]) -> Iterator[ShardTask]:
    """Every task of the dump, phase by phase; `videos` always runs, since it resolves the view."""
    wanted = {"videos", *plan.execution["phase_of"].values()}
    for phase in PHASES:
        if phase not in wanted:
            continue
        rows, step = counts[PHASE_AXIS[phase]], plan.execution["shard_rows"][phase]
        for number, start in enumerate(range(0, rows, step)):
            yield ShardTask(plan.name, phase, number, start, min(start + step, rows))
