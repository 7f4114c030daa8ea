"""Rendering the demo: scenes become H.264 files and a table of captions. Nothing is rendered twice."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from store.durable import PARTIAL_SUFFIX, canonical_json, read_json, write_file
from store.errors import InputError
from store.inputs.scene_drawing import CLIP_PIXELS, draw_shot
from store.inputs.scenes import FRAMES_PER_SECOND, Scene, caption, described_scenes, distractor_scenes, shots

TABLE = "clips.csv"
SETTINGS = "render.json"
WORLD_VERSION = 2
"""Raised by hand when the same seed gives other clips or captions."""

Row = tuple[str, str, str, float, float]


def render(
    out: Path, split_sizes: Mapping[str, int], seed: int = 0, workers: int = 2, cut: bool = False
) -> float:
    """Render the clips of `split_sizes` {split: count} into `out`; returns the seconds that it took in all.

    Writes clips/<split>_<n>.mp4 and, last, clips.csv (video, text, split, start_s, end_s: the moment that
    shows what the caption says). Clips that an interrupted rendering left are kept. cut: of every clip only
    that moment, picture by picture the same. Raises InputError if `out` was rendered with other settings.
    """
    began = time.monotonic()
    wanted = {
        "splits": dict(split_sizes),
        "seed": seed,
        "world": WORLD_VERSION,
        **({"cut": True} if cut else {}),
    }
    earlier_s = _earlier_seconds(out, wanted)
    if (out / TABLE).exists() and all(
        (out / clip_name(split, place)).exists()
        for split, count in split_sizes.items()
        for place in range(count)
    ):
        return earlier_s
    (out / "clips").mkdir(parents=True, exist_ok=True)
    write_file(out / SETTINGS, canonical_json({**wanted, "seconds": earlier_s}))
    tasks = [
        (out, split, place, int(number), seed)
        for split, count in split_sizes.items()
        for place, number in enumerate(described_scenes(split, count))
    ]
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            results = pool.map(partial(render_clip, cut=cut), tasks, chunksize=16)
            rows = list(tqdm(results, total=len(tasks), desc="render clips", unit="clip", disable=None))
    finally:
        seconds = earlier_s + time.monotonic() - began
        write_file(out / SETTINGS, canonical_json({**wanted, "seconds": seconds}))
    _write_table(out / TABLE, rows)
    return seconds


def _earlier_seconds(out: Path, wanted: Mapping[str, Any]) -> float:
    """Seconds of an earlier, perhaps interrupted, rendering with the same settings."""
    if not (out / SETTINGS).exists():
        return 0.0
    found = read_json(out / SETTINGS)
    if {**found, "seconds": 0} != {**wanted, "seconds": 0}:
        raise InputError(f"{out} holds clips rendered with other settings; remove it, or name another DATA")
    return float(found["seconds"])


def rendered_settings(out: Path) -> tuple[dict[str, int], int] | None:
    """{split: count} and seed of what was rendered into `out`, None if nothing was."""
    if not (out / SETTINGS).exists():
        return None
    found = read_json(out / SETTINGS)
    return found["splits"], found["seed"]


def clip_name(split: str, place: int) -> str:
    """The path of a clip below the folder, with "/"."""
    return f"clips/{split}_{place:05d}.mp4"


def render_clip(task: tuple[Path, str, int, int, int], cut: bool = False) -> Row:
    """Render clip `place` of a split, of scene `number` (cut: its moment alone); its row of the table."""
    out, split, place, number, seed = task
    name = clip_name(split, place)
    generator = np.random.Generator(np.random.PCG64([seed, number]))
    scene = Scene.number(number)
    text = caption(scene, generator)
    planned = shots(scene, distractor_scenes(split), generator)
    moment = next(shot for shot in planned if shot.described)
    if not (out / name).exists():
        # All are drawn, whatever is kept: each draws from the generator where the one before it stopped.
        drawn = [(shot, draw_shot(shot, generator)) for shot in planned]
        encode(out / name, np.concatenate([frames for shot, frames in drawn if shot is moment or not cut]))
    start = 0 if cut else moment.start
    length = moment.stop - moment.start
    return name, text, split, start / FRAMES_PER_SECOND, (start + length) / FRAMES_PER_SECOND


def encode(path: Path, frames_MYXC: np.ndarray) -> None:
    """Write uint8 RGB frames as an H.264 MP4, aside first."""
    import av

    aside = path.with_name(path.name + PARTIAL_SUFFIX)
    with av.open(str(aside), "w", format="mp4") as container:
        options = {"crf": "16", "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width = stream.height = CLIP_PIXELS
        stream.pix_fmt = "yuv420p"
        for picture in frames_MYXC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    aside.replace(path)


def _write_table(path: Path, rows: list[Row]) -> None:
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video", "text", "split", "start_s", "end_s"])
    writer.writerows(rows)
    write_file(path, table.getvalue().encode())
