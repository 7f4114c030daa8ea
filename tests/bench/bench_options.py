"""What bfloat16, torch.compile and channels-last do to a step of small students: where they help, where not.

    python -m tests.bench.bench_options [--rounds 5] [--only PART ...] [--threads 2]

The same student and batches, taught from memory, with one option each, interleaved. Above 1 is a gain.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from student_train.config import BF16, Recipe
from student_train.trainer import make_accelerator, prepared
from tests.bench import report
from tests.bench.bench_train import GROUNDS
from tests.bench.train_arms import Arm, Ground, Measured, Way

PLAIN = "float32"
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "bf16": {"precision": BF16},
    "channels-last": {"channels_last": True},
    "compile": {"compile": True},
    "bf16 and compile": {"precision": BF16, "compile": True},
}
PARTS = ("features", "sab", "side_network")


def arm(ground: Ground, way: Way, options: dict[str, Any]) -> Arm:
    """Set up as the trainer does it."""
    made = ground.resident(way)
    recipe: Recipe = replace(next(iter(ground.module.RECIPES.values())), **options)
    prepared(make_accelerator(), made.task, recipe, 1e-5)
    made.half = recipe.precision == BF16
    return made


def measured(part: str, folder: Path, rounds: int) -> list[dict[str, Any]]:
    ground, _, taught = GROUNDS[part](folder)
    arms = {name: arm(ground, taught, options) for name, options in OPTIONS.items()}
    times = Measured.of(arms, rounds, ground.batch)
    return [
        {
            "student": part,
            "option": name,
            "step ms": 1000 * times.times.median(name) / ground.steps,
            "times as fast": times.ratio(PLAIN, name),
        }
        for name in arms
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="times everything is measured (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=PARTS, default=PARTS, help="students")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="bench-options-") as folder:
        rows = [row for part in options.only for row in measured(part, Path(folder), options.rounds)]
    report.write("options", rows, [])


if __name__ == "__main__":
    main()
