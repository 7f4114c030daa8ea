"""Our X-CLIP against the official code's numbers (shared/golden)."""

import pytest
import torch
from torch.nn import functional

from teacher_dump.checkpoints import load_strictly
from teacher_dump.clip_towers import encode_frames, encode_words
from teacher_dump.teachers.xclip import OFFICIAL_TEMPERATURE
from teacher_dump.xclip_scores import XClip, XClipSizes, frame_relevance
from tests.golden_case import GoldenCase


@pytest.fixture(scope="module")
def case(shared):
    return GoldenCase.read(shared, "xclip_a")


@pytest.fixture(scope="module")
def model(case):
    model = XClip(XClipSizes.from_state(case.state))
    load_strictly(model, case.state, "xclip_a")
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def frame_valid(case):
    return case.inputs["video_mask"].bool()


@pytest.fixture(scope="module")
def frames(case, model):
    video = case.inputs["video"]
    features, _ = encode_frames(model.clip.visual, video.flatten(0, 1))
    return features.unflatten(0, video.shape[:2])


@pytest.fixture(scope="module")
def texts(case, model):
    return encode_words(model.clip, case.inputs["input_ids"])


def all_pairs_relevance(frames_VMD, sentence_TD):
    """Softmax over the frames of every video for every text: [V, T, M]."""
    videos, texts = len(frames_VMD), len(sentence_TD)
    score = frame_relevance(frames_VMD.repeat_interleave(texts, 0), sentence_TD.repeat(videos, 1))
    return (score / OFFICIAL_TEMPERATURE).softmax(-1).unflatten(0, (videos, texts))


def test_the_sizes_are_read_off_the_official_state(case, model):
    sizes, config = model.sizes, case.config
    assert (sizes.frames, sizes.words, sizes.temporal_layers) == (
        config["max_frames"],
        config["max_words"],
        config["temporal_layers"],
    )
    assert sizes.towers.image_size == config["image_size"]
    assert sizes.towers.vision_layers == config["vision_layers"]
    assert sizes.towers.context_length == config["context_length"]


def test_every_official_number_is_met(case, model, frames, frame_valid, texts):
    sentence, words = texts
    scores = model.scores(frames, frame_valid, sentence, words)
    pairs = min(len(frames), len(sentence))
    paired = frame_relevance(frames[:pairs], sentence[:pairs]) / OFFICIAL_TEMPERATURE
    ours = {
        "frame_features_raw": frames,
        "sentence_feature_raw": sentence,
        "word_features_raw": words,
        "frame_features": functional.normalize(frames, dim=-1),
        "sentence_feature": functional.normalize(sentence, dim=-1),
        "word_features": functional.normalize(words, dim=-1),
        "frame_features_temporal": model.temporal_frames(frames, frame_valid),
        "video_feature": model.video_feature(frames, frame_valid),
        **{f"{name}_logits": score for name, score in scores.items()},
        "logits": model.logits(frames, frame_valid, sentence, words),
        "relevance_full": all_pairs_relevance(frames, sentence),
        "relevance_paired": paired.softmax(-1),
    }
    assert set(ours) == set(case.outputs)
    for name, value in ours.items():
        case.check(name, value)


def test_only_the_scores_of_the_whole_video_know_which_frames_are_missing(model, frames, frame_valid, texts):
    known = model.scores(frames, frame_valid, *texts)
    unknown = model.scores(frames, torch.ones_like(frame_valid), *texts)
    for name in ("sentence_frame", "frame_word"):
        assert torch.equal(known[name], unknown[name])
    short = ~frame_valid.all(1)
    for name in ("video_sentence", "video_word"):
        assert (known[name] - unknown[name])[short].abs().max() > 0.1
        torch.testing.assert_close(known[name][~short], unknown[name][~short], atol=1e-4, rtol=0)
