"""TeachCLIP's losses: regular training (InfoNCE), coarse and fine teaching.

Every function is pure and gives a number a row, see `student_train.rows`. Blocks are [video, text], pair i on
the diagonal. (The official code's matrices are [text, video]; all losses treat both directions alike, so only
a loader of its tensors has to transpose.) Source: TeachCLIP, sections 3.3.1 and 3.3.2, and
ruc-aimc-lab/TeachCLIP `train.py`, whose values and gradients these match.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from student_train.rows import PairBlock, PerRow, both_ways


def info_nce(logits: PairBlock, ignored: PairBlock | None = None) -> PerRow:
    """Symmetric InfoNCE: the mean of both directions' cross entropy with the diagonal.

    logits: logit scale included. ignored: bool, pairs that are neither positive nor negative (another
    caption of the same video); its diagonal is False.
    """
    return both_ways(one_way_info_nce, logits, logits.own, ignored) / 2


def one_way_info_nce(logits_BN: Tensor, own_B: Tensor, ignored_BN: Tensor | None) -> Tensor:
    """Cross entropy [B] of each row with its own column."""
    if ignored_BN is not None:
        logits_BN = logits_BN.masked_fill(ignored_BN, -torch.inf)
    return functional.cross_entropy(logits_BN, own_B, reduction="none")


def coarse_pearson(student: PairBlock, teacher: PairBlock, known: PairBlock | None = None) -> PerRow:
    """Coarse teaching, equation 2: Pearson's distance of softmax rows plus that of softmax columns.

    Per direction the mean over rows; the two directions are summed. student, teacher: raw logits.
    known: bool, False where the teacher has no score: such a pair takes no part in softmax, mean or
    correlation, and a row with fewer than two known pairs says nothing.
    """
    return both_ways(one_way_pearson, student, teacher, known)


def one_way_pearson(student_BN: Tensor, teacher_BN: Tensor, known_BN: Tensor | None) -> PerRow:
    """Pearson's distance [B] between softmax(student row) and softmax(teacher row)."""
    if known_BN is None:
        return PerRow(pearson_distance(student_BN.softmax(-1), teacher_BN.softmax(-1)))
    student, teacher = softmax_of_known(student_BN, known_BN), softmax_of_known(teacher_BN, known_BN)
    return PerRow(pearson_distance(student, teacher, known_BN), known_BN.sum(-1) >= 2)


def coarse_cross_entropy(student: PairBlock, teacher: PairBlock, known: PairBlock | None = None) -> PerRow:
    """Coarse teaching by cross entropy, as the official code's "ce": softmax rows and softmax columns.

    Per direction the mean over all B x B entries, 1 / B of a row's cross entropy; the two directions are
    summed. Arguments as in `coarse_pearson`; a row is divided by its known pairs.
    """
    return both_ways(one_way_cross_entropy, student, teacher, known)


def one_way_cross_entropy(student_BN: Tensor, teacher_BN: Tensor, known_BN: Tensor | None) -> PerRow:
    """Cross entropy [B] of softmax(student row) with softmax(teacher row), over the number of entries."""
    if known_BN is None:
        entries = teacher_BN.softmax(-1) * student_BN.log_softmax(-1)
        return PerRow(-entries.mean(-1))
    lowest = torch.finfo(student_BN.dtype).min
    log_student = student_BN.masked_fill(~known_BN, lowest).log_softmax(-1).masked_fill(~known_BN, 0)
    entries = softmax_of_known(teacher_BN, known_BN) * log_student
    return PerRow(-entries.sum(-1) / known_BN.sum(-1).clamp(min=1), known_BN.sum(-1) >= 2)


def coarse_huber(student: PairBlock, teacher: PairBlock, known: PairBlock | None = None) -> PerRow:
    """Coarse teaching as TeachText's: Huber's loss between raw logits, the mean over all entries.

    Threshold 1, as PyTorch's SmoothL1Loss, which the official code calls "l1". Every pair counts once, in its
    video's row. Arguments as in `coarse_pearson`; a row is divided by its known pairs.
    """
    if known is None:
        return PerRow(functional.smooth_l1_loss(student.rows, teacher.rows, reduction="none").mean(-1))
    told = teacher.rows.masked_fill(~known.rows, 0)
    entries = functional.smooth_l1_loss(student.rows, told, reduction="none") * known.rows
    return PerRow(entries.sum(-1) / known.rows.sum(-1).clamp(min=1), known.rows.any(-1))


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
) -> PerRow:
    """Fine teaching, equation 3: cross entropy of frame weights with the teacher's frame relevance.

    Summed over frames, mean over the batch. log_weight_BM: log of the student's frame weights [B, M].
    relevance_BM: the teacher's, rows sum to 1. frame_valid_BM: bool, False for a place that a short
    video leaves empty: it is not taught. (Official code has no such mask.)
    """
    if frame_valid_BM is not None:
        log_weight_BM = log_weight_BM.masked_fill(~frame_valid_BM, 0)
        relevance_BM = relevance_BM * frame_valid_BM
    return PerRow(-(relevance_BM * log_weight_BM).sum(-1))


def fine_cross_entropy_mean(
    log_weight_BM: Tensor, relevance_BM: Tensor, frame_valid_BM: Tensor | None = None
) -> PerRow:
    """The same as the official code computes it: mean over all B * M places, 1 / M of equation 3."""
    return fine_cross_entropy_sum(log_weight_BM, relevance_BM, frame_valid_BM) / log_weight_BM.shape[-1]


def fine_pearson(weight_BM: Tensor, relevance_BM: Tensor, frame_valid_BM: Tensor | None = None) -> PerRow:
    """Fine teaching by Pearson's distance of frame weights and the teacher's relevance, mean over videos.

    As `fine_cross_entropy_sum`, but of the weights themselves. A video with one frame says nothing.
    """
    distance = pearson_distance(weight_BM, relevance_BM, frame_valid_BM)
    if frame_valid_BM is None:
        return PerRow(distance)
    return PerRow(distance, frame_valid_BM.sum(-1) >= 2)


def fine_huber(weight_BM: Tensor, relevance_BM: Tensor, frame_valid_BM: Tensor | None = None) -> PerRow:
    """Fine teaching by Huber's loss (threshold 1) of frame weights and the teacher's frame relevance.

    Mean over all B * M places. Arguments as in `fine_pearson`; a missing frame is not taught.
    """
    entries = functional.smooth_l1_loss(weight_BM, relevance_BM, reduction="none")
    if frame_valid_BM is not None:
        entries = entries * frame_valid_BM
    return PerRow(entries.mean(-1))
