import numpy as np
import pytest

from store.reader import Cache, TeacherReader
from student_train.evaluation.frame_weights import Visibility, agreement, visibility
from student_train.evaluation.retrieval import teacher_frame_weight
from student_train.evaluation.rows import split_rows
from student_train.teachers import Teachers

VISIBLE = np.array([[False, True, True, False], [True, False, False, False]])
VALID = np.array([[True, True, True, True], [True, True, False, False]])
SEEN = Visibility(np.array([0, 1]), VISIBLE, VALID)


def test_uniform_weights_score_the_share_of_visible_frames_and_half_an_auc() -> None:
    assert agreement(SEEN.uniform, SEEN) == pytest.approx({"mass": 0.5, "hit@1": 0.5, "auc": 0.5})


def test_weights_on_visible_frames_only_score_one() -> None:
    assert agreement(VISIBLE * 0.5, SEEN) == pytest.approx({"mass": 1, "hit@1": 1, "auc": 1})


def test_weights_on_hidden_frames_only_score_nothing() -> None:
    assert agreement(VALID & ~VISIBLE, SEEN) == pytest.approx({"mass": 0, "hit@1": 0, "auc": 0})


def test_agreement_equals_a_plain_count() -> None:
    weight = np.random.default_rng(0).integers(1, 4, VALID.shape) * VALID
    masses, hits, aucs = [], [], []
    for w, visible, valid in zip(weight, VISIBLE, VALID, strict=True):
        shown, hidden = w[visible], w[valid & ~visible]
        masses.append(shown.sum() / w.sum())
        top = np.flatnonzero(w == w.max())
        hits.append(np.mean([visible[m] for m in top]))
        aucs.append(np.mean([(a > b) + 0.5 * (a == b) for a in shown for b in hidden]))
    expected = {"mass": np.mean(masses), "hit@1": np.mean(hits), "auc": np.mean(aucs)}
    assert agreement(weight, SEEN) == pytest.approx(expected)


def test_a_frame_is_visible_from_the_start_of_the_moment_up_to_its_end(
    learnable: Cache, oracle: TeacherReader
) -> None:
    rows = split_rows(learnable, Teachers(oracle), "test")
    seen = visibility(learnable, oracle, rows)
    assert seen.rows.tolist() == list(range(40))
    assert (seen.visible.sum(1) == 2).all()
    first = learnable.moment_s[rows.video[rows.text_video], 0]
    assert np.array_equal(seen.visible.argmax(1), first)


def test_the_teacher_that_made_the_relevance_agrees_with_what_is_visible(
    learnable: Cache, oracle: TeacherReader
) -> None:
    rows = split_rows(learnable, Teachers(oracle), "test")
    weight = teacher_frame_weight(oracle, rows)
    assert weight is not None
    assert agreement(weight, visibility(learnable, oracle, rows))["mass"] > 0.9
