"""How good a model in training is: retrieval on the validation rows, by the teacher that a dump would run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from store.errors import InputError
from store.inputs.protocol import EQUAL_CAPTIONS, EVERY_CAPTION, RECOGNITION
from store.retrieval_metrics import TEXT_TO_VIDEO, VIDEO_TO_TEXT, retrieval_metrics
from teacher_dump.fitting.pair_batches import FrameSource, caption_rows
from teacher_dump.models.frozen import FrozenTeacher

VIDEOS_AT_ONCE, TEXTS_AT_ONCE = 32, 256
SCORE = "score"

Scores = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


class RetrievalCheck:
    """Validation on at most `most_videos` videos of a split, spread evenly over it, with their captions.

    Where a dataset has no such split there is nothing to validate on, and a fit keeps the last epoch.
    """

    def __init__(self, source: FrameSource, split: str, most_videos: int) -> None:
        self.source = source
        self.split = split
        samples = source.samples
        self.videos: list[int] = []
        self.texts: list[int] = []
        if split in samples.splits:
            rows = caption_rows(samples, split)
            own = np.unique([samples.texts[row].video for row in rows])
            spread = np.linspace(0, len(own) - 1, min(most_videos, len(own))).round().astype(int)
            self.videos = own[spread].tolist()
            chosen = set(self.videos)
            self.texts = [int(row) for row in rows if samples.texts[row].video in chosen]

    def metrics(self, teacher: FrozenTeacher, needed: tuple[str, ...], scores: Scores) -> dict[str, float]:
        """R@1 and SumR in both directions, percent, and their mean R@1 as "score"; {} without rows. Raises
        InputError where none of their videos decodes.

        needed: which of the videos' signals `scores` starts from.
        """
        if not self.texts:
            return {}
        videos, usable = self._encoded_videos(teacher, needed)
        samples = self.source.samples
        place = {row: place for place, row in enumerate(usable)}
        rows = [row for row in self.texts if samples.texts[row].video in place]
        texts = self._encoded_texts(teacher, [samples.texts[row].text for row in rows])
        protocol = EVERY_CAPTION if samples.protocol == RECOGNITION else samples.protocol
        words = [samples.texts[row].text for row in rows]
        found = retrieval_metrics(
            scores(videos, texts).cpu().numpy(),
            np.array([place[samples.texts[row].video] for row in rows]),
            protocol,
            np.unique(words, return_inverse=True)[1] if protocol == EQUAL_CAPTIONS else None,
        )
        told = {
            f"{direction} {metric}": found[direction][metric]
            for direction in (TEXT_TO_VIDEO, VIDEO_TO_TEXT)
            for metric in ("R@1", "SumR")
        }
        return {**told, SCORE: (told[f"{TEXT_TO_VIDEO} R@1"] + told[f"{VIDEO_TO_TEXT} R@1"]) / 2}

    def _encoded_videos(
        self, teacher: FrozenTeacher, needed: tuple[str, ...]
    ) -> tuple[dict[str, Tensor], list[int]]:
        parts: list[dict[str, Tensor]] = []
        usable: list[int] = []
        for start in range(0, len(self.videos), VIDEOS_AT_ONCE):
            found = self.source.frames(self.videos[start : start + VIDEOS_AT_ONCE])
            if not found:
                continue
            frames, valid = (
                torch.from_numpy(np.stack([video[part] for video in found.values()])) for part in (0, 1)
            )
            encoded = teacher.encode_videos(frames, valid)
            parts.append({name: encoded[name].cpu() for name in needed} | {"frame_valid": valid})
            usable += list(found)
        if not usable:
            raise InputError(
                f"not one video of split {self.split!r} decodes, by which the best epoch is kept; see that "
                "they are whole, or name another --val-split"
            )
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, usable

    @staticmethod
    def _encoded_texts(teacher: FrozenTeacher, texts: list[str]) -> dict[str, Tensor]:
        parts = [
            teacher.encode_texts(texts[start : start + TEXTS_AT_ONCE])
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
