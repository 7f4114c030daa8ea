"""Which rows meet in which batch: a pure function of (seed, epoch), as plain data.

A training row is a text row with its video. Who trains (how many processes, resumed or not) changes
nothing: epoch e of a seed is the same table of rows everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.errors import InputError


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one epoch.

    rows: [steps, B] int64, numbers of training rows. dropped: rows of the tail, which fill no batch.
    siblings: how many rows share their batch with an earlier row of the same video.
    """

    rows: np.ndarray
    dropped: int
    siblings: int


@dataclass(frozen=True)
class BatchPlan:
    """Batches of `batch_size` B training rows; `row_video` [N] int64 is the video of each row.

    One video comes once in a batch, wherever enough other videos are left to fill it. Raises
    InputError if not even one batch can be filled.
    """

    row_video: np.ndarray
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.seed < 0:
            raise InputError(f"batch size starts at 1 and seed at 0, got {self.batch_size} and {self.seed}")
        if len(self.row_video) < self.batch_size:
            raise InputError(
                f"a batch of {self.batch_size} needs as many training rows, there are "
                f"{len(self.row_video)}; choose a smaller --batch-size"
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.row_video) // self.batch_size

    def epoch(self, epoch: int) -> EpochPlan:
        """The batches of epoch number `epoch` (from 0)."""
        order = shuffled(len(self.row_video), self.seed, epoch)
        arranged = siblings_apart(order, self.row_video, self.batch_size)
        used = self.steps_per_epoch * self.batch_size
        rows = arranged[:used].reshape(-1, self.batch_size)
        videos = np.sort(self.row_video[rows], axis=1)
        return EpochPlan(
            rows=rows,
            dropped=len(arranged) - used,
            siblings=int(np.count_nonzero(videos[:, 1:] == videos[:, :-1])),
        )

    def steps(self, first: int, behind: int) -> Iterator[np.ndarray]:
        """Training rows [B] of the global steps `first` to `behind` - 1, counted through all epochs.

        Step s is step s % steps_per_epoch of epoch s // steps_per_epoch: a resume goes on at any of them.
        """
        step = first
        while step < behind:
            epoch, within = divmod(step, self.steps_per_epoch)
            rows = self.epoch(epoch).rows[within : within + behind - step]
            yield from rows
            step += len(rows)

    def to_dict(self) -> dict[str, Any]:
        """What a run writes down of its plan; the rows themselves follow from it."""
        return {
            "training_rows": len(self.row_video),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "steps_per_epoch": self.steps_per_epoch,
        }


def rank_strip(batch_size: int, rank: int, world_size: int) -> slice:
    """The places of a global batch of B that process `rank` of `world_size` holds: B / world_size in a row.

    All strips together are the batch, in its order, whatever the world size. Raises InputError if the batch
    can't be divided, or for a rank that there is not.
    """
    if not 0 <= rank < world_size:
        raise InputError(f"ranks go from 0 to {world_size - 1}, got {rank}")
    if batch_size % world_size:
        raise InputError(
            f"a batch of {batch_size} can't be split over {world_size} processes; choose a --batch-size that "
            f"{world_size} divides"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation [count] int64 that (seed, epoch) decides, the same in every NumPy release.

    It sorts raw Philox output, whose stream NumPy guarantees, where `Generator.permutation` may change.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(bits, kind="stable")


def siblings_apart(order: np.ndarray, row_video: np.ndarray, batch_size: int) -> np.ndarray:
    """`order`, changed as little as keeps rows of one video in different batches.

    A row whose video already stands in the batch waits for the next one; where the other videos have
    run out, waiting rows fill the batch as they are.
    """
    coming = deque(zip(order.tolist(), row_video[order].tolist(), strict=True))
    waiting: deque[tuple[int, int]] = deque()
    arranged: list[int] = []
    while coming or waiting:
        rows: list[int] = []
        videos: set[int] = set()
        still_waiting: deque[tuple[int, int]] = deque()
        for queue in (waiting, coming):
            while queue and len(rows) < batch_size:
                row, video = queue.popleft()
                if video in videos:
                    still_waiting.append((row, video))
                else:
                    videos.add(video)
                    rows.append(row)
        waiting = still_waiting + waiting
        while waiting and len(rows) < batch_size:
            rows.append(waiting.popleft()[0])
        arranged.extend(rows)
    return np.array(arranged, np.int64)
