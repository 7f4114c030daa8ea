"""How the towers may be asked: any block, any order, fewer words; each number is OpenAI's (shared/golden)."""

import pytest
import torch

from store.errors import InputError
from teacher_dump.models.clip_towers import TowerSizes, encode_frames, encode_words
from tests.golden.clip_vit_layers import towers_of
from tests.golden_case import GoldenCase


@pytest.fixture(scope="module")
def case(shared):
    return GoldenCase.shared(shared, "clip_vit_layers_a")


@pytest.fixture(scope="module")
def towers(case):
    return towers_of(case)


def test_a_block_is_the_same_alone_and_among_others_whatever_the_order(case, towers):
    image = case.inputs["image"]
    _, alone = encode_frames(towers.visual, image, [1])
    _, among = encode_frames(towers.visual, image, [3, 1])
    assert torch.equal(alone[1], among[1])
    case.check("vit_block3", among[3])


def test_the_frame_feature_is_the_official_one_with_and_without_a_tap(case, towers):
    for layers in ([], [0, 3]):
        features, _ = encode_frames(towers.visual, case.inputs["image"], layers)
        case.check("image_emb", features)


def test_the_last_block_is_tapped_before_the_last_layer_norm(case, towers):
    last = case.config["vit_layers"] - 1
    _, tokens = encode_frames(towers.visual, case.inputs["image"], [last])
    normed = towers.visual.ln_post(tokens[last])
    case.check("vit_ln_post", normed[:, 0])
    case.check("image_hidden_proj", normed @ towers.visual.proj)


def test_fewer_words_than_the_context_give_the_same_features(case, towers):
    ids = case.inputs["input_ids"]
    fitting = ids.argmax(1) < 9
    sentence, words = encode_words(towers, ids[fitting, :9])
    full = case.outputs
    atol = case.atol["text_emb"]
    torch.testing.assert_close(sentence, full["text_emb"][fitting], atol=atol, rtol=0)
    torch.testing.assert_close(words, full["text_hidden_proj"][fitting, :9], atol=atol, rtol=0)


def test_a_state_that_is_no_clip_is_refused_by_name(case):
    state = {name: value for name, value in case.state.items() if name != "visual.proj"}
    with pytest.raises(InputError, match=r"lacks 'visual\.proj'"):
        TowerSizes.from_state(state)
