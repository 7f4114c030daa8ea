"""TeachCLIP's losses and gradients against the official code's, in the published combination."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from student_train.losses.teachclip import coarse_pearson, fine_cross_entropy_mean, info_nce
from student_train.rows import PairBlock
from tests.golden_case import GoldenCase

OTHERS = "coarse teaching by L1 or cross entropy and fine teaching by L1 or Pearson, which no recipe uses"
COARSE, FINE = ("pear", "ce", "l1"), ("ce", "pear", "l1")
LEFT_OUT = dict.fromkeys(
    (
        *(f"distill_{c}{teacher}" for c in COARSE[1:] for teacher in ("", "_teacher1", "_teacher2")),
        *(f"fine_{f}{teacher}" for f in FINE[1:] for teacher in ("", "_teacher1", "_teacher2")),
        *(
            f"{what}_{c}_{f}"
            for what in ("total", "grad_student_logits", "grad_frame_weights")
            for c in COARSE
            for f in FINE
            if (c, f) != ("pear", "ce")
        ),
    ),
    OTHERS,
)


@torch.enable_grad()
def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    given, teachers = case.inputs, range(1, len(case.config["teachers"]) + 1)
    logits_VT = given["student_logits"].clone().requires_grad_()
    frame_weight = given["frame_weights"].clone().requires_grad_()
    contrast = info_nce(PairBlock.whole(logits_VT)).mean()
    coarse = [
        coarse_pearson(PairBlock.whole(logits_VT), PairBlock.whole(given[f"teacher{n}_logits"])).mean()
        for n in teachers
    ]
    fine = [
        fine_cross_entropy_mean(frame_weight.log(), given[f"teacher{n}_relevance"]).mean() for n in teachers
    ]
    distilled, finely = torch.stack(coarse).mean(), torch.stack(fine).mean()
    total = 0.2 * contrast + distilled + 2 * finely
    total.backward()
    diagonal = torch.arange(len(logits_VT))
    assert logits_VT.grad is not None
    assert frame_weight.grad is not None
    return {
        "gt_text_to_video": functional.cross_entropy(logits_VT.T, diagonal),
        "gt_video_to_text": functional.cross_entropy(logits_VT, diagonal),
        "gt_loss": contrast,
        "distill_pear": distilled,
        "fine_ce": finely,
        "total_pear_ce": total,
        "grad_student_logits_pear_ce": logits_VT.grad,
        "grad_frame_weights_pear_ce": frame_weight.grad,
        **{f"distill_pear_teacher{n}": value for n, value in zip(teachers, coarse, strict=True)},
        **{f"fine_ce_teacher{n}": value for n, value in zip(teachers, fine, strict=True)},
    }
