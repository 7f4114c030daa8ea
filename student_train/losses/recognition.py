"""Losses of students that recognise classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from student_train.rows import PerRow


def class_cross_entropy(logits_BC: Tensor, class_B: Tensor) -> PerRow:
    """Cross entropy of each video's logits over all classes with its own class, int64 from 0.

    Text4Vis, equations 1 and 3: the same for a learned and a frozen classifier.
    """
    return PerRow(functional.cross_entropy(logits_BC.float(), class_B, reduction="none"))
