"""How closely frame weights follow the frames in which the described thing is visible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from store.reader import Cache, TeacherReader
from student_train.evaluation.rows import SplitRows

MOMENT_SLACK_S = 1e-3
AGREEMENT = ("mass", "hit@1", "auc")


@dataclass(frozen=True)
class Visibility:
    """For the captions where it is a question: rows [N] index the split's texts.

    visible, valid: [N, M] bool. A caption counts if its video's moment is known and some, but not
    all, of the video's frames lie in it.
    """

    rows: np.ndarray
    visible: np.ndarray
    valid: np.ndarray

    @property
    def uniform(self) -> np.ndarray:
        """The weights [N, M] of somebody who does not know: equal over the valid frames."""
        return self.valid / self.valid.sum(1, keepdims=True)


def visibility(cache: Cache, teacher: TeacherReader, rows: SplitRows) -> Visibility:
    """Which frames of each text's own video show what is described: start <= frame time < end.

    The moment is stored in float32, so both ends move by a millisecond to the front.
    """
    video = rows.video[rows.text_video]
    start, end = (cache.moment_s[video].astype(np.float64) - MOMENT_SLACK_S).T
    time = teacher.frame_time_s[video, 0]
    valid = teacher.frame_valid[video, 0]
    visible = valid & (time >= start[:, None]) & (time < end[:, None])
    question = visible.any(1) & (valid & ~visible).any(1)
    return Visibility(np.flatnonzero(question), visible[question], valid[question])


def agreement(weight_NM: np.ndarray, seen: Visibility) -> dict[str, float]:
    """Means over captions of: `mass`, the share of weight on visible frames; `hit@1`, whether the
    frame of most weight is visible (a tie counts by its share); `auc`, how probably a visible frame
    weighs more than an invisible one (a tie counts half).

    weight_NM: one row for each of `seen.rows`.
    """
    weight = np.where(seen.valid, weight_NM, 0.0).astype(np.float64)
    weight /= weight.sum(1, keepdims=True)
    top = seen.valid & (weight == weight.max(1, keepdims=True))
    hidden = seen.valid & ~seen.visible
    pairs = seen.visible[:, :, None] & hidden[:, None, :]
    ahead = np.sign(weight[:, :, None] - weight[:, None, :]) / 2 + 0.5
    return {
        "mass": float((weight * seen.visible).sum(1).mean()),
        "hit@1": float(((top & seen.visible).sum(1) / top.sum(1)).mean()),
        "auc": float(((ahead * pairs).sum((1, 2)) / pairs.sum((1, 2))).mean()),
    }
