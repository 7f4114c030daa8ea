"""TeachCLIP's student against the official code's numbers, from pixels: its towers are CLIP's."""

from collections.abc import Mapping

import torch
from torch import Tensor

from student_train.students import afa
from teacher_dump.checkpoints import load_strictly
from teacher_dump.models.clip_towers import TowerSizes, build_towers, encode_frames, encode_words, towers_of
from tests.golden_case import GoldenCase
from tests.student_train.golden_teachclip import student_parameters


def student_of(case: GoldenCase, aggregation: str) -> afa.AfaStudent:
    """The features-only student with the official parameters."""
    config = case.config
    frames, width, layers = config["max_frames"], config["embed_dim"], config["temporal_layers"]
    sizes = {"frame_embedding": {"M": frames, "D": width}, "text_embedding": {"D": width}}
    student = afa.build(
        afa.Config(aggregation, temporal_layers=layers, heads=config["temporal_heads"]), sizes
    )
    parameters = student_parameters(case.state, frames)
    if aggregation == afa.MEAN:
        parameters = {name: value for name, value in parameters.items() if not name.startswith("attention.")}
    student.load_state_dict(parameters, strict=True)
    return student.eval()


def features_of(case: GoldenCase) -> dict[str, Tensor]:
    """What a cache of the CLIP teacher would hold for this case's videos and texts."""
    head_width = case.config["vision_width"] // case.config["vision_heads"]
    state = towers_of(case.state)
    towers = build_towers(TowerSizes.from_state(state, head_width))
    load_strictly(towers, state, case.name)
    video = case.inputs["video"]
    with torch.no_grad():
        frames, _ = encode_frames(towers.eval().visual, video.flatten(0, 1))
        sentence, _ = encode_words(towers, case.inputs["input_ids"])
    return {
        "frame_embedding": frames.unflatten(0, video.shape[:2]),
        "frame_valid": case.inputs["video_mask"].bool(),
        "text_embedding": sentence,
    }


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    batch = features_of(case)
    attended = student_of(case, afa.AFA)(batch)
    return {
        "text_features": batch["text_embedding"],
        "frame_features": batch["frame_embedding"],
        "frame_scores": attended["frame_score"],
        "frame_weight_train": attended["log_frame_weight"].exp(),
        "video_embedding": attended["video_embedding"],
        "logits_train": attended["logits"].rows,
        "logits_meanpool": student_of(case, afa.MEAN)(batch)["logits"].rows,
    }
