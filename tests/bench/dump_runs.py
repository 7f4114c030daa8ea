"""What bench-dump measures: a dump's tasks over an executor, and each of their stages alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from store.inputs.decode_pool import DecodePool
from store.inputs.frames import DecodedVideo
from store.inputs.samples import DatasetCard, Samples, Split, Text, Video
from store.writer import CacheWriter
from teacher_dump.dump import make_job, make_plan
from teacher_dump.dump_shard import ShardDumper, stacked
from teacher_dump.plan import shard_tasks
from teacher_dump.settings import DumpSettings
from teacher_dump.shard_files import blocks
from teacher_dump.teachers.base import Teacher, TeacherOptions
from teacher_dump.workers.executors import Executor, SerialExecutor
from teacher_dump.workers.jobs import load_teacher
from tests.bench.bench_frames import Kind, h264, make_clip

CLIP = Kind("h264 320x240 10 s, group 50.mp4", options=h264(50))
BATCH = 2


def make_samples(folder: Path, videos: int) -> Samples:
    """`videos` rows of one clip, each with a caption; the clip is made where it is missing."""
    path = folder / CLIP.name
    if not path.exists():
        make_clip(folder, CLIP)
    rows = np.arange(videos)
    return Samples(
        "bench",
        DatasetCard("one clip again and again", "CC0-1.0", "made in a bench"),
        tuple(Video(f"v{row}", path) for row in rows),
        tuple(Text(f"a scene that moves, number {row}", row) for row in rows.tolist()),
        {"train": Split(rows, rows)},
    )


def random_clip(architecture: str, frames: int, device: str = "cpu", dtype: str = "float32") -> Teacher:
    options = TeacherOptions(
        architecture=architecture, pretrained="random", frames=frames, device=device, dtype=dtype
    )
    return load_teacher("clip", options)


def settings(threads: int, shard_rows: int = BATCH, batch: int = BATCH) -> DumpSettings:
    return DumpSettings(batch, 64, threads, shard_rows, threads)


def processor_s(processes: list[psutil.Process]) -> float:
    """Seconds of processor time of `processes` and of what they started and ended."""
    times = [process.cpu_times() for process in processes]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


@dataclass(frozen=True)
class Spent:
    """Of one run: seconds by the clock; processor seconds of all our processes and of this one alone; and
    cores that others kept busy meanwhile.
    """

    clock_s: float
    processor_s: float
    own_s: float
    others: float


def spent(work: Callable[[], object]) -> Spent:
    """What `work` takes; the processes that take part run already."""
    processes = family()
    busy, own, machine, began = processor_s(processes), time.process_time(), machine_s(), time.perf_counter()
    work()
    clock = time.perf_counter() - began
    ours = processor_s(processes) - busy
    return Spent(clock, ours, time.process_time() - own, max(machine_s() - machine - ours, 0.0) / clock)


def machine_s() -> float:
    """Seconds that all cores of the machine were busy since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq + times.steal)


@contextmanager
def ready(
    root: Path, samples: Samples, teacher: Teacher, chosen: DumpSettings, executor: Executor
) -> Iterator[Callable[[], object]]:
    """A function that runs all tasks of the dump again, on workers that have everything loaded."""
    with CacheWriter(root, samples) as writer:
        plan = make_plan(writer, teacher, chosen, executor)
        writer.plan(plan)
        tasks = list(shard_tasks(plan, {"V": len(samples.videos), "T": len(samples.texts)}))
        with executor.running(make_job(writer, plan, chosen, executor), samples, teacher) as run:

            def all_tasks() -> None:
                for phase in dict.fromkeys(task.phase for task in tasks):
                    done = list(run([task for task in tasks if task.phase == phase], lambda *_: None))
                    assert not any(facts.failure for commit in done for facts in commit.videos)

            all_tasks()
            yield all_tasks


class Remembered(ShardDumper):
    """Runs tasks over what was decoded and computed before, so that encoding and writing remain."""

    decoded: list[DecodedVideo]
    videos: dict[int, dict[str, np.ndarray]]
    texts: dict[int, dict[str, np.ndarray]]

    def _decoded(self, rows):
        return iter(self.decoded[row] for row in rows)

    def _encode_videos(self, frames_BRMYXC, valid_BRM):
        return self.videos[self._next_batch()]

    def _encode_texts(self, rows):
        return self.texts[int(rows[0])]

    def _next_batch(self) -> int:
        self._batch = (getattr(self, "_batch", -1) + 1) % len(self.videos)
        return self._batch


class Stages:
    """The stages of a dump one by one, each over all rows; the forward with as many threads as decoders."""

    def __init__(self, root: Path, samples: Samples, teacher: Teacher, cores: int, pool: DecodePool) -> None:
        chosen = settings(cores)
        torch.set_num_threads(cores)
        with CacheWriter(root, samples) as writer:
            plan = make_plan(writer, teacher, chosen, SerialExecutor())
            writer.plan(plan)
        self._tasks = list(shard_tasks(plan, {"V": len(samples.videos), "T": len(samples.texts)}))
        self._dumper = Remembered(root, plan, samples, teacher, pool, False)
        self._live = ShardDumper(root, plan, samples, teacher, pool, False)
        self.decode()
        self.forward()
        self.write()

    def decode(self) -> None:
        self._dumper.decoded = list(self._live._decoded(range(len(self._live.samples.videos))))

    def forward(self) -> None:
        decoded, texts = self._dumper.decoded, np.arange(len(self._live.samples.texts))
        with torch.inference_mode():
            self._dumper.videos = {
                number: self._live._encode_videos(*stacked(decoded[start : start + BATCH]))
                for number, start in enumerate(range(0, len(decoded), BATCH))
            }
            self._dumper.texts = {
                int(rows[0]): self._live._encode_texts(rows) for rows in self._blocks(texts)
            }

    def _blocks(self, texts: np.ndarray) -> Iterator[np.ndarray]:
        for task in self._tasks:
            if task.phase == "texts":
                yield from blocks(texts[task.start : task.stop], self._live.plan.execution["batch_texts"])

    def write(self) -> None:
        """Encode and write: one walk over the rows."""
        for task in self._tasks:
            self._dumper.run(task, lambda rows: None)
