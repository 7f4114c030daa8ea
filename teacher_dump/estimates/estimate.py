"""What a dump will cost, as data and in words: bytes, disk, seconds, memory, and whether it pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from store.errors import InputError
from store.layout import TeacherPlan
from store.parts import FIRST
from store.signals import ALL_TOKENS, SignalSpec
from teacher_dump.estimates.alternatives import Alternative, told
from teacher_dump.estimates.measured_batch import MeasuredBatch
from teacher_dump.estimates.payback import LiveBackbone, Payback
from teacher_dump.estimates.planned_bytes import CacheBytes, readable
from teacher_dump.pairs.costs import PairChoice
from teacher_dump.planned_dump import PlannedDump

ROOM = 0.02
"""Of the bytes, to be free besides: what a file system takes for folders and ends of blocks."""


@dataclass(frozen=True)
class Estimate:
    """bytes: of all, once complete; bytes_left: still to be written. seconds: left of each phase.

    memory_bytes: of the coordinator or of each worker, with its decoders. measured, seconds, memory_bytes,
    payback and backbone are None where no batch was run.
    """

    planned: PlannedDump
    bytes: CacheBytes
    bytes_left: int
    free_bytes: int
    pairs: PairChoice
    others: Sequence[Alternative]
    measured: MeasuredBatch | None = None
    seconds: dict[str, float] | None = None
    memory_bytes: int | None = None
    payback: Payback | None = None
    backbone: LiveBackbone | None = None

    @property
    def fits(self) -> bool:
        return all_fit([self])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; scripts may rely on the keys."""
        return {
            "cache": self.planned.cache,
            "teacher": self.planned.plan.name,
            "videos": self.planned.counts.videos,
            "texts": self.planned.counts.texts,
            "segment": self.planned.plan.part.segment,
            "addition": self.planned.plan.part.addition,
            "bytes": {
                "signals": dict(self.bytes.signals),
                "view": self.bytes.view,
                "tables": self.bytes.tables,
                "manifests": self.bytes.manifests,
                "total": self.bytes.total,
                "left": self.bytes_left,
            },
            "free_bytes": self.free_bytes,
            "fits": self.fits,
            "tasks": len(self.planned.tasks),
            "tasks_done": len(self.planned.done),
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "pairs": self.pairs.to_dict(),
            "payback": self.payback and self.payback.to_dict(),
            "live_backbone": self.backbone and self.backbone.to_dict(),
            "alternatives": [{"options": a.options, "bytes": a.bytes} for a in self.others],
        }

    def lines(self) -> Iterator[str]:
        planned, plan = self.planned, self.planned.plan
        done = f"; {len(planned.done)} of {len(planned.tasks)} tasks are done" if planned.done else ""
        yield f"estimate: {plan.name} over {planned.rows_told} into {planned.cache}{done}"
        yield from planned.notes()
        wide = max(len(plan.view.name) + 5, 20, *(len(spec.name) for spec in plan.signals))
        for spec in plan.signals:
            size = readable(self.bytes.signals[spec.name])
            yield f"    {spec.name:{wide}} {encoding_of(spec):22} {size:>10}"
        yield f"    {'view ' + plan.view.name:{wide}} {kept_of(plan):22} {readable(self.bytes.view):>10}"
        rest = self.bytes.tables + self.bytes.manifests
        yield f"    {'tables and manifests':{wide + 23}} {readable(rest):>10}"
        yield (
            f"    {'in all':{wide + 23}} {readable(self.bytes.total):>10}, "
            f"{readable(self.bytes_left)} to write, {readable(self.free_bytes)} free"
        )
        yield from self._measured_lines()
        if plan.part == FIRST:
            yield from self._pair_lines()
            yield from self._worth_lines()

    def _pair_lines(self) -> Iterator[str]:
        plan = self.planned.plan
        yield f"  pair scores: {plan.pair_scores.layout}; advised: {self.pairs.layout}, {self.pairs.why}"
        for cost in self.pairs.costs:
            seconds = "" if cost.seconds is None else f", {duration(cost.seconds)}"
            yield f"      {cost.layout:10} {readable(cost.bytes):>10}, {cost.pairs:,} pairs{seconds}"

    def _measured_lines(self) -> Iterator[str]:
        if self.seconds is None or self.measured is None or self.memory_bytes is None:
            return
        phases = ", ".join(f"{phase} {duration(value)}" for phase, value in self.seconds.items())
        cost = self.measured.of_video
        yield f"  time left: {duration(sum(self.seconds.values()))} ({phases})"
        yield (
            f"      a video, measured on {self.measured.videos}: decode {1000 * cost.decode_s:.1f} ms, "
            f"forward {1000 * cost.forward.clock_s:.1f}, encode {1000 * cost.encode.clock_s:.1f}, write "
            f"{1000 * cost.write.clock_s:.1f}"
        )
        device = f", {readable(self.measured.device_bytes)} of the device" * bool(self.measured.device_bytes)
        yield f"  memory at its peak: {readable(self.memory_bytes)}, decoders included{device}"

    def _worth_lines(self) -> Iterator[str]:
        if self.payback is not None:
            live, read = duration(self.payback.live_s), duration(self.payback.read_s)
            after = (
                "it does not pay for itself"
                if self.payback.epochs is None
                else f"it pays for itself after {self.payback.epochs:.1f} epochs"
            )
            yield f"  an epoch with the teacher run live {live}, read from the cache {read}: {after}"
        if self.backbone is not None:
            ways = {a.options: a.bytes for a in self.others if "layers" in a.options or "tokens" in a.options}
            fewest = dict(list(ways.items())[:4])
            yield from (f"  {line}" for line in self.backbone.lines(fewest))


def bytes_needed(parts: Sequence[Estimate]) -> int:
    return sum(part.bytes_left for part in parts)


def all_fit(parts: Sequence[Estimate]) -> bool:
    """Whether the disk has room for what is left of `parts` together."""
    return bytes_needed(parts) * (1 + ROOM) <= parts[0].free_bytes


def require_room(parts: Sequence[Estimate]) -> None:
    """Raise InputError, with what would fit, if the disk has too little room for what is left of `parts`."""
    if not all_fit(parts):
        needed, first = bytes_needed(parts), parts[0]
        raise InputError(
            f"{first.planned.cache} needs {readable(needed)} more, {readable(first.free_bytes)} are free; "
            f"{told(first.others, first.free_bytes)}"
        )


def encoding_of(spec: SignalSpec) -> str:
    """ "int8, pool2x2"."""
    tokens, width = spec.reduction.tokens, spec.reduction.width
    left = [tokens] if tokens != ALL_TOKENS else []
    return ", ".join([spec.encoding, *left, *([] if width is None else [f"{width} directions"])])


def kept_of(plan: TeacherPlan) -> str:
    kept = plan.kept_pixels
    if kept is None:
        return "no pixels kept"
    return f"pixels {kept.encoding}" + ("" if kept.quality is None else f":{kept.quality}")


def duration(seconds: float) -> str:
    """ "3.2 s", "12 min", "5.1 h"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
