"""make bench-encodings: what a side network loses where the layers that it learns from are stored smaller.

The demo's clips are dumped once for each way to store `vit_layers`, a side network is trained from every
cache alike, and its retrieval of the test split is told beside the bytes of the layers. Caches and runs that
are finished in the folder are taken as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from store.cli import run_cli
from store.reader import open_cache
from student_train import __main__ as training
from student_train.run_folder import RunFolder
from teacher_dump import __main__ as dumping
from teacher_dump.models.demo_world import shipped_weights
from tests.bench.report import Bar, write

TEACHER = "demo_clip4clip"
WAYS: dict[str, tuple[str, ...]] = {
    "float16": (),
    "int8": ("--encoding", "vit_layers=int8"),
    "pool2x2": ("--tokens", "pool2x2"),
    "project16": ("--project", "16"),
    "int8+project16": ("--encoding", "vit_layers=int8", "--project", "16"),
}
MOST_LOST = 0.1
"""Share of SumR that int8, the encoding that is recommended for layers, may cost in the demo."""


def dumped(folder: Path, data: Path, way: str) -> Path:
    cache = folder / f"{way}.zarr"
    words = ["dump", "--dataset", "demo", "--data", str(data), "--cache", str(cache), "--teacher", TEACHER]
    words += ["--keep-pixels", "raw", *WAYS[way]]
    done(run_cli(dumping.build_parser(), words), f"dump of {way}")
    return cache


def trained(folder: Path, cache: Path, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """results.json of the taught student, trained from `cache`."""
    run, weights = folder / f"run-{way}", str(shipped_weights(TEACHER))
    words = ["train", str(cache), "--out", str(run), "--student", "side_network", "--recipe", "demo"]
    words += ["--arms", "taught", "--seeds", options.seeds, "--set", f"model.weights={weights}"]
    words += ["--set", f"epochs={options.epochs}"]
    done(training.main(words), f"training from {way}")
    return RunFolder(run).results()


def done(status: int, what: str) -> None:
    if status:
        raise SystemExit(f"{what} ended with status {status}; its message stands above")


def row_of(way: str, cache: Path, results: dict[str, Any]) -> dict[str, Any]:
    found = results["taught"]["text_to_video"]
    layers = [name for name in open_cache(cache).teacher(TEACHER).signals if name.startswith("vit_layers/")]
    return {
        "vit_layers": way,
        "MB": round(sum(results["bytes"][name] for name in layers) / 1e6, 1),
        **{metric: round(found[metric]["mean"], 1) for metric in ("R@1", "R@5", "R@10", "SumR")},
        "SumR by seed": " ".join(f"{value:.1f}" for value in found["SumR"]["per_seed"]),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/side-encodings"))
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="the demo's clips")
    parser.add_argument("--ways", default=",".join(WAYS), help="which to compare (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", default="0,1")
    options = parser.parse_args(arguments)
    rows = []
    for way in options.ways.split(","):
        cache = dumped(options.folder, options.data, way)
        rows.append(row_of(way, cache, trained(options.folder, cache, way, options)))
    score = {row["vit_layers"]: row["SumR"] for row in rows}
    bars = []
    if {"float16", "int8"} <= set(score):
        kept = score["int8"] / score["float16"]
        bars = [Bar("SumR from int8 layers", kept, 1 - MOST_LOST, "of that from float16")]
    write("side-encodings", rows, bars)
    return 0 if all(bar.holds for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
