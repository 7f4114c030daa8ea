"""The protocols of evaluation, against cases by hand and against a plain restatement, one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store.errors import InputError, UnknownNameError
from store.inputs.protocol import (
    EQUAL_CAPTIONS,
    EVERY_CAPTION,
    MULTI_CAPTION,
    PARAGRAPH,
    RETRIEVAL_PROTOCOLS,
    SINGLE_CAPTION,
)
from store.retrieval_metrics import (
    best_true_ranks,
    equal_text_pairs,
    recognition_metrics,
    retrieval_metrics,
    video_to_caption_set_ranks,
)

T2V, V2T = "text_to_video", "video_to_text"
FEW_VALUES = st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("nan"), float("inf"), float("-inf")])


@st.composite
def scored_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [V, T] with many ties, NaN and infinities; several or no texts for a video; equal texts."""
    videos, texts = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    scores = draw(arrays(np.float64, (videos, texts), elements=FEW_VALUES))
    text_video = draw(arrays(np.int64, texts, elements=st.integers(0, videos - 1)))
    text_key = draw(arrays(np.int64, texts, elements=st.integers(0, 2)))
    return scores, text_video, text_key


def distinct(scores: np.ndarray) -> np.ndarray:
    """Scores of the same shape without a tie."""
    return np.random.default_rng(scores.size).permutation(scores.size).reshape(scores.shape) / 7.0


def plain_set_rank(scores: np.ndarray, text_video: np.ndarray, video: int) -> int | None:
    """A video's rank of its own captions among the captions of every video, by loops."""
    captions = {v: [t for t in range(scores.shape[1]) if text_video[t] == v] for v in range(scores.shape[0])}
    if not captions[video]:
        return None
    own = max(
        (scores[video, t] for t in captions[video] if scores[video, t] == scores[video, t]), default=-np.inf
    )
    rank = 1
    for other, theirs in captions.items():
        if other != video and any(not scores[video, t] < own for t in theirs):
            rank += 1
    return rank


def plain_best_rank(scores: list[float], right: list[bool]) -> int | None:
    if not any(right):
        return None
    best = max((s for s, r in zip(scores, right, strict=True) if r and s == s), default=-np.inf)
    return 1 + sum(1 for s, r in zip(scores, right, strict=True) if not r and not s < best)


@given(scored_pairs())
def test_caption_sets_rank_as_a_plain_count(case):
    scores, text_video, _ = case
    plain = [plain_set_rank(scores, text_video, video) for video in range(scores.shape[0])]
    found = video_to_caption_set_ranks(scores, text_video).tolist()
    assert found == [rank for rank in plain if rank is not None]


@given(scored_pairs())
def test_equal_captions_rank_as_a_plain_count(case):
    scores, text_video, text_key = case
    videos, texts = scores.shape
    true = [
        [any(text_video[u] == v and text_key[u] == text_key[t] for u in range(texts)) for t in range(texts)]
        for v in range(videos)
    ]
    assert equal_text_pairs(videos, text_video, text_key).tolist() == true
    by_video = [plain_best_rank(scores[v].tolist(), true[v]) for v in range(videos)]
    by_text = [
        plain_best_rank(scores[:, t].tolist(), [true[v][t] for v in range(videos)]) for t in range(texts)
    ]
    assert best_true_ranks(scores, np.array(true)).tolist() == [r for r in by_video if r is not None]
    assert best_true_ranks(scores.T, np.array(true).T).tolist() == by_text


@given(scored_pairs())
def test_protocols_agree_where_every_video_has_one_text_of_its_own(case):
    scores = case[0]
    size = min(scores.shape)
    scores = scores[:size, :size]
    found = [
        retrieval_metrics(scores, np.arange(size), protocol, np.arange(size))
        for protocol in RETRIEVAL_PROTOCOLS
    ]
    assert all(metrics == found[0] for metrics in found)


@given(scored_pairs())
def test_fewer_rivals_never_worsen_a_rank(case):
    """Sets compete instead of single captions, and equal texts are right instead of rivals."""
    scores, text_video, text_key = case
    every = retrieval_metrics(scores, text_video, EVERY_CAPTION)
    assert retrieval_metrics(scores, text_video, MULTI_CAPTION)[V2T]["MnR"] <= every[V2T]["MnR"]
    equal = retrieval_metrics(scores, text_video, EQUAL_CAPTIONS, text_key)
    for direction in (T2V, V2T):
        assert equal[direction]["MnR"] <= every[direction]["MnR"]


@given(scored_pairs())
def test_multi_caption_equals_the_official_way_of_padding_sorting_and_diagonals(case):
    """CLIP4Clip: captions of a video padded to a cube, text to video by double argsort, the other way by
    their max."""
    scores, text_video, _ = case
    order = np.argsort(text_video, kind="stable")
    with_text, counts = np.unique(text_video, return_counts=True)
    sims_TV = distinct(scores).T[order][:, with_text]
    longest = counts.max()
    cube = np.full((len(with_text), longest, len(with_text)), -np.inf)
    begins = np.cumsum([0, *counts])
    for at in range(len(with_text)):
        cube[at, : counts[at]] = sims_TV[begins[at] : begins[at + 1]]
    ranks = np.argsort(np.argsort(-cube.transpose(1, 0, 2), axis=-1), axis=-1)
    t2v = np.diagonal(ranks, axis1=1, axis2=2).ravel()[~np.isinf(np.diagonal(cube, axis1=0, axis2=2)).ravel()]
    by_set = cube.max(axis=1).T
    v2t = np.array([(by_set[v] > by_set[v, v]).sum() for v in range(len(with_text))])
    own = np.searchsorted(with_text, text_video[order])
    found = retrieval_metrics(sims_TV.T, own, MULTI_CAPTION)
    for direction, zero_based in ((T2V, t2v), (V2T, v2t)):
        assert found[direction]["R@1"] == pytest.approx(100 * np.mean(zero_based == 0))
        assert found[direction]["R@5"] == pytest.approx(100 * np.mean(zero_based < 5))
        assert found[direction]["MdR"] == np.median(zero_based) + 1
        assert found[direction]["MnR"] == pytest.approx(np.mean(zero_based) + 1)


