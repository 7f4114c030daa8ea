"""Layers handed out as int8 with their scales against the same layers in float16."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from store.sharded_rows import ShardedRows
from store.shards import RowsArray
from tests.bench.measure import interleaved
from tests.bench.report import Bar
from tests.bench.store_data import BATCH, Features, write_array

Result = tuple[list[dict[str, Any]], list[Bar]]


def stored_part(layer: np.ndarray, part: str) -> np.ndarray:
    """Bytes of the size and kind that the encoding gives; what they say is not read here."""
    return layer.view(np.int8)[..., ::2] if part == "values" else layer[..., 0]


def int8_encoded(features: Features, folder: Path, rounds: int) -> Result:
    """The four layers as a dump stores them, `values` int8 and `token_scale` float16; one thread."""
    layers = [spec for spec in features.signals if spec.name.startswith("vit_layers/")]
    root = folder / "int8"
    encoded: list[ShardedRows] = []
    for spec in layers:
        array = features.arrays()[spec.name]
        kinds = {"values": ("int8", array.shape), "token_scale": ("float16", array.shape[:-1])}
        for part, (dtype, shape) in kinds.items():
            rows = (stored_part(features.row(spec, row), part) for row in range(features.rows))
            stored = RowsArray(shape, dtype, array.axes[: len(shape)], array.shard_rows)
            write_array(root, f"{spec.name}/{part}", stored, rows)
            encoded.append(ShardedRows(root, f"{spec.name}/{part}"))
    plain = [ShardedRows(folder / "ours", f"teacher/{spec.name}") for spec in layers]

    def case(arrays: list[ShardedRows]) -> Callable[[int], None]:
        room = [array.empty(BATCH) for array in arrays]

        def run(round_number: int) -> None:
            rows = np.random.default_rng(round_number).permutation(features.rows)[:BATCH]
            for array, out in zip(arrays, room, strict=True):
                array.read_into(rows, out)

        return run

    for arrays in (encoded, plain):
        for array in arrays:
            array.read(np.arange(min(features.rows, BATCH)))
    timings = interleaved({"int8, encoded": case(encoded), "float16": case(plain)}, 4 * rounds)
    shutil.rmtree(root)
    rows = [{"case": name, "samples_per_s": BATCH / timings.median(name)} for name in timings.seconds]
    return [*rows, {"case": "int8 to float16", "to_float16": timings.speed("int8, encoded", "float16")}], []
