"""Side4Video, action recognition with interval fusion, against the official code's numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from student_train.side_network_model import RECOGNITION, Config, Parts, SideStudent
from tests.golden_case import GoldenCase
from tests.student_train.golden_side_network import backbone_of, run_both, side_of, visual_state


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    """The last steps are the student's own; the side network in it is checked part by part."""
    config = case.config
    visual = visual_state(case, "visual.")
    side, live = side_of(case, visual, cls_has_position=False), backbone_of(case, visual)
    video = case.inputs["frames"].unflatten(0, (-1, config["T"]))
    taps = config["tapped_vit_layers"]
    seen, layers, _ = run_both(side, live, video, taps)
    student = SideStudent(
        Config(task=RECOGNITION, layers=tuple(taps), width=config["side_dim"]),
        Parts(None, config["vit_width"], config["side_dim"], config["num_classes"]),
    )
    student.side = side
    student.classifier.weight.copy_(case.state["fc.weight"])
    student.classifier.bias.copy_(case.state["fc.bias"])
    valid = torch.ones(video.shape[:2], dtype=torch.bool)
    found = student.eval().encode_layers(layers, video, valid)
    probabilities = (
        found["class_logits"].softmax(-1).unflatten(0, (config["videos"], config["views"])).mean(1)
    )
    return {
        **seen,
        "video_feat": found["video_embedding"],
        "clip_logits": found["class_logits"],
        "video_probs": probabilities,
    }
