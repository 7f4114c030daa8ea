"""Our student and losses against the official code's numbers (shared/golden)."""

import json
from pathlib import Path

import pytest
import torch

from student_train.losses.teachclip import coarse_pearson, fine_cross_entropy_mean, info_nce
from student_train.rows import PairBlock
from student_train.students import afa
from tests.student_train.golden_teachclip import load_tensors, student_parameters


def close(case: dict, name: str, value: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = case["tolerance"]["per_output"][name]["suggested_atol"]
    assert value.shape == expected.shape
    assert (value - expected).abs().max().item() <= tolerance, name


@pytest.fixture
def student_case(shared: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    path = shared / "golden" / "teachclip_student_a.json"
    return json.loads(path.read_text()), load_tensors(path)


def golden_student(case: dict, tensors: dict[str, torch.Tensor], aggregation: str) -> afa.AfaStudent:
    frames, width = case["config"]["max_frames"], case["config"]["embed_dim"]
    sizes = {"frame_embedding": {"M": frames, "D": width}, "text_embedding": {"D": width}}
    layers = case["config"]["temporal_layers"]
    student = afa.build(afa.Config(aggregation, temporal_layers=layers), sizes)
    parameters = student_parameters(tensors, frames)
    if aggregation == afa.MEAN:
        parameters = {name: value for name, value in parameters.items() if not name.startswith("attention.")}
    student.load_state_dict(parameters, strict=True)
    return student


def golden_batch(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "frame_embedding": tensors["output.frame_features"],
        "frame_valid": tensors["input.video_mask"].bool(),
        "text_embedding": tensors["output.text_features"],
    }


def test_afa_student_gives_the_official_numbers(student_case: tuple[dict, dict[str, torch.Tensor]]) -> None:
    case, tensors = student_case
    with torch.no_grad():
        outputs = golden_student(case, tensors, afa.AFA)(golden_batch(tensors))
    close(case, "frame_scores", outputs["frame_score"], tensors["output.frame_scores"])
    weight = outputs["log_frame_weight"].exp()
    close(case, "frame_weight_train", weight, tensors["output.frame_weight_train"])
    close(case, "video_embedding", outputs["video_embedding"], tensors["output.video_embedding"])
    close(case, "logits_train", outputs["logits"].rows, tensors["output.logits_train"].T)


def test_mean_pooling_gives_the_numbers_of_clip4clip(
    student_case: tuple[dict, dict[str, torch.Tensor]],
) -> None:
    case, tensors = student_case
    with torch.no_grad():
        outputs = golden_student(case, tensors, afa.MEAN)(golden_batch(tensors))
    close(case, "logits_meanpool", outputs["logits"].rows, tensors["output.logits_meanpool"].T)


def test_losses_and_gradients_equal_the_official_ones(shared: Path) -> None:
    path = shared / "golden" / "teachclip_losses_a.json"
    case, tensors = json.loads(path.read_text()), load_tensors(path)
    logits_VT = tensors["input.student_logits"].T.clone().requires_grad_()
    frame_weight = tensors["input.frame_weights"].clone().requires_grad_()
    teachers_VT = [tensors[f"input.teacher{n}_logits"].T for n in (1, 2)]
    relevances = [tensors[f"input.teacher{n}_relevance"] for n in (1, 2)]

    contrast = info_nce(PairBlock.whole(logits_VT)).mean()
    coarse = [
        coarse_pearson(PairBlock.whole(logits_VT), PairBlock.whole(teacher)).mean() for teacher in teachers_VT
    ]
    fine = [fine_cross_entropy_mean(frame_weight.log(), relevance).mean() for relevance in relevances]
    total = 0.2 * contrast + sum(coarse) / 2 + 2 * sum(fine) / 2
    total.backward()

    close(case, "gt_loss", contrast, tensors["output.gt_loss"])
    for n in (0, 1):
        close(case, f"distill_pear_teacher{n + 1}", coarse[n], tensors[f"output.distill_pear_teacher{n + 1}"])
        close(case, f"fine_ce_teacher{n + 1}", fine[n], tensors[f"output.fine_ce_teacher{n + 1}"])
    close(case, "total_pear_ce", total, tensors["output.total_pear_ce"])
    expected = tensors["output.grad_student_logits_pear_ce"].T
    close(case, "grad_student_logits_pear_ce", logits_VT.grad, expected)
    close(case, "grad_frame_weights_pear_ce", frame_weight.grad, tensors["output.grad_frame_weights_pear_ce"])


def test_masking_the_padding_changes_only_videos_that_have_padding(
    student_case: tuple[dict, dict[str, torch.Tensor]],
) -> None:
    case, tensors = student_case
    batch = golden_batch(tensors)
    student = golden_student(case, tensors, afa.AFA)
    with torch.no_grad():
        official = student.encode_videos(batch)["frame_weight"]
        student.config = afa.Config(mask_padding=True)
        masked = student.encode_videos(batch)["frame_weight"]
    full = batch["frame_valid"].all(-1)
    assert torch.equal(official[full], masked[full])
    assert not torch.allclose(official[~full], masked[~full], atol=1e-3)
    assert masked[~batch["frame_valid"]].max() == 0
