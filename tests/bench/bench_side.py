"""make bench-side: memory and time of a training step: layers from the cache, live, and full fine-tuning.

    cached  the side network on given layers: no backbone at all
    live    the same, with the layers made by the frozen backbone at every step
    full    no side network: the backbone itself is trained, its [CLS] averaged over frames

Side4Video's Tables 2 and 3 in spirit, by action recognition, where no text tower blurs the numbers. Random
weights; one process a way, since peaks are of processes: of a CPU's the largest resident size above that with
nothing but torch loaded, of a GPU's the most that torch allocated. Seconds are the processor's on a CPU,
where other programs do not count, and the clock's on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from student_train.needs import CLASS, FRAME_VALID, PIXELS
from student_train.optimizer import make_optimizer
from student_train.side_network_model import CACHED, LIVE, TUNED, Config, SideStudent, layer_need
from student_train.students import side_network
from student_train.students.base import Task
from tests.bench.report import Bar, write

WAYS = {"cached": CACHED, "live": LIVE, "full": TUNED}
CLASSES = 174


def config_of(options: argparse.Namespace) -> Config:
    """Table 1's light side network for a ViT of 12 blocks, or a smaller one of a smaller ViT."""
    config: Config = replace(
        side_network.RECIPES["recognition-b16-light"].model,
        architecture=options.architecture,
        way_in=WAYS[options.way],
    )
    if options.blocks != 12:
        config = replace(config, layers=side_network.by_interval(options.blocks), width=64)
    return replace(config, layers=(), cls_layer=config.last_layer) if options.way == "full" else config


def sizes_of(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    layer = {"M": options.frames, "L": 1 + (options.pixels // options.patch) ** 2, "D": options.width}
    layers = {layer_need(number): layer for number in range(options.blocks)}
    return {
        PIXELS: {"M": options.frames, "Y": options.pixels, "X": options.pixels, "C": 3},
        CLASS: {"C": CLASSES},
        **layers,
    }


def batch_of(config: Config, sizes: dict[str, dict[str, int]], rows: int, device: torch.device) -> Any:
    """Random values of what the student needs, as the stream hands them out."""
    frames = sizes[PIXELS]
    batch: dict[str, Any] = {
        PIXELS: torch.randint(256, (rows, *frames.values()), dtype=torch.uint8, device=device),
        FRAME_VALID: torch.ones(rows, frames["M"], dtype=torch.bool, device=device),
        CLASS: torch.arange(rows, device=device) % CLASSES,
    }
    for need in config.layer_needs:
        batch[need] = torch.randn(rows, *sizes[need].values(), device=device)
    return batch


def resident_mb(field: str) -> float:
    """VmRSS, now, or VmHWM, the largest so far, of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def one_way(options: argparse.Namespace) -> dict[str, Any]:
    """A row of the table, measured in this process."""
    device = torch.device(options.device)
    torch.manual_seed(0)
    empty_mb = resident_mb("VmRSS")
    config, sizes = config_of(options), sizes_of(options)
    student: SideStudent = side_network.build(config, sizes).to(device).train()
    recipe = side_network.RECIPES["recognition-b16-light"]
    optimizer = make_optimizer(student, recipe.optimizer, 1e-4)
    task = Task(student, side_network.losses(config), recipe.losses)
    batch, seconds = batch_of(config, sizes, options.batch, device), []
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    for _ in range(1 + options.steps):
        started = clock()
        task(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resident_mb("VmHWM") - empty_mb
    trained = sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
    return {
        "way": options.way,
        "peak MB": round(peak),
        "seconds a step": round(statistics.median(seconds[1:]), 3),
        "trained parameters, M": round(trained / 1e6, 1),
    }


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    if options.way:
        print(json.dumps(one_way(options)))
        return 0
    rows = []
    for way in WAYS:
        command = [sys.executable, "-m", "tests.bench.bench_side", *arguments, "--way", way]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(found.stdout.splitlines()[-1]))
    peak = {row["way"]: row["peak MB"] for row in rows}
    bar = Bar("memory from cached layers", peak["cached"] / peak["full"], 1.0, "of full", at_least=False)
    told = {name: getattr(options, name) for name in ("architecture", "device", "batch", "frames", "pixels")}
    write("side", [{**row, **told} for row in rows], [bar])
    return 0 if bar.holds else 1


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="ViT-B-32-quickgelu", help="a ViT of open_clip")
    for name, number in {"blocks": 12, "width": 768, "patch": 32, "pixels": 224}.items():
        parser.add_argument(f"--{name}", type=int, default=number, help="of that ViT (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="timed, after one that is not")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--way", choices=WAYS, help="this one alone, in this process")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
