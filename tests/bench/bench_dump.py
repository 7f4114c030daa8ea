"""make bench-dump: a dump against the processor time of its stages, one worker against two, memory against V.

Every way dumps the same videos with a ViT-B/32 of random weights, in interleaved rounds; told is the median.
Processes are started and warm. Cores that other programs keep busy meanwhile are not counted as ours: a quiet
machine has none such, and the column "others" says how many there were.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from store.inputs.decode_pool import DecodePool
from teacher_dump.workers.dask_executor import DaskExecutor, Machine
from teacher_dump.workers.executors import SerialExecutor
from teacher_dump.workers.jobs import Sources
from tests.bench.dump_memory import memory_rows
from tests.bench.dump_runs import Spent, Stages, make_samples, random_clip, ready, settings, spent
from tests.bench.report import Bar, write

ARCHITECTURE = "ViT-B-32"
GPU_ARCHITECTURE = "ViT-L-14"
STAGES = ("decode", "forward", "encode and write")
WORKER_BYTES = 8 << 30


def pin_to(cores: list[int], worker: int) -> None:
    """Keep all threads of this process, and what it starts from now on, on one core."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {cores[worker]})


class Bench:
    """The ways to dump `samples`, warm: by all cores in this process, by one worker of a core, by two."""

    def __init__(self, stack: ExitStack, folder: Path, videos: int, frames: int) -> None:
        self.cores = len(os.sched_getaffinity(0))
        self.samples = make_samples(folder, videos)
        self._stack = stack
        self._folder = folder
        self._frames = frames
        teacher = random_clip(ARCHITECTURE, frames)
        pool = stack.enter_context(DecodePool(teacher.view, self.cores))
        stages = Stages(folder / "stages.zarr", self.samples, teacher, self.cores, pool)
        self.ways: dict[str, Callable[[], object]] = {
            "decode": stages.decode,
            "forward": stages.forward,
            "encode and write": stages.write,
            "serial": stack.enter_context(
                ready(folder / "serial.zarr", self.samples, teacher, settings(self.cores), SerialExecutor())
            ),
            "one worker": self._workers(1, teacher),
            "two workers": self._workers(2, teacher),
        }

    def _workers(self, count: int, teacher: object) -> Callable[[], object]:
        make = partial(random_clip, ARCHITECTURE, self._frames)
        sources = Sources(partial(make_samples, self._folder, len(self.samples.videos)), make)
        executor = self._stack.enter_context(DaskExecutor(Machine(count, count, WORKER_BYTES), sources))
        cores = sorted(os.sched_getaffinity(0))[:count]
        for worker, address in enumerate(sorted(executor.client.scheduler_info()["workers"])):
            executor.client.run(pin_to, cores, worker % len(cores), workers=[address])
        root = self._folder / f"{count}.zarr"
        return self._stack.enter_context(ready(root, self.samples, teacher, settings(1), executor))

    def rounds(self, rounds: int) -> dict[str, list[Spent]]:
        """What every way takes, round by round."""
        told: dict[str, list[Spent]] = {name: [] for name in self.ways}
        for number in range(rounds):
            torch.set_num_threads(self.cores)
            for name, way in self.ways.items():
                told[name].append(spent(way))
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
        return told


def rows_of(told: dict[str, list[Spent]], videos: int) -> list[dict]:
    return [
        {
            "way": name,
            "s": statistics.median(one.clock_s for one in of_way),
            "videos/s": videos / statistics.median(one.clock_s for one in of_way),
            "processor s": statistics.median(one.processor_s for one in of_way),
            "coordinator processor s": statistics.median(one.own_s for one in of_way),
            "others (cores)": statistics.median(one.others for one in of_way),
        }
        for name, of_way in told.items()
    ]


def bars_of(told: dict[str, list[Spent]], cores: int) -> list[Bar]:
    """Ratios of each round, then their median."""
    wall, speed_up, scheduler = [], [], []
    for number, serial in enumerate(told["serial"]):
        stages = sum(told[name][number].processor_s for name in STAGES)
        wall.append(serial.clock_s * (cores - serial.others) / stages)
        one, two = told["one worker"][number], told["two workers"][number]
        # A pinned worker has its core as long as the others leave it one.
        ours_of_two = min(2.0, cores - two.others) / min(1.0, cores - one.others)
        speed_up.append(one.clock_s / two.clock_s * 2 / ours_of_two)
        scheduler.append(100 * two.own_s / two.processor_s)
    return [
        Bar("wall of a dump", statistics.median(wall), 1.10, "of its stages' processor time / cores", False),
        Bar("two workers of a core each", statistics.median(speed_up), 1.8, "of one"),
        Bar("the scheduler's part", statistics.median(scheduler), 2.0, "% of the processor time", False),
    ]


def gpu_rows(folder: Path, videos: int) -> tuple[list[dict], list[Bar]]:
    """A dump on the GPU against its bare forward over frames that lie there, both in bfloat16."""
    what = f"dump on a GPU against the bare forward, {GPU_ARCHITECTURE}, bfloat16"
    if not torch.cuda.is_available():
        return [{"way": what, "not run": "there is no GPU here"}], []
    samples, cores = make_samples(folder, videos), len(os.sched_getaffinity(0))
    teacher = random_clip(GPU_ARCHITECTURE, 12, "cuda", "bfloat16")
    chosen = settings(cores, shard_rows=videos, batch=32)
    frames = torch.randint(0, 256, (32, 12, teacher.view.size, teacher.view.size, 3), dtype=torch.uint8)
    on_device, valid = frames.cuda(), torch.ones(32, 12, dtype=torch.bool, device="cuda")

    def bare() -> None:
        for _ in range(videos // 32):
            teacher.encode_videos(on_device, valid)
        torch.cuda.synchronize()

    bare()
    with ready(folder / "gpu.zarr", samples, teacher, chosen, SerialExecutor()) as dumped:
        ratios, rows = [], []
        for _ in range(3):
            forward, whole = spent(bare), spent(dumped)
            ratios.append(forward.clock_s / whole.clock_s)
            rows += [
                {"way": "bare forward, GPU", "s": forward.clock_s},
                {"way": "dump, GPU", "s": whole.clock_s},
            ]
    return rows, [Bar(what, statistics.median(ratios), 0.9, "of the bare forward")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=16, help="rows of the table, a multiple of 4")
    parser.add_argument("--frames", type=int, default=12)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(stack, folder, chosen.videos, chosen.frames)
        told = bench.rounds(chosen.rounds)
        rows, bars = rows_of(told, chosen.videos), bars_of(told, bench.cores)
    with tempfile.TemporaryDirectory() as folder_name:
        more = [memory_rows(Path(folder_name), chosen.videos), gpu_rows(Path(folder_name), 1024)]
    for some_rows, some_bars in more:
        rows += some_rows
        bars += some_bars
    print(write("dump", rows, bars))
    return 0 if all(bar.holds for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
