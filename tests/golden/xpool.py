"""X-Pool against the official codes' numbers."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from teacher_dump.checkpoints import load_strictly
from teacher_dump.models.clip_towers import encode_frames, encode_words
from teacher_dump.models.xpool_model import XPool, XPoolSizes, own_state
from tests.golden_case import GoldenCase


def model_of(case: GoldenCase) -> XPool:
    state, config = own_state(case.state), case.config
    sizes = XPoolSizes.from_state(state, config["vision_width"] // config["vision_heads"])
    model = XPool(replace(sizes, heads=config["pooling_heads"]))
    load_strictly(model, state, case.name)
    return model.eval().requires_grad_(False)


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    model, video = model_of(case), case.inputs["video"]
    features, _ = encode_frames(model.clip.visual, video.flatten(0, 1))
    frames = features.unflatten(0, video.shape[:2])
    sentence, _ = encode_words(model.clip, case.inputs["input_ids"])
    relevance = model.relevance(frames, sentence).softmax(-1)
    pairs = range(min(len(frames), len(sentence)))
    return {
        "text_features": sentence,
        "frame_features": frames,
        "video_pooled": model.pool_frames(sentence, frames),
        "sims": model.cosines(frames, sentence),
        "logits": model.logits(frames, sentence),
        "relevance_full": relevance,
        "relevance_paired": relevance[pairs, pairs],
    }
