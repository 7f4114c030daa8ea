"""Peak memory of a dump at V and at 4 V videos: `python -m tests.bench.dump_memory FOLDER V` dumps V."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from teacher_dump.dump import dump
from tests.bench.dump_runs import make_samples, random_clip, settings
from tests.bench.report import Bar

FRAMES = 1
SHARD_ROWS = 16
MOST_GROWTH = 1.05


def dump_alone(folder: Path, videos: int) -> float:
    """Dump `videos` in this process; the most that it held, in MB."""
    samples, teacher = make_samples(folder, videos), random_clip("ViT-B-32", FRAMES)
    dump(folder / f"{videos}.zarr", samples, teacher, settings(1, SHARD_ROWS, SHARD_ROWS), {})
    # Not getrusage, which begins with what the process held that started this one.
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(peak.split()[1]) / 1024


def memory_rows(folder: Path, videos: int) -> tuple[list[dict], list[Bar]]:
    """Both sizes, each in a process of its own."""
    make_samples(folder, videos)
    told = []
    for count in (2 * videos, 8 * videos):
        command = [sys.executable, "-m", "tests.bench.dump_memory", str(folder), str(count)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        peak = float(found.stdout.splitlines()[-1])
        told.append({"way": f"memory of a dump of {count} videos", "peak MB": peak})
    growth = told[1]["peak MB"] / told[0]["peak MB"]
    return told, [Bar("peak memory at 4 V", growth, MOST_GROWTH, "of that at V", at_least=False)]


if __name__ == "__main__":
    print(dump_alone(Path(sys.argv[1]), int(sys.argv[2])))
