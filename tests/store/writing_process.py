"""A writer to be killed: `python -m tests.store.writing_process CACHE PROCESSES` writes a synthetic cache.

Every shard is one row, so that there are many moments between two of them.
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from store.inputs.samples import Samples
from store.layout import TeacherPlan
from store.writer import CacheWriter
from tests.synthetic_cache import run_task, shard_tasks, synthetic_plan, synthetic_samples

BEAT_S = 0.05
FAILED = frozenset({2})


def dataset() -> tuple[Samples, TeacherPlan]:
    samples = synthetic_samples(32, captions=2)
    return samples, synthetic_plan(samples, shard_rows=1)


def write(root: Path, processes: int) -> None:
    """Write the cache or what is missing of it, in this process or with workers that it starts."""
    samples, plan = dataset()
    with CacheWriter(root, samples, beat_s=BEAT_S) as writer:
        writer.plan(plan)
        tasks = shard_tasks(samples, plan)
        names = [f"{plan.name}/{what} {name}/{number}" for what, name, number in tasks]
        if not writer.is_complete(plan.name):
            todo = [task for task, name in zip(tasks, names, strict=True) if name not in writer.ledger]
            if processes == 1:
                for task in todo:
                    writer.commit(run_task(root, samples, plan, task, FAILED))
            else:
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(processes, mp_context=context) as pool:
                    running = [pool.submit(run_task, root, samples, plan, task, FAILED) for task in todo]
                    for done in as_completed(running):
                        writer.commit(done.result())
            writer.complete(plan, names)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
