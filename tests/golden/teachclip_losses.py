"""TeachCLIP's losses against the official code's: all nine combinations, values and gradients."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from student_train.losses import teachclip
from student_train.losses.teachclip import info_nce
from student_train.rows import PairBlock, PerRow
from student_train.students.afa import CODE_WEIGHTS, CODE_WEIGHTS_CROSS_ENTROPY
from tests.golden_case import GoldenCase

COARSE: dict[str, Callable[[PairBlock, PairBlock], PerRow]] = {
    "pear": teachclip.coarse_pearson,
    "ce": teachclip.coarse_cross_entropy,
    "l1": teachclip.coarse_huber,
}
FINE: dict[str, Callable[[Tensor, Tensor], PerRow]] = {
    "ce": lambda weight, relevance: teachclip.fine_cross_entropy_mean(weight.log(), relevance),
    "pear": teachclip.fine_pearson,
    "l1": teachclip.fine_huber,
}


def coarse_terms(case: GoldenCase, method: str, logits_VT: Tensor) -> list[Tensor]:
    """The coarse loss from each teacher."""
    teachers = (case.inputs[f"teacher{n}_logits"] for n in (1, 2))
    return [
        COARSE[method](PairBlock.whole(logits_VT), PairBlock.whole(teacher)).mean() for teacher in teachers
    ]


def fine_terms(case: GoldenCase, method: str, frame_weight: Tensor) -> list[Tensor]:
    """The fine loss from each teacher."""
    return [FINE[method](frame_weight, case.inputs[f"teacher{n}_relevance"]).mean() for n in (1, 2)]


def combination(case: GoldenCase, coarse: str, fine: str) -> dict[str, Tensor]:
    """The total of a combination, and its gradients."""
    logits_VT = case.inputs["student_logits"].clone().requires_grad_()
    frame_weight = case.inputs["frame_weights"].clone().requires_grad_()
    weights = CODE_WEIGHTS_CROSS_ENTROPY if coarse == "ce" else CODE_WEIGHTS
    contrast = info_nce(PairBlock.whole(logits_VT)).mean()
    distilled = torch.stack(coarse_terms(case, coarse, logits_VT)).mean()
    finely = torch.stack(fine_terms(case, fine, frame_weight)).mean()
    total = weights.contrast * contrast + weights.coarse * distilled + weights.fine * finely
    total.backward()
    assert logits_VT.grad is not None
    assert frame_weight.grad is not None
    return {
        f"total_{coarse}_{fine}": total,
        f"grad_student_logits_{coarse}_{fine}": logits_VT.grad,
        f"grad_frame_weights_{coarse}_{fine}": frame_weight.grad,
    }


@torch.enable_grad()
def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    logits_VT, frame_weight = case.inputs["student_logits"], case.inputs["frame_weights"]
    diagonal = torch.arange(len(logits_VT))
    found = {
        "gt_text_to_video": functional.cross_entropy(logits_VT.T, diagonal),
        "gt_video_to_text": functional.cross_entropy(logits_VT, diagonal),
        "gt_loss": info_nce(PairBlock.whole(logits_VT)).mean(),
    }
    by_method = {f"distill_{name}": coarse_terms(case, name, logits_VT) for name in COARSE}
    by_method |= {f"fine_{name}": fine_terms(case, name, frame_weight) for name in FINE}
    for name, terms in by_method.items():
        found |= {name: torch.stack(terms).mean(), f"{name}_teacher1": terms[0], f"{name}_teacher2": terms[1]}
    for coarse in COARSE:
        for fine in FINE:
            found |= combination(case, coarse, fine)
    return found
