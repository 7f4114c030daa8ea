"""Blocks of pair scores, b = 240, from each layout against the bare NumPy operation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from store.pair_scores import FACTORED, DenseScores, FactoredScores, PairScores, PlannedScores
from store.plans import PlannedBatches
from store.sharded_rows import ShardedRows
from store.shards import RowsArray
from tests.bench.measure import interleaved
from tests.bench.report import Bar
from tests.bench.store_data import FRAMES, JOINT_WIDTH, write_array

BLOCK, STEPS = 240, 40
RUN = 8
"""Blocks of one measurement: one step's block follows another's, as an epoch reads them."""

Way = Callable[[np.ndarray, np.ndarray], Any]
Result = tuple[list[dict[str, Any]], list[Bar]]


class ResidentFeatures:
    """What factored scores read, held in RAM."""

    def __init__(self, videos: int, texts: int) -> None:
        generator = np.random.default_rng(1)
        self._signals = {
            "frame_embedding": generator.standard_normal((videos, 1, FRAMES, JOINT_WIDTH), np.float32),
            "text_embedding": generator.standard_normal((texts, JOINT_WIDTH), np.float32),
        }
        self.video_usable = np.ones(videos, dtype=bool)
        self.frame_valid = np.ones((videos, 1, FRAMES), dtype=bool)

    def row_count(self, signal: str) -> int:
        return len(self._signals[signal])

    def read_decoded(self, signal: str, rows: np.ndarray) -> np.ndarray:
        return self._signals[signal][rows]


def pair_blocks(folder: Path, full_size: bool, rounds: int) -> Result:
    """Of 2,000 videos x 40,000 texts (a tenth of both unless `full_size`), float16."""
    videos, texts = (2000, 40_000) if full_size else (300, 4000)
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((videos, texts), np.float32).astype(np.float16)
    shard_rows = max((256 << 20) // (2 * texts), 1)
    write_array(
        folder / "pairs", "dense", RowsArray(logits.shape, "float16", ("V", "T"), shard_rows), iter(logits)
    )
    plan = PlannedBatches(
        "train",
        0,
        1,
        np.stack([generator.permutation(videos)[:BLOCK] for _ in range(STEPS)]),
        generator.permutation(texts)[: min(STEPS, texts // BLOCK) * BLOCK].reshape(-1, BLOCK),
    )
    plan = PlannedBatches("train", 0, 1, plan.video[: len(plan.text)], plan.text)
    blocks = [logits[np.ix_(v, t)] for v, t in zip(plan.video, plan.text, strict=True)]
    block_array = RowsArray((len(blocks), BLOCK, BLOCK), "float16", ("S", "V", "T"), len(blocks))
    write_array(folder / "pairs", "planned", block_array, iter(blocks))
    loaded = ShardedRows(folder / "pairs", "dense")
    loaded.load()
    mapped = ShardedRows(folder / "pairs", "dense")
    for rows in np.array_split(np.arange(videos), videos // 100):
        mapped.read(rows)
    source = ResidentFeatures(videos, texts)
    factored = FactoredScores(source, PairScores(FACTORED, 100.0, "frame_embedding", "text_embedding"))
    pooled = generator.standard_normal((videos, JOINT_WIDTH), np.float32)
    sentence = source.read_decoded("text_embedding", np.arange(texts))
    scorers = {
        "dense, loaded": DenseScores(loaded),
        "dense, from the shards": DenseScores(mapped),
        "planned": PlannedScores(plan, ShardedRows(folder / "pairs", "planned")),
        "factored": factored,
    }

    def rows_of(number: int) -> tuple[np.ndarray, np.ndarray]:
        step = number % len(plan.text)
        return plan.video[step], plan.text[step]

    ways: dict[str, Way] = {name: scorer.score for name, scorer in scorers.items()}
    ways["bare gather"] = lambda video, text: logits[np.ix_(video, text)]
    ways["bare product"] = lambda video, text: pooled[video] @ sentence[text].T

    def run_of(way: Way) -> Callable[[int], None]:
        def run(number: int) -> None:
            for step in range(RUN):
                way(*rows_of(number * RUN + step))

        return run

    cases = {name: run_of(way) for name, way in ways.items()}
    first = {}
    for name in ("planned", "factored"):  # later epochs are measured: checked, pooled
        began = perf_counter()
        for number in range(len(plan.text)):
            ways[name](*rows_of(number))
        first[f"{name}, first epoch"] = (perf_counter() - began) / len(plan.text)
    timings = interleaved(cases, 3 * rounds)
    shutil.rmtree(folder / "pairs")
    seconds = {name: timings.median(name) / RUN for name in cases} | first
    rows = [{"case": name, "ms": took * 1e3} for name, took in seconds.items()]
    gather = 1 / timings.speed("dense, loaded", "bare gather")
    product = 1 / timings.speed("factored", "bare product")
    return rows, [
        Bar("pair block, planned", seconds["planned"] * 1e3, 0.1, "ms", at_least=False),
        Bar("pair block, resident", gather, 1.2, "of a bare gather", at_least=False),
        Bar("pair block, factored", product, 1.2, "of the bare product", at_least=False),
    ]
