"""What teaching costs a training step: untaught, from the cache, from memory, and by live teachers.

    python -m tests.bench.bench_train [--rounds N] [--only PART ...] [--threads 2]

The arms are those of `train_arms`: (a) untaught, (a') taught from memory, (b) from the cache, (c) by live
teachers. A round runs each of them in a new order. Peak memory is of processes that do nothing else. Bars:
DESIGN section 10; frames and batches are as small as two cores need them, sizes of models are published ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from store.reader import TeacherReader, open_cache
from student_train.mobile_student import Config as MobileConfig
from student_train.side_network_model import LIVE
from student_train.side_network_model import Config as SideConfig
from student_train.stream import TrainingStream, order_of
from student_train.students import afa, sab, side_network
from student_train.teachers import Teachers
from student_train.training_rows import training_rows
from teacher_dump.teachers import clip4clip, ts2net, xclip
from teacher_dump.teachers.base import TeacherOptions
from tests.bench import report
from tests.bench.bench_side import resident_mb
from tests.bench.report import Bar
from tests.bench.train_arms import CACHED, CPU, MANY, RESIDENT, UNTAUGHT, Arm, Ground, Measured, Way
from tests.bench.train_data import clip_4_clip, feature_cache, frame_cache, layer_cache, x_clip
from tests.live_teaching import LiveTeacher

ALONE = {"info_nce": 1.0}
TAUGHT = {"info_nce": 0.2, "coarse_pearson": 1.0, "fine_cross_entropy_mean": 2.0}
OFFICIAL_TWO = {**TAUGHT, "coarse_pearson@second": 1.0, "fine_cross_entropy_mean@second": 2.0}
FEED_BATCH, FEED_STEPS, FEED_ROUNDS = 240, 100, 5
PEAK_STEPS = 2
B_32 = "ViT-B-32-quickgelu"
Result = tuple[list[dict[str, Any]], list[Bar]]


def opened(path: Path, make: Callable[[Path], TeacherReader], teacher: str) -> TeacherReader:
    """The teacher in the cache at `path`, which several parts and their processes share."""
    return open_cache(path).teacher(teacher) if (path / "manifest.json").is_file() else make(path)


def features(folder: Path) -> tuple[Ground, Way, Way]:
    """`afa` from cached features, in the recipe's batches of 240: what reading costs a step that is short."""
    teacher = opened(folder / "features.zarr", lambda path: feature_cache(path, 960), "oracle")
    model = afa.Config(temporal_layers=4)
    return Ground(teacher, afa, 240), Way(model, ALONE), Way(model, TAUGHT)


def frames(folder: Path) -> tuple[Ground, Way, Way]:
    """`afa` from 12 frames of 224 x 224, ViT-B/32, taught by an X-CLIP of its own backbone."""
    teacher = opened(folder / "frames.zarr", lambda path: frame_cache(path, 6), "xclip")
    model = afa.Config(way_in="frames", temporal_layers=4)
    return Ground(teacher, afa, 2, rounds=2), Way(model, ALONE), Way(model, TAUGHT)


def layers(folder: Path) -> TeacherReader:
    """4 frames of 224 x 224 and all 12 layers that a CLIP4Clip of ViT-B/32 makes of them."""
    return opened(folder / "layers.zarr", lambda path: layer_cache(path, 16), "clip4clip")


def mobile(folder: Path) -> tuple[Ground, Way, Way]:
    """`sab`: MobileViT-v2 and CLIP's text tower, taught by every layer and by pairs."""
    recipe = sab.RECIPES["clipping"]
    model: MobileConfig = replace(recipe.model, text_weights=None)
    alone = replace(model, teacher_layers=(), borders=())
    return Ground(layers(folder), sab, 2, rounds=9), Way(alone, ALONE), Way(model, recipe.losses)


def side(folder: Path) -> tuple[Ground, Way, Way]:
    """`side_network`, light, for recognition: nothing but a few blocks, and the layers that it reads.

    Untaught it is frozen mean pooling: one layer and a linear map.
    """
    recipe = side_network.RECIPES["recognition-b16-light"]
    model: SideConfig = replace(recipe.model, architecture=B_32)
    frozen = replace(recipe.model_of("untaught"), architecture=B_32)
    ground = Ground(layers(folder), side_network, 8, steps=2, rounds=9)
    return ground, Way(frozen, recipe.losses), Way(model, recipe.losses)


GROUNDS = {"features": features, "frames": frames, "sab": mobile, "side_network": side}


