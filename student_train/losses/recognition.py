"""Losses of students that recognise classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from student_train.rows import PerRow


def class_cross_entropy(logits_BC: Tensor, class_B: Tensor, label_smoothing: float = 0.0) -> PerRow:
    """Cross entropy of each video's logits over all classes with its own class, int64 from 0.

    Text4Vis, equations 1 and 3: the same for a learned and a frozen classifier. label_smoothing: e of the
    target, 1 - e + e / C for the own class and e / C for the others (Szegedy et al. 2016, section 7), as
    Side4Video trains recognition (table 12).
    """
    logits = logits_BC.float()
    return PerRow(
        functional.cross_entropy(logits, class_B, reduction="none", label_smoothing=label_smoothing)
    )
