"""TS2-Net's randomness belongs to the row, its shift to time, its mask to the official code."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teacher_dump.models.ts2net_model import shift_through_time, soft_top_k
from teacher_dump.teachers import ts2net
from tests.contracts.teacher_contract import random_videos

TEMPORAL = "temporal_frame_embedding"


@pytest.fixture(scope="module")
def teacher():
    return ts2net.tiny(0)


@pytest.fixture(scope="module")
def videos(teacher):
    return random_videos(teacher, 4)


def rendered(teacher, videos, rows=slice(None)):
    return teacher.encode_videos(videos[0][rows], videos[1][rows])[TEMPORAL]


def test_a_video_draws_the_same_noise_wherever_a_dump_resumes(teacher, videos):
    whole = rendered(teacher, videos)
    resumed = rendered(ts2net.tiny(0), videos, slice(2, None))
    torch.testing.assert_close(resumed, whole[2:], atol=1e-5, rtol=1e-5)
    torch.manual_seed(99)
    assert torch.equal(rendered(teacher, videos), whole)


def test_encoding_leaves_the_random_numbers_of_everybody_else_alone(teacher, videos):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rendered(teacher, videos)
    assert torch.equal(torch.rand(3), expected)


def test_other_videos_draw_other_noise(teacher, videos):
    frames, valid = videos
    one, other = teacher._noise(frames[:2], valid[:2], 4).chunk(2)
    assert not torch.allclose(one, other)


def test_the_noise_free_variant_is_another_teacher_with_other_features(teacher, videos):
    quiet = ts2net.Ts2NetTeacher(teacher.model, 4, samples=0)
    assert quiet.identity()["noise"] is None
    assert teacher.identity()["noise"]["samples"] == 500
    assert quiet.identity()["weights_sha256"] == teacher.identity()["weights_sha256"]
    assert (rendered(quiet, videos) - rendered(teacher, videos)).abs().max() > 1e-4


def test_without_the_shift_a_frame_knows_nothing_of_its_neighbours_before_time(teacher, videos):
    frames, valid = videos[0][1:2], videos[1][1:2]
    changed = frames.clone()
    changed[:, 2] = 255 - changed[:, 2]
    before, after = (teacher.encode_videos(some, valid)["vit_layers/1"] for some in (frames, changed))
    difference = (before - after).abs().amax((0, 2, 3))
    assert (difference[[1, 2, 3]] > 1e-4).all()
    assert difference[0] < 1e-6


def test_tokens_come_from_the_frames_beside_and_stay_at_the_ends():
    tokens = torch.arange(3 * 14.0).reshape(1, 3, 14, 1)
    shifted = shift_through_time(tokens, 7)[0, :, :, 0]
    own = tokens[0, :, :, 0]
    assert torch.equal(shifted[:, 0], own[:, 0])
    assert torch.equal(shifted[1:, 1], own[:-1, 1])
    assert shifted[0, 1] == own[0, 1]
    assert torch.equal(shifted[:-1, 4], own[1:, 4])
    assert shifted[-1, 4] == own[-1, 4]


@given(st.integers(1, 4), st.integers(5, 9), st.integers(1, 20), st.integers(0, 10_000))
def test_every_slot_of_the_soft_selection_is_a_mean_of_choices(kept, patches, draws, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(2, patches, generator=generator)
    chosen = soft_top_k(scores, kept, torch.randn(2, draws, patches, generator=generator))
    torch.testing.assert_close(chosen.sum(-1), torch.ones(2, kept))
    assert (chosen.sum(1) <= 1 + 1e-5).all()
    place = (chosen * torch.arange(patches)).sum(-1)
    assert (place.diff(dim=-1) > 0).all()


@given(st.integers(1, 4), st.integers(5, 9), st.integers(0, 10_000))
def test_without_noise_the_best_are_chosen_in_the_order_of_their_places(kept, patches, seed):
    scores = torch.rand(1, patches, generator=torch.Generator().manual_seed(seed))
    chosen = soft_top_k(scores, kept, None)[0]
    assert chosen.argmax(-1).tolist() == sorted(scores[0].topk(kept).indices.tolist())
    assert set(chosen.unique().tolist()) <= {0.0, 1.0}
