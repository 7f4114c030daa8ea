"""CLIP4Clip's seqTransf against the official code's numbers."""

from collections.abc import Mapping

from torch import Tensor

from teacher_dump.checkpoints import load_strictly
from teacher_dump.models.clip4clip_model import Clip4Clip, Clip4ClipSizes
from teacher_dump.models.clip_towers import encode_frames, encode_words
from teacher_dump.models.temporal import mean_of_frames
from tests.golden_case import GoldenCase


def model_of(case: GoldenCase) -> Clip4Clip:
    head_width = case.config["vision_width"] // case.config["vision_heads"]
    model = Clip4Clip(Clip4ClipSizes.from_state(case.state, head_width))
    load_strictly(model, case.state, case.name)
    return model.eval().requires_grad_(False)


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    model = model_of(case)
    video, valid = case.inputs["video"], case.inputs["video_mask"].bool()
    features, _ = encode_frames(model.clip.visual, video.flatten(0, 1))
    frames = features.unflatten(0, video.shape[:2])
    sentence, _ = encode_words(model.clip, case.inputs["input_ids"])
    temporal = model.temporal_frames(frames, valid)
    return {
        "text_features": sentence,
        "frame_features": frames,
        "video_embedding_normalised": mean_of_frames(temporal, valid),
        "logits": model.logits(temporal, valid, sentence),
    }
