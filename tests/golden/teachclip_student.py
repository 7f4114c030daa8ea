"""TeachCLIP's student against the official code's numbers, as it comes in by frames: pixels and token ids."""

from collections.abc import Mapping

from torch import Tensor

from student_train.clip_towers import ClipTowers
from student_train.students import afa
from teacher_dump.models.clip_towers import TowerSizes, build_towers, towers_of
from tests.golden_case import GoldenCase
from tests.student_train.golden_teachclip import official_parameters


def student_of(case: GoldenCase, aggregation: str) -> afa.AfaStudent:
    """The student with the official parameters, towers included."""
    config = case.config
    head_width = config["vision_width"] // config["vision_heads"]
    sizes = TowerSizes.from_state(towers_of(case.state), head_width)
    towers = ClipTowers(build_towers(sizes), case.name, ids_of=lambda texts: NotImplemented)
    made_of = afa.Config(
        aggregation,
        temporal_layers=config["temporal_layers"],
        heads=config["temporal_heads"],
        way_in="frames",
    )
    student = afa.AfaStudent(made_of, config["max_frames"], config["embed_dim"], towers)
    parameters = official_parameters(case.state, config["max_frames"])
    if aggregation == afa.MEAN:
        parameters = {name: value for name, value in parameters.items() if not name.startswith("attention.")}
    student.load_state_dict(parameters, strict=True)
    return student.eval()


def encoded(student: afa.AfaStudent, case: GoldenCase) -> dict[str, Tensor]:
    """What it makes of the case's pixels, which are normalised already, and of its token ids."""
    assert student.towers is not None
    video, valid = case.inputs["video"], case.inputs["video_mask"].bool()
    features = student.towers.encode_pixels(video.flatten(0, 1)).unflatten(0, video.shape[:2])
    sentence, _ = student.towers.encode_ids(case.inputs["input_ids"])
    videos, texts = student.pool(features, valid), {"text_embedding": sentence}
    logits = student.similarity(videos, texts)
    return {"frame_features": features, **videos, **texts, "logits": logits}


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    found = encoded(student_of(case, afa.AFA), case)
    return {
        "text_features": found["text_embedding"],
        "frame_features": found["frame_features"],
        "frame_scores": found["frame_score"],
        "frame_weight_train": found["log_frame_weight"].exp(),
        "video_embedding": found["video_embedding"],
        "logits_train": found["logits"],
        "logits_meanpool": encoded(student_of(case, afa.MEAN), case)["logits"],
    }
