"""TeachCLIP's losses: regular training (InfoNCE), coarse and fine teaching.

Every function is pure. Logits are [V, T], row a video, column a text, pair i on the diagonal. (The
official code's matrices are [text, video]; all three losses treat both directions alike, so only a
loader of its tensors has to transpose.) Source: TeachCLIP, sections 3.3.1 and 3.3.2, and
ruc-aimc-lab/TeachCLIP `train.py`, whose values and gradients these match.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(logits_VT: Tensor, ignored_VT: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: the mean of both directions' cross entropy with the diagonal.

    logits_VT: [B, B], logit scale included. ignored_VT: bool [B, B], pairs that are neither positive
    nor negative (another caption of the same video); its diagonal is False.
    """
    if ignored_VT is not None:
        logits_VT = logits_VT.masked_fill(ignored_VT, -torch.inf)
    target = torch.arange(len(logits_VT), device=logits_VT.device)
    return (functional.cross_entropy(logits_VT, target) + functional.cross_entropy(logits_VT.T, target)) / 2


def coarse_pearson(student_VT: Tensor, teacher_VT: Tensor, known_VT: Tensor | None = None) -> Tensor:
    """Coarse teaching, equation 2: Pearson's distance of softmax rows plus that of softmax columns.

    Per direction the mean over rows; the two directions are summed. student_VT, teacher_VT: raw
    logits [V, T]. known_VT: bool [V, T], False where the teacher has no score: such a pair takes no
    part in softmax, mean or correlation, and a row with fewer than two known pairs says nothing.
    """
    known_TV = None if known_VT is None else known_VT.T
    rows = one_way_pearson(student_VT, teacher_VT, known_VT)
    columns = one_way_pearson(student_VT.T, teacher_VT.T, known_TV)
    return rows + columns


def one_way_pearson(student_BN: Tensor, teacher_BN: Tensor, known_BN: Tensor | None) -> Tensor:
    """Mean over rows of Pearson's distance between softmax(student row) and softmax(teacher row)."""
    if known_BN is None:
        return pearson_distance(student_BN.softmax(-1), teacher_BN.softmax(-1)).mean()
    student, teacher = softmax_of_known(student_BN, known_BN), softmax_of_known(teacher_BN, known_BN)
    says_something = known_BN.sum(-1) >= 2
    distance = pearson_distance(student, teacher, known_BN)
    return (distance * says_something).sum() / says_something.sum().clamp(min=1)


def softmax_of_known(logits_BN: Tensor, known_BN: Tensor) -> Tensor:
    """Softmax over the known entries of each row; a row without any is uniform, never NaN."""
    return logits_BN.masked_fill(~known_BN, torch.finfo(logits_BN.dtype).min).softmax(-1)


def pearson_distance(first_BN: Tensor, second_BN: Tensor, known_BN: Tensor | None = None) -> Tensor:
    """1 - Pearson correlation of each pair of rows [B]; 1 for a row without any variation."""
    first, second = centred(first_BN, known_BN), centred(second_BN, known_BN)
    return 1 - (functional.normalize(first, dim=-1) * functional.normalize(second, dim=-1)).sum(-1)


def centred(value_BN: Tensor, known_BN: Tensor | None) -> Tensor:
    """Rows less their mean over the known entries; unknown entries become 0."""
    if known_BN is None:
        return value_BN - value_BN.mean(-1, keepdim=True)
    total = (value_BN * known_BN).sum(-1, keepdim=True)
    mean = total / known_BN.sum(-1, keepdim=True).clamp(min=1)
    return (value_BN - mean) * known_BN


def fine_cross_entropy_sum(
    log_weight_BM: Tensor, relevance_BM: Tensor, frame_valid_BM: Tensor | None = None
) -> Tensor:
    """Fine teaching, equation 3: cross entropy of frame weights with the teacher's frame relevance.

    Summed over frames, mean over the batch. log_weight_BM: log of the student's frame weights [B, M].
    relevance_BM: the teacher's, rows sum to 1. frame_valid_BM: bool, False for a place that a short
    video leaves empty: it is not taught. (Official code has no such mask.)
    """
    if frame_valid_BM is not None:
        log_weight_BM = log_weight_BM.masked_fill(~frame_valid_BM, 0)
        relevance_BM = relevance_BM * frame_valid_BM
    return -(relevance_BM * log_weight_BM).sum(-1).mean()


def fine_cross_entropy_mean(
    log_weight_BM: Tensor, relevance_BM: Tensor, frame_valid_BM: Tensor | None = None
) -> Tensor:
    """The same as the official code computes it: mean over all B * M places, 1 / M of equation 3."""
    return fine_cross_entropy_sum(log_weight_BM, relevance_BM, frame_valid_BM) / log_weight_BM.shape[-1]
