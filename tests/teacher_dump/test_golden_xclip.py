"""What the official X-CLIP does with missing frames, and what its state tells (shared/golden)."""

import pytest
import torch

from teacher_dump.models.clip_towers import encode_words
from tests.golden.xclip import encoded_frames, model_of
from tests.golden_case import GoldenCase


@pytest.fixture(scope="module")
def case(shared):
    return GoldenCase.shared(shared, "xclip_a")


@pytest.fixture(scope="module")
def model(case):
    return model_of(case)


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


def test_only_the_scores_of_the_whole_video_know_which_frames_are_missing(case, model):
    frames, frame_valid = encoded_frames(case, model), case.inputs["video_mask"].bool()
    texts = encode_words(model.clip, case.inputs["input_ids"])
    known = model.scores(frames, frame_valid, *texts)
    unknown = model.scores(frames, torch.ones_like(frame_valid), *texts)
    for name in ("sentence_frame", "frame_word"):
        assert torch.equal(known[name], unknown[name])
    short = ~frame_valid.all(1)
    for name in ("video_sentence", "video_word"):
        assert (known[name] - unknown[name])[short].abs().max() > 0.1
        torch.testing.assert_close(known[name][~short], unknown[name][~short], atol=1e-4, rtol=0)
