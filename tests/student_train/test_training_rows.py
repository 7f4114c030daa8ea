"""Which rows a recogniser trains on: videos with their classes, all of them or a few of each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import InputError
from student_train.teachers import Teachers
from student_train.training_rows import PairedRows, few_of_each, training_rows

CLASSES = 3


def teachers_of(classes: tuple[int, ...] | None = None, prompts: int = 2) -> Teachers:
    """12 videos of 3 classes in turn, named in two prompts after 12 captions; video 4 did not decode."""
    names = np.full(prompts * CLASSES, -1)
    video = np.arange(12)
    splits = {
        "train": SimpleNamespace(video=video[:9], text=video[:9]),
        "test": SimpleNamespace(video=video[9:], text=video[9:]),
    }
    cache = SimpleNamespace(
        path=SimpleNamespace(name="classes"),
        dataset={"prompts": ["a {}", "b {}"][:prompts]},
        text_video=np.concatenate([video, names]),
        video_class=12 + video % CLASSES,
        splits=splits,
        split=splits.__getitem__,
    )
    main = SimpleNamespace(cache=cache, video_usable=video != 4, text_usable=np.ones(18, bool))
    return Teachers(main, {}, classes)  # type: ignore[arg-type]


def test_a_recogniser_trains_on_videos_with_their_classs_text_though_there_are_captions() -> None:
    teachers = teachers_of()
    rows = training_rows(teachers.cache, teachers, recognises=True)
    assert rows.video.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert rows.text.tolist() == [12 + video % CLASSES for video in rows.video]
    assert rows.left_out == 1


def test_classes_that_are_left_out_have_no_rows_and_the_others_count_from_0() -> None:
    teachers = teachers_of(classes=(2, 0))
    assert teachers.class_text.tolist() == [[14, 12], [17, 15]]
    assert teachers.class_numbers(np.arange(6)).tolist() == [1, -1, 0, 1, -1, 0]
    rows = training_rows(teachers.cache, teachers, recognises=True)
    assert set(rows.text) == {12, 14}


@pytest.mark.parametrize("classes", [(), (0, 3), (-1,)])
def test_classes_that_the_cache_has_not_are_refused(classes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="has 3 classes"):
        _ = teachers_of(classes).class_text


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**40), st.integers(1, 6))
def test_few_shots_are_as_many_of_every_class_and_a_seed_draws_them_again(
    shots: int, seed: int, classes: int
) -> None:
    video = np.arange(6 * classes)
    rows = PairedRows(100 + video % classes, video, 0)
    few, again = few_of_each(rows, shots, seed), few_of_each(rows, shots, seed)
    assert np.bincount(few.text - 100, minlength=classes).tolist() == [shots] * classes
    assert np.array_equal(few.video, again.video)
    assert np.array_equal(few.text, 100 + few.video % classes)


def test_other_seeds_draw_other_videos() -> None:
    rows = PairedRows(np.zeros(30, int), np.arange(30), 0)
    assert len({tuple(few_of_each(rows, 3, seed).video) for seed in range(10)}) > 5


def test_more_shots_than_a_class_has_videos_are_refused() -> None:
    rows = PairedRows(np.array([7, 7, 8]), np.arange(3), 0)
    with pytest.raises(InputError, match=r"text row 8\) has 1"):
        few_of_each(rows, 2, 0)
