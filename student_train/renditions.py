"""Which rendition of its video a training row shows in which epoch, where a view holds several.

Augmentations are drawn when the cache is dumped and replayed here: what the teacher said of a rendition goes
with that rendition's frames. What it said of pairs, or of a text with its video, it said of the first one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from store.errors import InputError
from student_train.needs import (
    MATCH_PROBABILITY,
    PAIR_SCORES,
    PLANNED_TOPK,
    RELEVANCE,
    roles_of,
    split_role,
)
from student_train.teachers import Teachers

OF_THE_FIRST = (PAIR_SCORES, MATCH_PROBABILITY, RELEVANCE)


@dataclass(frozen=True)
class DrawnRenditions:
    """`count` R renditions of each of `videos` V, of which a training from `seed` sees one an epoch."""

    seed: int
    videos: int
    count: int

    def of(self, epoch: int, video_rows: np.ndarray) -> np.ndarray:
        """Rendition [N] int64 of the videos `video_rows` [N]; a function of (seed, epoch, row) alone."""
        # Another counter than that of the order of rows, so that the two have nothing in common.
        source = np.random.Philox(key=np.array([self.seed, epoch], np.uint64), counter=[0, 0, 0, 1])
        drawn: np.ndarray = (source.random_raw(self.videos) % self.count).astype(np.int64)
        return drawn[video_rows]


def drawn_renditions(teachers: Teachers, needs: Iterable[str], seed: int) -> DrawnRenditions:
    """Raises InputError for a need that belongs to the first rendition, or views of different numbers."""
    needs = tuple(needs)
    counts = {teachers.in_role(role).view.renditions for role in ("", *roles_of(needs))}
    if len(counts) > 1:
        raise InputError(
            f"the teachers' views hold {sorted(counts)} renditions, of which none go together; say "
            "--set renditions=first"
        )
    (count,) = counts
    for need in needs:
        name = split_role(need)[0]
        if count > 1 and (name in OF_THE_FIRST or name.startswith(PLANNED_TOPK)):
            raise InputError(
                f"{need} is what the teacher said of the first of {count} renditions and would be a wrong "
                "label for the others; leave out that loss, or say --set renditions=first"
            )
    return DrawnRenditions(seed, len(teachers.cache.video_ids), count)
