"""python -m tests.bench.bench_pairs: what scoring pairs costs in each layout as texts or videos double.

    planned   O(T b E)     planned top-k   O(T k E)     dense   O(V T)     topk   O((V + T) K)

Stored features of a small ALBEF at random; only the pair phases run, in this process, on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any, cast

import torch
from torch import Tensor

from store.inputs.decode_pool import DecodePool
from store.layout import TeacherPlan
from store.writer import CacheWriter
from teacher_dump.dump import make_plan
from teacher_dump.dump_shard import ShardDumper
from teacher_dump.pairs.layouts import BatchOptions, PairOptions
from teacher_dump.pairs.phases import draw_batches
from teacher_dump.plan import TOPK_TEXTS, TOPK_VIDEOS, planned_tasks, shard_tasks
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import albef
from teacher_dump.workers.executors import SerialExecutor
from tests.bench import report
from tests.bench.report import Bar
from tests.synthetic_cache import shard_commits, synthetic_samples

BATCH, EPOCHS, K = 32, 2, 4
LAYOUTS = {
    "dense": PairOptions(),
    f"planned, b={BATCH}, E={EPOCHS}": PairOptions(plan=BatchOptions(BATCH, EPOCHS)),
    f"planned, k={K} of b={BATCH}, E={EPOCHS}": PairOptions(plan=BatchOptions(BATCH, EPOCHS, k=K)),
    f"topk, K={K}": PairOptions(topk=K),
}
PAIR_PHASES = ("pairs", TOPK_TEXTS, TOPK_VIDEOS)


class CountingAlbef(albef.AlbefTeacher):
    """Counts the pairs that go through the fusion layers."""

    pairs = 0

    def score_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        scores = super().score_pairs(videos, texts)
        self.pairs += scores.numel()
        return scores

    def match_pairs(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        said = super().match_pairs(videos, texts)
        self.pairs += len(said["match_logits"])
        return said


@dataclass(frozen=True)
class Cost:
    pairs: int
    seconds: float


def cost_of(folder: Path, options: PairOptions, videos: int, captions: int) -> Cost:
    """Pairs and CPU seconds of the pair phases over `videos` x `captions` texts, half of them in train."""
    samples = synthetic_samples(videos, captions)
    tiny = albef.tiny(0)
    teacher = CountingAlbef(tiny.model, tiny.tokenizer)
    settings = DumpSettings(threads=1, pairs=options, batch_videos=16, batch_texts=64, shard_rows=64)
    with CacheWriter(folder, samples) as writer:
        plan = make_plan(writer, teacher, settings, SerialExecutor())
        writer.plan(plan)
        for commit in shard_commits(folder, samples, features_of(plan)):
            writer.commit(commit)
        batches = draw_batches(writer, plan)
        counts = {"V": videos, "T": videos * captions}
        tasks = [task for task in shard_tasks(plan, counts) if task.phase in PAIR_PHASES]
        tasks += [] if batches is None else list(planned_tasks(plan, batches.steps))
        dumper = ShardDumper(folder, plan, samples, teacher, cast(DecodePool, None), False)
        teacher.pairs = 0
        began = process_time()
        for task in tasks:
            dumper.run(task, lambda _: None)
        return Cost(teacher.pairs, process_time() - began)


def features_of(plan: TeacherPlan) -> TeacherPlan:
    """The plan of the signals that pairs are scored from, as `shard_commits` writes them."""
    phases = plan.execution["phase_of"]
    features = tuple(spec for spec in plan.signals if phases[spec.name] in ("videos", "texts"))
    rows = plan.execution["shard_rows"]
    execution = {**plan.execution, "shard_rows": {**rows, "V": rows["videos"], "T": rows["texts"]}}
    return TeacherPlan(plan.name, plan.identity, plan.view, features, execution, plan.provenance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=64, help="before doubling (default: %(default)s)")
    parser.add_argument("--captions", type=int, default=4, help="of a video (default: %(default)s)")
    options = parser.parse_args()
    if options.videos * options.captions < 2 * BATCH or options.captions % 2:
        parser.error(f"--captions is even, and half of all texts have to fill a batch of {BATCH}")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    ratios: dict[tuple[str, str], float] = {}
    sizes = {
        "": (options.videos, options.captions),
        "texts": (options.videos, 2 * options.captions),
        "videos": (2 * options.videos, options.captions // 2),
    }
    for layout, pairs in LAYOUTS.items():
        base: Cost | None = None
        for doubled, (videos, captions) in sizes.items():
            with tempfile.TemporaryDirectory(prefix="bench-pairs-") as folder:
                cost = cost_of(Path(folder) / "c.zarr", pairs, videos, captions)
            base = base or cost
            ratios[layout, doubled] = cost.seconds / base.seconds
            rows.append(
                {
                    "layout": layout,
                    "V": videos,
                    "T": videos * captions,
                    "pairs": cost.pairs,
                    "CPU s": round(cost.seconds, 3),
                    "to the first": round(cost.seconds / base.seconds, 2),
                }
            )
    planned = [layout for layout in LAYOUTS if layout.startswith("planned")]
    bars = [Bar(f"{name}: T doubled", ratios[name, "texts"], 2.3, "x", at_least=False) for name in planned]
    bars += [Bar(f"{name}: V doubled", ratios[name, "videos"], 1.3, "x", at_least=False) for name in planned]
    report.write("pairs", rows, bars)


if __name__ == "__main__":
    main()
