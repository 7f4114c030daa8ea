"""Dual softmax and query banks in blocks, held to their formulas on the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_train.evaluation import reweighting
from student_train.evaluation.reweighting import Bank, Scores, dual_softmax, query_bank


def of(scores: np.ndarray) -> Scores:
    return lambda rows, columns: scores[np.ix_(rows, columns)]


def softmax(values: np.ndarray, axis: int) -> np.ndarray:
    exp = np.exp(values - values.max(axis=axis, keepdims=True))
    return exp / exp.sum(axis=axis, keepdims=True)


def everything(block, videos: int, texts: int) -> tuple[np.ndarray, np.ndarray]:
    return block(np.arange(videos), np.arange(texts))


CASES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_dual_softmax_multiplies_by_the_softmax_over_the_queries(case) -> None:
    videos, texts, seed, rows = case
    scores = np.random.default_rng(seed).normal(0, 3, (videos, texts)).astype(np.float32)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(reweighting, "ROWS_AT_ONCE", rows)
        by_text, by_video = everything(dual_softmax(of(scores), videos, texts, 2.0), videos, texts)
    wide = scores.astype(np.float64)
    assert np.allclose(by_text, wide * softmax(wide / 2, axis=1))
    assert np.allclose(by_video, wide * softmax(wide / 2, axis=0))


def plain_query_bank(queries_QC: np.ndarray, bank_BC: np.ndarray, beta: float) -> np.ndarray:
    """Dynamic inverted softmax as the paper writes it, query by query; raw scores elsewhere."""
    found_by_bank = set(bank_BC.argmax(axis=1).tolist())
    normaliser = np.exp(beta * bank_BC).sum(axis=0)
    return np.stack(
        [
            np.log(np.exp(beta * row) / normaliser) if row.argmax() in found_by_bank else row
            for row in queries_QC
        ]
    )


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(1, 7))
def test_a_query_bank_divides_by_what_it_says_of_a_candidate_that_it_finds_too(case, bank_size: int) -> None:
    videos, texts, seed, rows = case
    rng = np.random.default_rng(seed)
    scores, of_texts, of_videos = (
        rng.normal(size=shape) for shape in ((videos, texts), (videos, bank_size), (bank_size + 1, texts))
    )
    with pytest.MonkeyPatch.context() as context:
        context.setattr(reweighting, "ROWS_AT_ONCE", rows)
        bank = Bank(of(of_texts), of(of_videos), bank_size + 1, bank_size)
        by_text, by_video = everything(query_bank(of(scores), videos, texts, bank, 1.5), videos, texts)
    assert np.allclose(by_text.T, plain_query_bank(scores.T, of_texts.T, 1.5))
    assert np.allclose(by_video, plain_query_bank(scores, of_videos, 1.5))


def test_a_video_that_every_query_is_drawn_to_loses_its_pull() -> None:
    """A hub: closest to all texts, a little closer than their own videos are."""
    scores = np.eye(5) * 10
    scores[0] = 10.5
    by_text, _ = everything(dual_softmax(of(scores), 5, 5, 1.0), 5, 5)
    assert scores[:, 1:].argmax(axis=0).tolist() == [0, 0, 0, 0]
    assert by_text[:, 1:].argmax(axis=0).tolist() == [1, 2, 3, 4]


def test_scores_of_any_size_neither_overflow_nor_vanish() -> None:
    scores = np.array([[900.0, -900.0], [-900.0, 901.0]])
    bank = Bank(of(scores), of(scores), 2, 2)
    for block in (dual_softmax(of(scores), 2, 2, 1.0), query_bank(of(scores), 2, 2, bank, 1.0)):
        for found in everything(block, 2, 2):
            assert np.isfinite(found).all()
            assert found.argmax(axis=0).tolist() == [0, 1]
