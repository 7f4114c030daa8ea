"""When a cache pays for itself, and whether ViT layers are worth storing or their backbone runs live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.signals import TOKEN, SignalSpec
from teacher_dump.estimates.measured_batch import MeasuredBatch
from teacher_dump.estimates.planned_bytes import readable

LAYERS = "vit_layers/"
WARM_SHARE = 0.5
"""Of the machine's memory: a cache up to this size stays in the page cache from one epoch to the next."""


@dataclass(frozen=True)
class Payback:
    """Seconds of one epoch of a student: the teacher run live, against read from the cache.

    epochs: after which the dump has paid for itself; None if it never does. Decoding counts on neither
    side: a student that sees frames decodes them anyway.
    """

    live_s: float
    read_s: float
    epochs: float | None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class LiveBackbone:
    """Reading a video's ViT layers against computing them: seconds a video, and bytes of all of them."""

    bytes: int
    read_s: float
    forward_s: float

    @property
    def is_cheaper(self) -> bool:
        return self.forward_s < self.read_s

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "live_is_cheaper": self.is_cheaper}

    def lines(self, fitting: Mapping[str, int]) -> list[str]:
        """fitting: way to store less -> its share of these layers' bytes."""
        told = (
            f"reading a video's layers takes {1000 * self.read_s:.1f} ms, computing them "
            f"{1000 * self.forward_s:.1f} ms"
        )
        if not self.is_cheaper:
            return [f"vit_layers ({readable(self.bytes)}): {told}; stored ones pay"]
        ways = ", ".join(f"{way} ({readable(size)})" for way, size in fitting.items())
        return [
            f"vit_layers ({readable(self.bytes)}): {told}: RUNNING THE BACKBONE LIVE IS CHEAPER; leave them "
            f"out, or store less: {ways}"
        ]


def payback(
    dump_s: float, batch: MeasuredBatch, rows: int, student_batch: int, pair_bytes: int, is_warm: bool
) -> Payback:
    """Over an epoch of `rows` training texts with their videos, in batches of `student_batch`.

    dump_s: of the whole dump. pair_bytes: of the scores of one row of a batch. is_warm: the cache stays in
    the page cache.
    """
    live = batch.of_video.forward.clock_s + batch.of_text.forward.clock_s
    if batch.block is not None:
        videos, texts = batch.block_shape
        live += batch.block.clock_s / (videos * texts) * student_batch
    if batch.relevance is not None:
        live += batch.relevance.clock_s
    read = read_s(batch, is_warm) * (1 + pair_bytes / max(batch.row_bytes, 1))
    gained = rows * (live - read)
    return Payback(rows * live, rows * read, dump_s / gained if gained > 0 else None)


def read_s(batch: MeasuredBatch, is_warm: bool) -> float:
    """Of reading a video's signals."""
    return batch.read_warm_s if is_warm else batch.read_cold_s


def live_backbone(
    signals: Mapping[str, tuple[SignalSpec, int]], batch: MeasuredBatch, videos: int, memory_bytes: int
) -> LiveBackbone | None:
    """Of the ViT layers among `signals` (spec and bytes by name); None where there are none."""
    size = sum(count for spec, count in signals.values() if spec.kind.granularity == TOKEN)
    if not size:
        return None
    rate = read_s(batch, size <= WARM_SHARE * memory_bytes) / max(batch.row_bytes, 1)
    return LiveBackbone(size, rate * size / videos, batch.of_video.forward.clock_s)