def live_arms(part: str, ground: Ground, taught: Way) -> dict[str, tuple[Arm, float]]:
    """(c) of a part: its arms by name, and how many times the step of (b) each takes at least."""
    if part == "frames":
        one, second = (
            LiveTeacher(xclip.teacher_of(x_clip(32))),
            LiveTeacher(ts2net.official(TeacherOptions()), role="second"),
        )
        larger, two = LiveTeacher(xclip.teacher_of(x_clip(16))), replace(taught, losses=OFFICIAL_TWO)
        return {
            "(c) live X-CLIP of ViT-B/32": (ground.live(taught, [one]), 1.2),
            "(c) live X-CLIP and TS2-Net": (ground.live(two, [one, second]), 1.5),
            "(c) live X-CLIP of ViT-B/16": (ground.live(taught, [larger]), 2.0),
        }
    if part == "sab":
        teacher = LiveTeacher(clip4clip.teacher_of(clip_4_clip(), 4, range(12)))
        return {"(c) live CLIP4Clip of ViT-B/32": (ground.live(taught, [teacher]), 1.2)}
    if part == "side_network":
        assert isinstance(taught.model, SideConfig)
        live = Way(replace(taught.model, way_in=LIVE), taught.losses)
        return {"(c) live ViT-B/32": (replace(ground, steps=1, warm=0).resident(live), 1.2)}
    return {}


def taught_part(part: str, folder: Path, rounds: int | None, threads: int) -> Result:
    """The arms of one student, and what they are held to."""
    ground, alone, taught = GROUNDS[part](folder)
    live = live_arms(part, ground, taught)
    arms = {
        UNTAUGHT: ground.resident(alone),
        RESIDENT: ground.resident(taught),
        CACHED: ground.cached(taught),
        **{name: arm for name, (arm, _) in live.items()},
    }
    measured = Measured.of(arms, rounds or ground.rounds, ground.batch)
    memory = peaks(part, folder, threads)
    resident, cached = (row["peak MB"] for row in memory)
    cost = measured.ratio(CACHED, RESIDENT)
    bars = [
        Bar(f"{part}: (b) / (a')", cost, 1.05, "x", at_least=False),
        Bar(f"{part}: peak memory of (b) / (a')", cached / resident, 1.02, "x", at_least=False),
    ]
    for name, (_, least) in live.items():
        bars.append(Bar(f"{part}: {name} / (b)", measured.ratio(name, CACHED), least, "x"))
    return [*measured.rows(), *memory], bars


def peaks(part: str, folder: Path, threads: int) -> list[dict[str, Any]]:
    """Peak memory of a process that trains a few steps either way."""
    found = []
    for way in ("resident", "cached"):
        words = ["--folder", str(folder), "--threads", str(threads), "--peak", part, way]
        command = [sys.executable, "-m", "tests.bench.bench_train", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append({"arm": f"peak of {way}", "peak MB": float(done.stdout.split()[-1])})
    return found


def peak(part: str, way: str, folder: Path) -> None:
    ground, _, taught = GROUNDS[part](folder)
    arm = ground.resident(taught) if way == "resident" else ground.cached(taught)
    arm.run(PEAK_STEPS)
    # Not getrusage: its maximum outlives exec, and so would be that of the process which started this one.
    print(resident_mb("VmHWM"))


def feed(folder: Path, rounds: int) -> Result:
    """Features into the model's input, and nothing is computed with them."""
    teacher = feature_cache(folder / "feed.zarr", 4000)
    teachers = Teachers(teacher)
    rows = training_rows(teacher.cache, teachers)
    needs = ("frame_embedding", "text_embedding")
    stream = TrainingStream(rows, teachers, needs, order_of(rows, teachers, needs, FEED_BATCH, 0))
    speeds = []
    for _ in range(rounds):
        with stream.steps(0, MANY, True, CPU) as steps:
            for _ in range(5):
                next(steps)
            began = time.perf_counter()
            for _ in range(FEED_STEPS):
                next(steps)
            speeds.append(FEED_STEPS * FEED_BATCH / (time.perf_counter() - began))
    speed = float(np.median(speeds))
    told = {"arm": "feed of features", "samples/s": speed}
    return [told], [Bar("features into the model's input", speed, 50_000, "samples/s")]


def measured_parts(options: argparse.Namespace, folder: Path) -> Mapping[str, Result]:
    found = {}
    for part in options.only or ("feed", *GROUNDS):
        began = time.perf_counter()
        print(f"measuring {part} ...", end=" ", flush=True)
        if part == "feed":
            found[part] = feed(folder, options.rounds or FEED_ROUNDS)
        else:
            found[part] = taught_part(part, folder, options.rounds, options.threads)
        print(f"{time.perf_counter() - began:.0f} s", *found[part][1], sep="\n", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, help="times everything is measured (default: by part, 2 to 5)")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=("feed", *GROUNDS), help="parts to run (default: all)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch; the feed has its own (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where its files go meanwhile (default: the system's)")
    parser.add_argument("--peak", nargs=2, metavar=("PART", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        part, way = options.peak
        peak(part, way, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-train-") as temporary:
        found = measured_parts(options, Path(temporary))
    rows = [{"part": part, **row} for part, (told, _) in found.items() for row in told]
    report.write("train", rows, [bar for _, bars in found.values() for bar in bars])


if __name__ == "__main__":
    main()
