import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store.errors import InputError
from store.retrieval_metrics import (
    METRICS,
    retrieval_metrics,
    text_to_video_ranks,
    video_to_text_ranks,
)

FEW_VALUES = st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("nan"), float("inf"), float("-inf")])


@st.composite
def scored_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores [V, T] with many ties, NaN and infinities; several or no texts for a video."""
    videos, texts = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    scores = draw(arrays(np.float64, (videos, texts), elements=FEW_VALUES))
    text_video = draw(arrays(np.int64, texts, elements=st.integers(0, videos - 1)))
    return scores, text_video


def plain_text_to_video_rank(scores: np.ndarray, text_video: np.ndarray, text: int) -> int:
    rank = 1
    for video in range(scores.shape[0]):
        if video != text_video[text] and not scores[video, text] < scores[text_video[text], text]:
            rank += 1
    return rank


def plain_video_to_text_rank(scores: np.ndarray, text_video: np.ndarray, video: int) -> int | None:
    ranks = []
    for own in np.flatnonzero(text_video == video):
        rank = 1
        for other in range(scores.shape[1]):
            if text_video[other] != video and not scores[video, other] < scores[video, own]:
                rank += 1
        ranks.append(rank)
    return min(ranks, default=None)


@given(scored_pairs())
def test_ranks_equal_a_plain_count_one_pair_at_a_time(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    scores, text_video = pairs
    texts, videos = range(scores.shape[1]), range(scores.shape[0])
    assert text_to_video_ranks(scores, text_video).tolist() == [
        plain_text_to_video_rank(scores, text_video, text) for text in texts
    ]
    plain = [plain_video_to_text_rank(scores, text_video, video) for video in videos]
    assert video_to_text_ranks(scores, text_video).tolist() == [rank for rank in plain if rank is not None]


@given(scored_pairs(), st.integers(0, 7), st.integers(0, 5))
def test_a_score_turned_into_nan_never_improves_a_metric(
    pairs: tuple[np.ndarray, np.ndarray], text: int, video: int
) -> None:
    scores, text_video = pairs
    broken = scores.copy()
    broken[video % scores.shape[0], text % scores.shape[1]] = np.nan
    assert np.all(text_to_video_ranks(broken, text_video) >= text_to_video_ranks(scores, text_video))
    assert np.all(video_to_text_ranks(broken, text_video) >= video_to_text_ranks(scores, text_video))


def test_a_perfect_model_has_every_recall_at_100() -> None:
    metrics = retrieval_metrics(np.eye(12), np.arange(12))
    for direction in metrics.values():
        assert list(direction) == list(METRICS)
        assert direction == {"R@1": 100, "R@5": 100, "R@10": 100, "MdR": 1, "MnR": 1, "SumR": 300}


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_that_says_the_same_of_every_pair_ranks_last(value: float) -> None:
    metrics = retrieval_metrics(np.full((20, 20), value), np.arange(20))
    for direction in metrics.values():
        assert direction["SumR"] == 0
        assert direction["MdR"] == 20


def test_a_video_counts_by_its_best_caption() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.2, 0.3, 0.4]])
    assert video_to_text_ranks(scores, np.array([0, 0, 1])).tolist() == [1, 1]
    assert text_to_video_ranks(scores, np.array([0, 0, 1])).tolist() == [2, 1, 2]


def test_transposed_scores_are_refused_with_both_shapes() -> None:
    with pytest.raises(InputError, match=r"\(3, 2\) and \(3,\)"):
        retrieval_metrics(np.zeros((3, 2)), np.zeros(3, np.int64))


def test_a_text_of_a_video_that_is_not_scored_is_refused() -> None:
    with pytest.raises(InputError, match="0 to 1"):
        retrieval_metrics(np.zeros((2, 2)), np.array([0, 2]))
