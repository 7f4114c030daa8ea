"""Delivered into the training process: a ring of buffers against a DataLoader on the same store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from store.feeder import BatchFeeder
from store.signal_rows import Batch, BatchBuffers, SignalRows
from tests.bench.measure import interleaved
from tests.bench.report import Bar
from tests.bench.store_data import BATCH, Features

RING, WHOLE, COLLATED = (
    "ring of 3 buffers, 2 threads",
    "DataLoader, 2 workers, whole batches",
    "DataLoader, 2 workers, default collate",
)
Result = tuple[list[dict[str, Any]], list[Bar]]


class Source:
    """The rows of a store as a feeder asks for them; row i of videos and texts belong together."""

    def __init__(self, store: SignalRows) -> None:
        self.store = store

    def buffers(self, signals: Sequence[str], rows: int) -> BatchBuffers:
        return self.store.buffers(signals, rows)

    def batch(
        self,
        signals: Sequence[str],
        video_rows: np.ndarray,
        text_rows: np.ndarray,
        out: BatchBuffers | None = None,
    ) -> Batch:
        return self.store.read(dict.fromkeys(signals, video_rows), out)


class StoreRows(Dataset):
    """One row a sample, or many at once where the loader asks so."""

    def __init__(self, store: SignalRows, names: list[str], whole_batches: bool) -> None:
        self._store = store
        self._names = names
        if whole_batches:
            self.__getitems__ = self.read

    def read(self, rows: list[int]) -> dict[str, torch.Tensor]:
        found = self._store.read(dict.fromkeys(self._names, np.array(rows)))
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: values[0] for name, values in self.read([row]).items()}


def as_it_comes(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch


def touched(batch: dict[str, Any]) -> float:
    """A number of each array, so that a batch was really there."""
    return sum(float(values[0].reshape(-1)[0]) for values in batch.values())


def delivery(features: Features, folder: Path, rounds: int) -> Result:
    """Samples a second that arrive in a process that does nothing with them; one epoch a round."""
    store = features.open_store(folder / "ours")
    names = [spec.name for spec in features.signals]
    store.open(names)
    steps = features.rows // BATCH

    def order(round_number: int) -> np.ndarray:
        rows = np.random.default_rng(round_number).permutation(features.rows)
        return rows[: steps * BATCH].reshape(steps, BATCH)

    def ring(round_number: int) -> Iterator[Batch]:
        pairs = ((rows, rows) for rows in order(round_number))
        with BatchFeeder(Source(store), names, pairs, BATCH) as feeder:
            yield from feeder

    def loader(round_number: int, whole_batches: bool) -> Iterator[dict[str, torch.Tensor]]:
        yield from DataLoader(
            StoreRows(store, names, whole_batches),
            batch_sampler=[rows.tolist() for rows in order(round_number)],
            num_workers=2,
            collate_fn=as_it_comes if whole_batches else None,
        )

    def drained(batches: Callable[[int], Iterator[Any]]) -> Callable[[int], float]:
        return lambda round_number: sum(touched(batch) for batch in batches(round_number))

    cases = {
        RING: drained(ring),
        WHOLE: drained(lambda number: loader(number, True)),
        COLLATED: drained(lambda number: loader(number, False)),
    }
    timings = interleaved(cases, max(rounds // 2, 2))
    rows = [{"case": name, "samples_per_s": steps * BATCH / timings.median(name)} for name in cases]
    return rows, [Bar("delivered, against a DataLoader", timings.speed(RING, WHOLE), 2.5, "x")]
