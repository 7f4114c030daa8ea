"""Epochs streamed from a web server against the same epochs of a local cache.

    python -m tests.bench.bench_remote [--videos 256] [--rounds 21] [--folder DIR]

The first epoch fetches everything; the later ones and those of the local cache are interleaved, medians over
rounds. "resident" is how a training reads: what fits in RAM is loaded whole; "from shards" reads every row of
every signal from its shard. A copy of the local cache tells how far two equal things come out apart. Disk:
four copies of 3.7 MB a video.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from store.feeder import BatchFeeder
from store.reader import RESIDENT_BYTES, Cache, TeacherReader, open_cache
from store.remote.streaming import ChunkCacheSettings, open_url
from store.writer import CacheWriter
from tests.bench import report
from tests.bench.measure import interleaved
from tests.bench.report import Bar
from tests.bench.store_data import BATCH, LAYERS, Features
from tests.synthetic_cache import shard_commits, synthetic_plan, synthetic_samples

BOUND = 1 << 36
SHARD_ROWS = 64
WITHIN = 0.95
SMALL = ("frame_embedding", "frame_relevance", "text_embedding")
WAYS = {"resident": RESIDENT_BYTES, "from shards": 0}


def write_cache(root: Path, videos: int) -> None:
    """A cache of four layers, embeddings and relevance of `videos` videos with a caption each."""
    features = Features.drawn(LAYERS, videos)
    values = {name: whole.astype(np.float32) for name, whole in features.resident().items()}
    samples = synthetic_samples(videos)
    plan = synthetic_plan(samples, shard_rows=SHARD_ROWS, signals=LAYERS)
    with CacheWriter(root, samples) as writer:
        writer.plan(plan)
        tasks = []
        for commit in shard_commits(root, samples, plan, values=values):
            tasks.append(commit.task)
            if commit.task not in writer.ledger:
                writer.commit(commit)
        writer.complete(plan, tasks)


def epochs_of(teacher: TeacherReader, signals: tuple[str, ...], times: int) -> Callable[[int], object]:
    """Reads all rows `times` times, in an order of the round, by the feeder that trainings use."""
    videos = teacher.cache.counts.videos

    def epoch(number: int) -> None:
        order = np.random.default_rng(number).permutation(videos)
        parts = [rows for rows in np.split(order, range(BATCH, videos, BATCH)) if len(rows) == BATCH]
        steps = [(rows, rows) for rows in parts] * times
        with BatchFeeder(teacher, signals, steps, BATCH) as feeder:
            for _ in feeder:
                pass

    return epoch


def serve(folder: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "tests.store.remote.range_server", str(folder), "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def measure(
    local: Cache, copy: Cache, streamed: Cache, rounds: int
) -> tuple[list[dict[str, object]], list[Bar]]:
    rows: list[dict[str, object]] = []
    bars = []
    everything = tuple(spec.name for spec in LAYERS)
    began = time.perf_counter()
    epochs_of(streamed.teacher("synthetic", 0), everything, 1)(0)
    seconds = time.perf_counter() - began
    size = sum(streamed.teacher("synthetic").bytes_by_signal.values())
    rows.append({"epoch": "first, streamed", "seconds": seconds, "MB/s": size / seconds / 1e6})
    caches = {"local": local, "copy": copy, "streamed": streamed}
    for way, resident in WAYS.items():
        for named, signals, times in (("all signals", everything, 2), ("small signals", SMALL, 40)):
            found = interleaved(
                {
                    name: epochs_of(cache.teacher("synthetic", resident), signals, times)
                    for name, cache in caches.items()
                },
                rounds,
            )
            for name in caches:
                ratio = found.speed(name, "local")
                rows.append(
                    {
                        "epoch": f"later, {name}, {way}, {named}",
                        "seconds": found.median(name) / times,
                        "of local": ratio,
                    }
                )
            told = f"a later streamed epoch against a local one, {way}, {named}"
            bars.append(Bar(told, found.speed("streamed", "local"), WITHIN, "of its speed"))
    return rows, bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=256, help="rows of 3.7 MB (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=21, help="times everything is measured (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where its files go meanwhile (default: the system's)")
    options = parser.parse_args()
    if options.videos < BATCH:
        parser.error(f"--videos starts at {BATCH}, one batch")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-remote-") as temporary:
        folder = Path(temporary)
        write_cache(folder / "served" / "made.zarr", options.videos)
        server, port = serve(folder / "served")
        try:
            settings = ChunkCacheSettings(folder / "chunks", BOUND)
            streamed = open_url(f"http://127.0.0.1:{port}/made.zarr", settings=settings)
            copied = shutil.copytree(folder / "served" / "made.zarr", folder / "copy" / "made.zarr")
            local = open_cache(folder / "served" / "made.zarr")
            rows, bars = measure(local, open_cache(copied), streamed, options.rounds)
        finally:
            server.terminate()
            server.wait()
    report.write("remote", rows, bars)


if __name__ == "__main__":
    main()
