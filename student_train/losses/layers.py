"""Distillation between the layers of two towers of different depth: student or teacher as base, one to one.

CLIPPING (Pei et al. 2023), section 3.3.2 and figure 1. Letters here besides the project's: I the teacher's
layers, J the student's (the paper's i and j), P the patches of a frame, which are its tokens without [CLS].
All layers have been brought to one shape [P, D] before (`student_train.feature_reshaping`).

    SAB     teacher layer i  ~  sum over j of w[i, j] student layer j,   w = softmax over j of T_i . S_j
    TAB     student layer j  ~  sum over i of w[j, i] teacher layer i,   w = softmax over i of S_j . T_i
    OL2OL   student layer j  ~  teacher layer i, for given pairs (i, j)

"~" is D_KL of `student_train.losses.clipping`, with the softmax over the width of a token, averaged over
tokens, layers and valid frames (the axis "places" takes it over the tokens instead). The weights w are the
student's as much as its layers are: gradients flow through both, none to the teacher.

Equation 7's mask forbids pairs (i, j). As printed, W o Mask, a forbidden similarity becomes 0 and still takes
part in the softmax, ahead of all negative ones; what the text says, "mask", is that it takes no part. The
latter is the default ("exclude"), the former is "product".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from store.errors import InputError
from student_train.losses.clipping import WIDTH, check_axis, feature_divergence
from student_train.rows import PerRow

EXCLUDE, PRODUCT = "exclude", "product"
MASKINGS = (EXCLUDE, PRODUCT)
DOT, SCALED, COSINE = "dot", "scaled", "cosine"
SIMILARITIES = (DOT, SCALED, COSINE)

Borders = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LayerOptions:
    """What the paper leaves open about comparing layers.

    masking: see above. similarity: "dot" as printed, "scaled" by 1 / sqrt(D) as attention does it, or
    "cosine". axis: of the softmax in the divergence, "width" or "places". temperature: divides features.
    """

    masking: str = EXCLUDE
    similarity: str = DOT
    axis: str = WIDTH
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_axis(self.axis)
        if self.masking not in MASKINGS or self.similarity not in SIMILARITIES:
            raise InputError(f"masking is one of {MASKINGS}, similarity one of {SIMILARITIES}, got {self}")
        if not self.temperature > 0:
            raise InputError(f"a temperature lies above 0, got {self.temperature}")


def sequential_mask(teacher_layers: int, student_layers: int, borders: Borders) -> Tensor:
    """Equation 7: bool [I, J], False where teacher layer i must not be made of student layer j.

    borders: (m_0, n_0), (m_1, n_1), ..., both ascending, counted from 1: the teacher's layers up to m_0 see
    the student's up to n_0, those after it up to m_1 see the student's up to n_1; the rest sees all. Without
    borders everything is allowed. Raises InputError unless 1 <= m_0 < m_1 < I and 1 <= n_0 < n_1 < J.
    """
    mask_IJ = torch.ones(teacher_layers, student_layers, dtype=torch.bool)
    seen_m, seen_n = 0, 0
    for m, n in borders:
        if not (seen_m < m < teacher_layers and seen_n < n < student_layers):
            raise InputError(
                f"borders {borders} of a mask ascend, from 1 to below the {teacher_layers} layers of the "
                f"teacher and the {student_layers} of the student"
            )
        mask_IJ[seen_m:m, n:] = False
        seen_m, seen_n = m, n
    return mask_IJ


def even_pairs(teacher_layers: int, student_layers: int) -> list[tuple[int, int]]:
    """A teacher layer i for every student layer j, from 0: the student's depth spread over the teacher's."""
    return [((j + 1) * teacher_layers // student_layers - 1, j) for j in range(student_layers)]


def student_as_base(
    student_BMJPD: Tensor,
    teacher_BMIPD: Tensor,
    frame_valid_BM: Tensor,
    mask_IJ: Tensor,
    options: LayerOptions,
) -> PerRow:
    """Equation 8: D_KL of the teacher's layers from mixtures of the student's, a number a video.

    frame_valid_BM, mask_IJ: bool. Raises InputError where the mask leaves a teacher's layer without any.
    """
    weight_BMPIJ = mixture_weights(teacher_BMIPD, student_BMJPD, mask_IJ, options)
    mixed_BMIPD = torch.einsum("bmpij,bmjpd->bmipd", weight_BMPIJ, student_BMJPD)
    return layer_divergence(mixed_BMIPD, teacher_BMIPD, frame_valid_BM, options)


def teacher_as_base(
    student_BMJPD: Tensor,
    teacher_BMIPD: Tensor,
    frame_valid_BM: Tensor,
    mask_IJ: Tensor,
    options: LayerOptions,
) -> PerRow:
    """Turned round, after equation 2: each of the student's layers learns a mixture of the teacher's.

    As semantic calibration does it (Chen et al. 2021, the paper's reference 5), with the same weights,
    similarities and divergence as `student_as_base`.
    """
    weight_BMPJI = mixture_weights(student_BMJPD, teacher_BMIPD, mask_IJ.T, options)
    target_BMJPD = torch.einsum("bmpji,bmipd->bmjpd", weight_BMPJI, teacher_BMIPD)
    return layer_divergence(student_BMJPD, target_BMJPD, frame_valid_BM, options)


def one_layer_to_one(
    student_BMJPD: Tensor,
    teacher_BMIPD: Tensor,
    frame_valid_BM: Tensor,
    pairs: Sequence[tuple[int, int]],
    options: LayerOptions,
) -> PerRow:
    """OL2OL: student layer j learns teacher layer i, for `pairs` of (i, j) from 0; the mean over pairs."""
    if not pairs:
        raise InputError("one-to-one distillation needs at least one pair of layers")
    of_teacher, of_student = (list(side) for side in zip(*pairs, strict=True))
    return layer_divergence(
        student_BMJPD[:, :, of_student], teacher_BMIPD[:, :, of_teacher], frame_valid_BM, options
    )


def mixture_weights(asking: Tensor, base: Tensor, mask_AC: Tensor, options: LayerOptions) -> Tensor:
    """Weights [B, M, P, A, C], C summing to 1, by which layers C of `base` make up each layer A of `asking`.

    asking [B, M, A, P, D], base [B, M, C, P, D]. Raises InputError if the mask leaves a layer without any.
    """
    if not mask_AC.any(-1).all():
        raise InputError("the mask leaves a layer nothing to be made of; choose other borders")
    if options.similarity == COSINE:
        asking, base = (functional.normalize(value, dim=-1) for value in (asking, base))
    similarity = torch.einsum("bmapd,bmcpd->bmpac", asking, base)
    if options.similarity == SCALED:
        similarity = similarity / asking.shape[-1] ** 0.5
    mask_AC = mask_AC.to(similarity.device)
    if options.masking == PRODUCT:
        return (similarity * mask_AC).softmax(-1)
    return similarity.masked_fill(~mask_AC, -torch.inf).softmax(-1)


def layer_divergence(
    student_BMNPD: Tensor, teacher_BMNPD: Tensor, frame_valid_BM: Tensor, options: LayerOptions
) -> PerRow:
    """D_KL of N layers from as many, averaged over them, their tokens and the valid frames."""
    student, teacher = (value.flatten(0, 2) for value in (student_BMNPD, teacher_BMNPD))
    everywhere = torch.ones(student.shape[:2], dtype=torch.bool, device=student.device)
    of_layer = feature_divergence(student, teacher, everywhere, options.axis, options.temperature)
    of_frame_BM = of_layer.view(student_BMNPD.shape[:3]).mean(-1)
    values = (of_frame_BM * frame_valid_BM).sum(-1) / frame_valid_BM.sum(-1).clamp(min=1)
    return PerRow(values, frame_valid_BM.any(-1))
