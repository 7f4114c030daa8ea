"""Metrics from blocks equal those from the whole V x T, and never hold it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store.errors import InputError, UnknownNameError
from store.inputs.protocol import RETRIEVAL_PROTOCOLS
from store.retrieval_metrics import retrieval_metrics
from store.streamed_ranks import ScoreBlock, streamed_metrics, undirected

FEW_VALUES = st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("nan"), float("inf"), float("-inf")])
ONE_TEXT_A_VIDEO = ("single-caption", "paragraph")


def blocks_of(scores: np.ndarray) -> ScoreBlock:
    return undirected(lambda videos, texts: scores[np.ix_(videos, texts)])


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, str, np.ndarray]:
    """Scores [V, T] with ties, NaN and infinities, texts as the protocol allows, equal ones among them."""
    protocol = draw(st.sampled_from(RETRIEVAL_PROTOCOLS))
    videos = draw(st.integers(1, 9))
    if protocol in ONE_TEXT_A_VIDEO:
        text_video = np.array(draw(st.permutations(range(videos)))[: draw(st.integers(1, videos))])
    else:
        count = draw(st.integers(1, 14))
        text_video = draw(arrays(np.int64, count, elements=st.integers(0, videos - 1)))
    texts = len(text_video)
    scores = draw(
        arrays(draw(st.sampled_from([np.float16, np.float64])), (videos, texts), elements=FEW_VALUES)
    )
    keys = draw(arrays(np.int64, texts, elements=st.integers(5, 8)))
    return scores, text_video, protocol, keys


@given(cases(), st.integers(1, 6))
def test_metrics_from_blocks_equal_those_from_the_whole(case, rows_at_once: int) -> None:
    scores, text_video, protocol, keys = case
    found = streamed_metrics(blocks_of(scores), len(scores), text_video, protocol, keys, rows_at_once)
    assert found == retrieval_metrics(scores, text_video, protocol, keys)


@given(cases(), st.integers(1, 6))
def test_no_block_is_larger_than_asked_but_for_a_video_with_more_texts(case, rows_at_once: int) -> None:
    scores, text_video, protocol, keys = case
    most = rows_at_once - 1 + np.bincount(text_video).max()

    def small(videos: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert len(videos) <= rows_at_once
        assert len(texts) <= most
        return blocks_of(scores)(videos, texts)

    streamed_metrics(small, len(scores), text_video, protocol, keys, rows_at_once)


@pytest.mark.parametrize("protocol", ["single-caption", "multi-caption", "equal-captions"])
def test_peak_memory_is_a_few_blocks_whatever_the_number_of_pairs(protocol: str) -> None:
    rng = np.random.default_rng(0)
    count, rows_at_once = 3000, 128
    video = rng.normal(size=(count, 8)).astype(np.float32)
    text = video + rng.normal(size=(count, 8)).astype(np.float32)
    scores = undirected(lambda videos, texts: video[videos] @ text[texts].T)
    keys = np.arange(count) // 2
    tracemalloc.start()
    try:
        streamed_metrics(scores, count, np.arange(count), protocol, keys, rows_at_once)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 4 * rows_at_once**2 + 200 * count
    assert peak < 4 * count * count / 20, "a twentieth of the scores in float32"


def test_each_direction_ranks_by_its_own_scores() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 6))
    nothing = np.zeros_like(scores)

    def block(videos: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = np.ix_(videos, texts)
        return scores[places], nothing[places]

    found = streamed_metrics(block, 6, np.arange(6))
    assert found["text_to_video"] == retrieval_metrics(scores, np.arange(6))["text_to_video"]
    assert found["video_to_text"] == retrieval_metrics(nothing, np.arange(6))["video_to_text"]


@pytest.mark.parametrize("text_video", [[], [0, 2], [-1, 0], [0.0, 1.0], [[0, 1]]])
def test_texts_that_name_no_video_are_refused(text_video: list) -> None:
    with pytest.raises(InputError, match="row numbers from 0 to 1"):
        streamed_metrics(blocks_of(np.zeros((2, 2))), 2, text_video)


def test_an_unknown_protocol_and_missing_keys_are_refused() -> None:
    scores = blocks_of(np.zeros((2, 2)))
    with pytest.raises(UnknownNameError, match="did you mean 'single-caption'"):
        streamed_metrics(scores, 2, [0, 1], "single-captions")
    with pytest.raises(InputError, match="needs text_key"):
        streamed_metrics(scores, 2, [0, 1], "equal-captions")
    with pytest.raises(InputError, match="one text a video"):
        streamed_metrics(scores, 2, [0, 0], "single-caption")
