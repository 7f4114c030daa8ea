"""Blocks of pair scores, b = 240, from each layout against the bare NumPy operation."""

from __future__ import annotations

import shutil
from pathlib import Path
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

    cases: dict[str, Any] = {
        name: lambda number, scorer=scorer: scorer.score(*rows_of(number)) for name, scorer in scorers.items()
    }
    cases["bare gather"] = lambda number: logits[np.ix_(*rows_of(number))]
    cases["bare product"] = lambda number: pooled[rows_of(number)[0]] @ sentence[rows_of(number)[1]].T
    for number in range(len(plan.text)):
        scorers["planned"].score(*rows_of(number))
    timings = interleaved(cases, 10 * rounds)
    shutil.rmtree(folder / "pairs")
    rows = [{"case": name, "ms": timings.median(name) * 1e3} for name in cases]
    gather = 1 / timings.speed("dense, loaded", "bare gather")
    product = 1 / timings.speed("factored", "bare product")
    return rows, [
        Bar("pair block, planned", timings.median("planned") * 1e3, 0.1, "ms", at_least=False),
        Bar("pair block, resident", gather, 1.2, "of a bare gather", at_least=False),
        Bar("pair block, factored", product, 1.2, "of the bare product", at_least=False),
    ]