def test_a_case_by_hand():
    """Video 0 has captions 0 and 1, video 1 has 2, video 2 has 3; captions 1 and 3 are equal texts."""
    scores = np.array([[0.9, 0.1, 0.2, 0.3], [0.8, 0.4, 0.7, 0.9], [0.1, 0.6, 0.5, 0.2]])
    text_video, text_key = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 1])
    # text to video: ranks of the own video are 1, 3, 1, 3
    every = retrieval_metrics(scores, text_video, EVERY_CAPTION)
    assert every[T2V]["MnR"] == 2
    assert every[T2V]["R@1"] == 50
    # video to text: video 0's 0.9 is first; 0.7 follows 0.9 and 0.8; 0.2 follows 0.6 and 0.5
    assert every[V2T]["MnR"] == pytest.approx((1 + 3 + 3) / 3)
    # sets: video 1's 0.7 follows those of video 0 (0.8) and 2 (0.9); video 2's those of 0 and 1
    assert retrieval_metrics(scores, text_video, MULTI_CAPTION)[V2T]["MnR"] == pytest.approx((1 + 3 + 3) / 3)
    # equal texts: caption 1 is right for video 2 as well (0.6, rank 1), caption 3 for video 0 (0.3, rank 2)
    equal = retrieval_metrics(scores, text_video, EQUAL_CAPTIONS, text_key)
    assert equal[T2V]["MnR"] == pytest.approx((1 + 1 + 1 + 2) / 4)
    # and caption 1, 0.6, is right for video 2: rank 1
    assert equal[V2T]["MnR"] == pytest.approx((1 + 3 + 1) / 3)


def test_two_captions_of_one_rival_count_once_among_sets_and_twice_among_captions():
    scores = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.5]])
    text_video = np.array([0, 0, 1])
    assert retrieval_metrics(scores, text_video, EVERY_CAPTION)[V2T]["MnR"] == (1 + 3) / 2
    assert retrieval_metrics(scores, text_video, MULTI_CAPTION)[V2T]["MnR"] == (1 + 2) / 2


@pytest.mark.parametrize("protocol", [SINGLE_CAPTION, PARAGRAPH])
def test_two_texts_of_a_video_are_refused_where_one_is_expected(protocol):
    with pytest.raises(InputError, match="3 texts of 2 videos do not fit the protocol"):
        retrieval_metrics(np.eye(2, 3), np.array([0, 1, 1]), protocol)


def test_equal_captions_need_to_be_told_which_are_equal():
    with pytest.raises(InputError, match=r"text_key \[2\]"):
        retrieval_metrics(np.eye(2), np.arange(2), EQUAL_CAPTIONS)


def test_an_unknown_protocol_lists_what_there_is():
    with pytest.raises(UnknownNameError, match="single-caption"):
        retrieval_metrics(np.eye(2), np.arange(2), "single")


def test_recognition_counts_the_class_among_the_first_one_or_five():
    scores = np.array([[0.9, 0.1, 0, 0, 0, 0], [0.9, 0.1, 0.2, 0.3, 0.4, 0.5], [1, 0.9, 0.8, 0.7, 0.6, 0.5]])
    assert recognition_metrics(scores, [0, 5, 5]) == {
        "top-1": pytest.approx(100 / 3),
        "top-5": pytest.approx(200 / 3),
        "mean class": 50,
    }


def test_the_mean_over_classes_counts_a_rare_class_as_much_as_a_frequent_one():
    scores = np.eye(3)[[0, 0, 0, 2]]
    found = recognition_metrics(scores, [0, 0, 0, 1])
    assert found["top-1"] == 75
    assert found["mean class"] == 50, "class 2 has no video and takes no part"


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_classifier_that_says_the_same_of_every_class_is_never_right(value):
    assert recognition_metrics(np.full((4, 10), value), [0, 1, 2, 3]) == {
        "top-1": 0,
        "top-5": 0,
        "mean class": 0,
    }


@given(arrays(np.float64, (4, 8), elements=FEW_VALUES), arrays(np.int64, 4, elements=st.integers(0, 7)))
def test_recognition_equals_a_plain_count(scores, label):
    found = recognition_metrics(scores, label)
    for k in (1, 5):
        right = sum(
            sum(not scores[v, c] < scores[v, label[v]] for c in range(8) if c != label[v]) < k
            for v in range(4)
        )
        assert found[f"top-{k}"] == 100 * right / 4


@pytest.mark.parametrize("label", [[0], [0, 1, 2], [0, 3]])
def test_labels_that_do_not_fit_are_refused(label):
    with pytest.raises(InputError):
        recognition_metrics(np.zeros((2, 3)), label)
