"""Writing whole shards against writing the same bytes raw, both synced to the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.bench.measure import interleaved
from tests.bench.report import Bar
from tests.bench.store_data import Features, write_array

RAW, SHARD = "raw write, fsync", "our shard, fsync"
Result = tuple[list[dict[str, Any]], list[Bar]]


def writing(features: Features, folder: Path, rounds: int) -> Result:
    """One shard of a layer (256 MB or all rows); bytes that went to the kernel, as a ratio to the payload."""
    spec = features.signals[0]
    array = features.arrays()[spec.name]
    assert array.shard_rows is not None
    one_shard = type(array)((array.shard_rows, *array.shape[1:]), array.dtype, array.axes, array.shard_rows)
    values = [features.row(spec, row) for row in range(array.shard_rows)]
    payload = sum(row.nbytes for row in values)
    place = folder / "written"
    sent: list[int] = []

    def clear() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

    def raw(round_number: int) -> None:
        with open(place / "raw", "wb", buffering=0) as file:
            for row in values:
                file.write(row.data)
            os.fsync(file.fileno())

    def shard(round_number: int) -> None:
        before = written_bytes()
        write_array(place, "x", one_shard, iter(values))
        sent.append(written_bytes() - before)

    timings = interleaved({RAW: raw, SHARD: shard}, rounds, {RAW: clear, SHARD: clear})
    shutil.rmtree(place)
    rows = [{"case": name, "GB_per_s": payload / timings.median(name) / 1e9} for name in (RAW, SHARD)]
    return rows, [
        Bar("writing a shard", timings.speed(SHARD, RAW), 0.8, "of the raw write"),
        Bar("write amplification", max(sent) / payload, 1.01, "bytes written a byte", at_least=False),
    ]


def written_bytes() -> int:
    """What this process handed to write() so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))
