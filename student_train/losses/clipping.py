"""CLIPPING's losses but for those of layers: temporal, spatial and cross-modal distillation.

Pei et al. 2023, sections 3.3.1 and 3.3.3; layers are in `student_train.losses.layers`. Every function is pure
and gives a number a row, see `student_train.rows`. There is no public code. What the paper leaves open, and
what is taken here:

- D_KL(student, teacher) is Hinton's: the divergence of the teacher's distribution from the student's,
  KL(teacher || student), as PyTorch's `kl_div(student, teacher)` computes it.
- Features become distributions by a softmax over their width (the axis "width"), for each frame by itself.
  The other reading, over the frames (tokens) for each channel by itself, is the axis "places".
- A video's divergence is the mean over its valid frames (or the width), so that neither weighs more for
  being longer.
- Similarities are cosines times the logit scale, each model's own, as CLIP4Clip computes them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from store.errors import InputError
from student_train.rows import PairBlock, PerRow, both_ways

WIDTH, PLACES = "width", "places"
KL_AXES = (WIDTH, PLACES)


def check_axis(axis: str) -> str:
    """`axis` itself; raises InputError unless it is one of KL_AXES."""
    if axis not in KL_AXES:
        raise InputError(f"the softmax of a divergence runs over one of {KL_AXES}, not {axis!r}")
    return axis


def divergence(student_N: Tensor, teacher_N: Tensor, dim: int = -1) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) along `dim`, which is gone from the result.

    An entry of -inf in both is outside of the distributions and adds nothing.
    """
    log_student, log_teacher = student_N.log_softmax(dim), teacher_N.log_softmax(dim)
    outside = log_teacher == -torch.inf
    difference = log_teacher.masked_fill(outside, 0) - log_student.masked_fill(outside, 0)
    return (log_teacher.exp() * difference).sum(dim)


def feature_divergence(
    student_BMD: Tensor, teacher_BMD: Tensor, valid_BM: Tensor, axis: str = WIDTH, temperature: float = 1.0
) -> Tensor:
    """Divergence [B] of the places' features [B, M, D] (frames, or tokens) from the teacher's.

    valid_BM: bool, places that exist; a row without any gives 0. axis: see above. temperature: divides both
    features first.
    """
    student_BMD, teacher_BMD = student_BMD / temperature, teacher_BMD / temperature
    if check_axis(axis) == WIDTH:
        of_place_BM = divergence(student_BMD, teacher_BMD)
        return (of_place_BM * valid_BM).sum(-1) / valid_BM.sum(-1).clamp(min=1)
    there_BM1 = (valid_BM | ~valid_BM.any(-1, keepdim=True)).unsqueeze(-1)
    student_BMD = student_BMD.masked_fill(~there_BM1, -torch.inf)
    teacher_BMD = teacher_BMD.masked_fill(~there_BM1, -torch.inf)
    return divergence(student_BMD, teacher_BMD, dim=1).mean(-1) * valid_BM.any(-1)


def frame_divergence(
    student_BMD: Tensor, teacher_BMD: Tensor, valid_BM: Tensor, axis: str = WIDTH, temperature: float = 1.0
) -> PerRow:
    """Equations 5 and 6: D_KL of the frames' features, a number a video.

    Temporal distillation: features [B, M, D] after the temporal transformer of both (a student without one
    gives those before); spatial: before it. A video without frames says nothing.
    """
    values = feature_divergence(student_BMD, teacher_BMD, valid_BM, axis, temperature)
    return PerRow(values, valid_BM.any(-1))


def distribution_divergence(
    student: PairBlock, teacher: PairBlock, known: PairBlock | None = None, temperature: float = 1.0
) -> PerRow:
    """Equations 10 and 13: D_KL of video-to-caption distributions plus that of caption-to-video ones.

    Each video's is a softmax over the captions, each caption's over the videos; per direction the mean over
    rows. The paper's softmax runs "along the first dimension" of both matrices; where s(v, t) = s(t, v), as
    in equation 9, that is the same sum. student, teacher: scores of pairs, scale included. known: bool,
    False where the teacher has no score; a row with fewer than two known pairs says nothing.
    """

    def one_way(student_BN: Tensor, teacher_BN: Tensor, known_BN: Tensor | None) -> PerRow:
        student_BN, teacher_BN = student_BN / temperature, teacher_BN / temperature
        if known_BN is None:
            return PerRow(divergence(student_BN, teacher_BN))
        says_something = known_BN.sum(-1) >= 2
        there_BN = known_BN | ~says_something.unsqueeze(-1)
        teacher_BN = teacher_BN.masked_fill(~known_BN, 0).masked_fill(~there_BN, -torch.inf)
        student_BN = student_BN.masked_fill(~there_BN, -torch.inf)
        return PerRow(divergence(student_BN, teacher_BN) * says_something, says_something)

    return both_ways(one_way, student, teacher, known)


def local_similarity(
    frames_VMD: Tensor, frame_valid_VM: Tensor, words_TWD: Tensor, word_valid_TW: Tensor
) -> tuple[Tensor, Tensor]:
    """Equation 11, both [V, T]: s'(v, t), the mean over frames of the nearest word, and s'(t, v), the mean
    over words of the nearest frame.

    Features of both, not normalised; similarities are cosines. What is not valid is neither looked at nor
    counted; a video without frames or a text without words gives 0.
    """
    frames_VMD = functional.normalize(frames_VMD, dim=-1)
    words_TWD = functional.normalize(words_TWD, dim=-1)
    pair_VTMW = torch.einsum("vmd,twd->vtmw", frames_VMD, words_TWD)
    lowest = torch.finfo(pair_VTMW.dtype).min
    frame_there, word_there = frame_valid_VM[:, None, :], word_valid_TW[None]
    best_word_VTM = pair_VTMW.masked_fill(~word_there[:, :, None, :], lowest).amax(-1)
    best_frame_VTW = pair_VTMW.masked_fill(~frame_there[..., None], lowest).amax(-2)
    one_empty_VT = ~(frame_valid_VM.any(-1)[:, None] & word_valid_TW.any(-1)[None])
    to_text, to_video = mean_of_valid(best_word_VTM, frame_there), mean_of_valid(best_frame_VTW, word_there)
    return to_text.masked_fill(one_empty_VT, 0), to_video.masked_fill(one_empty_VT, 0)


def mean_of_valid(values_VTN: Tensor, valid: Tensor) -> Tensor:
    """Mean [V, T] of the last axis where `valid`, which broadcasts against it, is True; 0 without any."""
    return values_VTN.masked_fill(~valid, 0).sum(-1) / valid.sum(-1).clamp(min=1)
