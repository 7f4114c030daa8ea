"""Classes of videos that are seen several times, held to the metrics of the mean probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.retrieval_metrics import RECOGNITION_METRICS, recognition_metrics
from student_train.evaluation.recognition import over_renditions
from student_train.evaluation.rows import ClassRows


def rows_of(label: np.ndarray, classes: int) -> ClassRows:
    return ClassRows(np.arange(len(label)), np.arange(classes), label, 0)


def softmax(values: np.ndarray) -> np.ndarray:
    exp = np.exp(values - values.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 4), st.integers(0, 9999), st.integers(1, 6))
def test_probabilities_of_renditions_are_averaged_before_they_are_ranked(
    videos: int, classes: int, renditions: int, seed: int, strip: int
) -> None:
    rng = np.random.default_rng(seed)
    logits_RVC = rng.normal(0, 3, (renditions, videos, classes))
    label = rng.integers(0, classes, videos)
    with pytest.MonkeyPatch.context() as context:
        context.setattr("student_train.evaluation.rows.ROWS_AT_ONCE", strip)
        found = over_renditions(
            lambda places, rendition: logits_RVC[rendition, places], rows_of(label, classes), renditions
        )
    assert found.metrics == recognition_metrics(softmax(logits_RVC).mean(0), label)
    assert tuple(found.metrics) == RECOGNITION_METRICS
    assert found.renditions == renditions


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_that_says_the_same_of_every_class_is_never_right(value: float) -> None:
    found = over_renditions(
        lambda places, _: np.full((len(places), 10), value), rows_of(np.arange(10), 10), 2
    )
    assert set(found.metrics.values()) == {0.0}
