"""X-CLIP against the official code's numbers."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from teacher_dump.checkpoints import load_strictly
from teacher_dump.models.clip_towers import encode_frames, encode_words
from teacher_dump.models.xclip_scores import XClip, XClipSizes, frame_relevance
from teacher_dump.teachers.xclip import OFFICIAL_TEMPERATURE
from tests.golden_case import GoldenCase


def model_of(case: GoldenCase) -> XClip:
    model = XClip(
        XClipSizes.from_state(case.state, case.config["vision_width"] // case.config["vision_heads"])
    )
    load_strictly(model, case.state, case.name)
    return model.eval().requires_grad_(False)


def encoded_frames(case: GoldenCase, model: XClip) -> Tensor:
    video = case.inputs["video"]
    features, _ = encode_frames(model.clip.visual, video.flatten(0, 1))
    return features.unflatten(0, video.shape[:2])


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    model = model_of(case)
    valid, frames = case.inputs["video_mask"].bool(), encoded_frames(case, model)
    sentence, words = encode_words(model.clip, case.inputs["input_ids"])
    scores = model.scores(frames, valid, sentence, words)
    pairs = min(len(frames), len(sentence))
    paired = frame_relevance(frames[:pairs], sentence[:pairs]) / OFFICIAL_TEMPERATURE
    return {
        "frame_features_raw": frames,
        "sentence_feature_raw": sentence,
        "word_features_raw": words,
        "frame_features": functional.normalize(frames, dim=-1),
        "sentence_feature": functional.normalize(sentence, dim=-1),
        "word_features": functional.normalize(words, dim=-1),
        "frame_features_temporal": model.temporal_frames(frames, valid),
        "video_feature": model.video_feature(frames, valid),
        **{f"{name}_logits": score for name, score in scores.items()},
        "logits": model.logits(frames, valid, sentence, words),
        "relevance_full": all_pairs_relevance(frames, sentence),
        "relevance_paired": paired.softmax(-1),
    }


def all_pairs_relevance(frames_VMD: Tensor, sentence_TD: Tensor) -> Tensor:
    """Softmax over the frames of every video for every text: [V, T, M]."""
    videos, texts = len(frames_VMD), len(sentence_TD)
    score = frame_relevance(frames_VMD.repeat_interleave(texts, 0), sentence_TD.repeat(videos, 1))
    return (score / OFFICIAL_TEMPERATURE).softmax(-1).unflatten(0, (videos, texts))
