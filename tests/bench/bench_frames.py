"""make bench-frames: the decode pool against bare loops over decord and PyAV in as many processes.

Every way decodes the same clips, 12 uniform frames each, in interleaved rounds; told is the median. The bare
loops neither look whether the frames are right nor hand them over; "raw" ones do not resize them either. The
seconds of processor time beside the clock's are what holds on a machine that others use as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from store.encodings import ErrorSum
from store.inputs.decode_pool import DecodePool
from store.inputs.frames import DECORD, RANDOM_ACCESS, SEQUENTIAL, DecodedVideo, decode_view
from store.inputs.pixels import decode_jpeg, encode_jpeg
from store.inputs.view import View
from store.kept_pixels import psnr_db
from tests.bench.report import Bar, write

PROCESSES = 2
VIEW = View("uniform_12x224", 12, 224)
RATE = 25
NOT_SLOWER = 0.95
"""Medians of a few rounds on two shared cores differ by as much from themselves."""


@dataclass(frozen=True)
class Kind:
    """A kind of clip that the bench makes. size: height, width. copies: decoded in one round."""

    name: str
    size: tuple[int, int] = (240, 320)
    seconds: int = 10
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    copies: int = 24


def h264(group: int) -> dict[str, str]:
    return {"g": str(group), "preset": "veryfast"}


PLAIN = (
    Kind("h264 320x240 10 s, group 12.mp4", options=h264(12)),
    Kind("h264 320x240 10 s, group 50.mp4", options=h264(50)),
    Kind("h264 320x240 10 s, group 250.mp4", options=h264(250)),
    Kind("h264 854x480 10 s, group 50.mp4", size=(480, 854), options=h264(50), copies=8),
    Kind("h264 1280x720 5 s, group 250.mp4", size=(720, 1280), seconds=5, options=h264(250), copies=6),
)
FALLBACK = (
    Kind("mpeg4 320x240 10 s.avi", codec="mpeg4", options={"g": "12", "bf": "2", "b": "1M"}),
    Kind("vp9 320x240 5 s.webm", seconds=5, codec="libvpx-vp9",
         options={"g": "100", "deadline": "realtime", "cpu-used": "8"}, copies=12),
    Kind("h264 854x480 5 s.ts", size=(480, 854), seconds=5, options=h264(50), copies=8),
)  # fmt: skip


def make_clip(folder: Path, kind: Kind) -> Path:
    """A textured scene that moves, with something else moving before it, and a camera's grain."""
    path, (height, width) = folder / kind.name, kind.size
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (height // 8, width // 4, 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((width * 2, height), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=RATE, options=kind.options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for number in range(kind.seconds * RATE):
            at = number * 2 % width
            picture = scene[:, at : at + width].copy()
            left = number * 5 % (width - 60)
            picture[height // 3 : height // 2, left : left + 60] = (number % 256, 200, 30)
            grain = draw.integers(-4, 5, (height, width, 1))
            picture = np.clip(picture.astype(int) + grain, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def wanted(count: int) -> list[int]:
    return VIEW.frame_indices(np.arange(count)).tolist()


def raw_decord(path: str) -> np.ndarray:
    reader = decord.VideoReader(path, num_threads=1)
    return reader.get_batch(wanted(len(reader))).asnumpy()


def raw_pyav(path: str) -> list[np.ndarray]:
    """All frames decoded; those of the view become arrays."""
    reformatter, frames = VideoReformatter(), []
    with av.open(path) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        chosen = set(wanted(round(container.duration / av.time_base * RATE)))
        for number, frame in enumerate(container.decode(stream)):
            if number in chosen:
                frames.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
    return frames


def squares(frames: np.ndarray | list[np.ndarray]) -> None:
    """Of the view, as CLIP's own transform makes them."""
    for frame in frames:
        scale = VIEW.size / min(frame.shape[:2])
        height, width = (int(side * scale + 1e-9) for side in frame.shape[:2])
        image = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - VIEW.size) // 2, (height - VIEW.size) // 2
        np.asarray(image.crop((left, top, left + VIEW.size, top + VIEW.size)))


def decord_raw(path: str) -> None:
    raw_decord(path)


def decord_squares(path: str) -> None:
    squares(raw_decord(path))


def pyav_raw(path: str) -> None:
    raw_pyav(path)


def pyav_squares(path: str) -> None:
    squares(raw_pyav(path))


def be_ready(number: int) -> int:
    time.sleep(0.5)
    return number


class Bench:
    """The processes of all ways, started and warm."""

    def __init__(self, stack: ExitStack) -> None:
        context = multiprocessing.get_context("spawn")
        self._bare = stack.enter_context(context.Pool(PROCESSES))
        self._bare.map(be_ready, range(PROCESSES), chunksize=1)
        self._pool = stack.enter_context(DecodePool(VIEW, PROCESSES))

    def bare(self, decode: Callable[[str], None]) -> Callable[[list[Path]], None]:
        return lambda paths: self._bare.map(decode, [str(path) for path in paths], chunksize=1) and None

    def ours(self, paths: list[Path]) -> None:
        for outcome in self._pool.decode(paths):
            assert isinstance(outcome, DecodedVideo), outcome

    def rounds(
        self, ways: dict[str, Callable[[list[Path]], None]], paths: list[Path], rounds: int
    ) -> dict[str, list[tuple[float, float]]]:
        """By way, of each round: (seconds, processor seconds) a clip; the first round only warms up."""
        told: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                began, busy = time.perf_counter(), processor_s()
                way(paths)
                spent = (time.perf_counter() - began, processor_s() - busy)
                if number:
                    told[name].append((spent[0] / len(paths), spent[1] / len(paths)))
        return told


def processor_s() -> float:
    """Seconds of processor time that this process and its children have used."""
    ticks = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


Decode = Callable[[str], None]


def measure(
    bench: Bench, folder: Path, kinds: tuple[Kind, ...], bare: tuple[Decode, Decode], rounds: int
) -> list[dict]:
    """A row a kind: milliseconds a clip of the pool and of the bare loops, and its speed over theirs."""
    ways = {"raw": bench.bare(bare[0]), "squares": bench.bare(bare[1]), "pool": bench.ours}
    rows = []
    for kind in kinds:
        path = make_clip(folder, kind)
        told = bench.rounds(ways, [path] * kind.copies, rounds)
        row: dict = {"clip": kind.name, "route": decode_view(path, VIEW).route, "bare": bare[0].__name__}
        row |= {f"{name} ms": 1000 * statistics.median(clock for clock, _ in told[name]) for name in told}
        row |= {f"{name} cpu ms": 1000 * statistics.median(busy for _, busy in told[name]) for name in told}
        for name in ("raw", "squares"):
            pairs = list(zip(told["pool"], told[name], strict=True))
            row[f"pool / {name}"] = statistics.median(bare[0] / ours[0] for ours, bare in pairs)
            row[f"cpu pool / {name}"] = statistics.median(bare[1] / ours[1] for ours, bare in pairs)
        rows.append(row)
        print(f"  {kind.name}: pool / raw {row['pool / raw']:.2f}", file=sys.stderr)
    return rows


def jpeg_rows(folder: Path) -> list[dict]:
    """Bytes and PSNR of a view kept as JPEG, of the last clip that was made."""
    frames = decode_view(next(iter(sorted(folder.iterdir()))), VIEW).frames[0]
    rows = []
    for quality in (75, 90, 95):
        coded = encode_jpeg(frames, quality)
        size = sum(map(len, coded)) / len(coded)
        rows.append(
            {
                "clip": f"kept as JPEG, quality {quality}",
                "bytes a frame": size,
                "of raw": size / frames[0].nbytes,
                "PSNR dB": psnr_db(
                    ErrorSum.between(frames, decode_jpeg(coded, *frames.shape[1:3])), frames.size
                ),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(stack)
        plain = measure(bench, folder, PLAIN, (decord_raw, decord_squares), rounds)
        fallback = measure(bench, folder, FALLBACK, (pyav_raw, pyav_squares), rounds)
        kept = jpeg_rows(folder)
    assert {row["route"] for row in plain} <= {RANDOM_ACCESS, DECORD}
    assert {row["route"] for row in fallback} == {SEQUENTIAL}
    mean = statistics.geometric_mean(row["pool / raw"] for row in plain)
    busy = statistics.geometric_mean(row["cpu pool / raw"] for row in plain)
    bars = [
        Bar("plain MP4, mean of the kinds", mean, 0.9, "of bare decord that does not resize"),
        Bar("the same by processor time", busy, 0.9, "of bare decord that does not resize"),
    ]
    bars += [Bar(row["clip"], row["pool / squares"], 0.9, "of bare decord") for row in plain]
    bars += [Bar(row["clip"], row["pool / squares"], NOT_SLOWER, "of bare PyAV") for row in fallback]
    print(write("frames", [*plain, *fallback, *kept], bars))
    return 0 if all(bar.holds for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
