"""make bench-estimate: what `estimate` says of the demo's dump, in bytes and seconds, against that dump.

Every round estimates and dumps into a fresh cache, in processes of their own, as people run them; told is the
median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.report import Bar

MOST_TIME, MOST_BYTES = 1.30, 1.05


def one_round(words: Sequence[str], cache: Path) -> tuple[dict[str, Any], dict[str, float], int]:
    """What the estimate says, the seconds that each phase took, and the bytes of the cache."""
    command = [sys.executable, "-m", "teacher_dump"]
    asked = [*words, "--cache", str(cache)]
    told = subprocess.run([*command, "estimate", *asked, "--json"], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run([*command, "dump", *asked, "--no-measure"], check=True, stdout=subprocess.DEVNULL)
    files = [path for path in cache.rglob("*") if path.is_file() and "reports" not in path.parts]
    (took,) = json.loads((cache / "reports/dump.json").read_text())["teachers"].values()
    return json.loads(told), took["seconds"], sum(path.stat().st_size for path in files)


def off_by(estimated: float, actual: float) -> float:
    """How many times too much or too little: 1 where it is right."""
    return max(estimated, actual) / max(min(estimated, actual), 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="the demo's clips")
    parser.add_argument("--teacher", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    words = ["--dataset", "demo", "--data", str(options.data), "--teacher", options.teacher]
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="bench-estimate-") as folder:
            rounds.append(one_round(words, Path(folder) / "c.zarr"))
    phases = list(rounds[0][0]["seconds"])
    rows = []
    for phase in phases:
        pairs = [(told["seconds"][phase], took[phase]) for told, took, _ in rounds]
        estimated, actual = (statistics.median(column) for column in zip(*pairs, strict=True))
        row = {"phase": phase, "estimated s": estimated, "took s": actual, "ratio": estimated / actual}
        rows.append({name: round(value, 2) if name != "phase" else value for name, value in row.items()})
    in_all = [
        off_by(sum(told["seconds"].values()), sum(took[phase] for phase in phases))
        for told, took, _ in rounds
    ]
    sizes = [off_by(told["bytes"]["total"], stored) for told, _, stored in rounds]
    bars = [
        Bar("seconds of all phases, off by", statistics.median(in_all), MOST_TIME, "x", at_least=False),
        Bar("bytes, off by", max(sizes), MOST_BYTES, "x", at_least=False),
    ]
    report.write("estimate", rows, bars)


if __name__ == "__main__":
    main()
