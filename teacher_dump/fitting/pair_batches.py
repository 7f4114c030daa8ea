"""Batches of videos with their captions: decoded ahead, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from store.errors import InputError
from store.inputs.decode_pool import DecodeFailure, DecodePool, Limits
from store.inputs.samples import Samples, Text
from store.inputs.view import View
from teacher_dump.fitting.course import Decoding

MEGABYTE = 1 << 20
EPOCH_SEED = 10_000


@dataclass(frozen=True)
class Batch:
    """frames [B, M, Y, X, 3] uint8 with valid [B, M]; row i's text and, in `owner` [B], its video's row."""

    frames: Tensor
    valid: Tensor
    texts: tuple[str, ...]
    owner: Tensor


class FrameSource:
    """The frames of videos by row. Those decoded first are kept as far as `Decoding.keep_mb` reaches, the
    others are decoded whenever they are asked for. failures: reason by row."""

    def __init__(self, samples: Samples, view: View, decoding: Decoding) -> None:
        self.samples = samples
        self.view = view
        limits = Limits(decoding.time_limit_s, decoding.memory_limit_mb)
        self._pool = DecodePool(view, decoding.decoders, limits)
        self._room = decoding.keep_mb * MEGABYTE // view.pixel_bytes
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.failures: dict[int, str] = {}

    def frames(self, rows: Sequence[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """(frames [M, Y, X, 3], valid [M]) of each of `rows` that decodes."""
        found = {row: self._kept[row] for row in rows if row in self._kept}
        wanted = [row for row in dict.fromkeys(rows) if row not in found and row not in self.failures]
        videos = [self.samples.videos[row] for row in wanted]
        decoded = self._pool.decode([video.path for video in videos], [video.id for video in videos])
        for row, video in zip(wanted, decoded, strict=True):
            if isinstance(video, DecodeFailure):
                self.failures[row] = video.reason
                continue
            found[row] = video.frames[0], video.frame_valid[0]
            if len(self._kept) < self._room:
                self._kept[row] = found[row]
        return found

    def close(self) -> None:
        self._pool.__exit__(None, None, None)


class PairBatches:
    """The caption rows of a split in shuffled batches; the tail of an epoch is left out, as officially.

    Raises InputError where the split has fewer captions than a batch, or is not there.
    """

    def __init__(self, source: FrameSource, split: str, batch_size: int, seed: int) -> None:
        self.source = source
        self.rows = caption_rows(source.samples, split)
        self.batch_size = batch_size
        self.seed = seed
        if len(self.rows) < batch_size:
            raise InputError(
                f"split {split!r} has {len(self.rows)} captions, fewer than a batch of {batch_size}; "
                "give a smaller --batch-size"
            )

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        """Every caption once with its video, while the next batch decodes. Pairs whose video fails are left
        out; raises InputError when a batch has fewer than two left."""
        generator = torch.Generator().manual_seed(self.seed * EPOCH_SEED + epoch)
        order = torch.randperm(len(self.rows), generator=generator).numpy()
        steps = [order[at * self.batch_size :][: self.batch_size] for at in range(len(self))]
        with ThreadPoolExecutor(1, thread_name_prefix="batch") as ahead:
            coming = ahead.submit(self._load, steps[0])
            for step in [*steps[1:], None]:
                batch = coming.result()
                if step is not None:
                    coming = ahead.submit(self._load, step)
                yield batch

    def _load(self, places: np.ndarray) -> Batch:
        samples = self.source.samples
        texts = [samples.texts[row] for row in self.rows[places]]
        found = self.source.frames([text.video for text in texts])
        texts = [text for text in texts if text.video in found]
        if len(texts) < min(2, self.batch_size):
            reason = next(iter(self.source.failures.values()))
            raise InputError(
                f"{len(places) - len(texts)} of {len(places)} videos of a batch do not decode (the first: "
                f"{reason}); see that they are whole, or give a longer --time-limit"
            )
        return stacked(found, texts)


def stacked(found: Mapping[int, tuple[np.ndarray, np.ndarray]], texts: Sequence[Text]) -> Batch:
    """The batch of `texts`, whose videos are all in `found`."""
    owners = [text.video for text in texts]
    return Batch(
        torch.from_numpy(np.stack([found[row][0] for row in owners])),
        torch.from_numpy(np.stack([found[row][1] for row in owners])),
        tuple(text.text for text in texts),
        torch.tensor(owners, dtype=torch.long),
    )


def caption_rows(samples: Samples, split: str) -> np.ndarray:
    """Text rows [N] of a split that have a video; raises InputError where there is no such split."""
    if split not in samples.splits:
        raise InputError(
            f"dataset {samples.name!r} has no split {split!r}; it has {', '.join(samples.splits)}"
        )
    rows = samples.splits[split].text
    return np.array([row for row in rows if samples.texts[row].video >= 0], dtype=np.int64)
