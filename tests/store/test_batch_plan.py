import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.batch_plan import BatchPlan, rank_strip, shuffled
from store.errors import InputError


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.integers(1, 12), st.integers(0, 3))
def test_an_epoch_holds_every_row_once_but_for_the_tail(
    videos: list[int], batch_size: int, epoch: int
) -> None:
    if batch_size > len(videos):
        return
    plan = BatchPlan(np.array(videos), batch_size, seed=0)
    batches = plan.epoch(epoch)
    assert batches.rows.shape == (plan.steps_per_epoch, batch_size)
    assert len(np.unique(batches.rows)) == batches.rows.size
    assert batches.dropped == len(videos) - batches.rows.size < batch_size
    repeats = sum(batch_size - len(np.unique(plan.row_video[rows])) for rows in batches.rows)
    assert batches.siblings == repeats


def test_captions_of_one_video_meet_in_no_batch_while_other_videos_are_left() -> None:
    row_video = np.repeat(np.arange(50), 20)
    batches = BatchPlan(row_video, 16, seed=1).epoch(0)
    early = row_video[batches.rows[: len(batches.rows) * 3 // 4]]
    assert all(len(np.unique(videos)) == 16 for videos in early)
    assert batches.siblings < 0.02 * batches.rows.size


def test_captions_of_too_few_videos_still_fill_the_batches() -> None:
    batches = BatchPlan(np.repeat(np.arange(3), 8), 8, seed=0).epoch(0)
    assert batches.rows.shape == (3, 8)
    assert batches.dropped == 0
    assert batches.siblings == 3 * 5


def test_another_seed_or_epoch_gives_another_order_and_the_same_one_the_same() -> None:
    plan = BatchPlan(np.arange(100), 10, seed=7)
    assert np.array_equal(plan.epoch(3).rows, BatchPlan(np.arange(100), 10, seed=7).epoch(3).rows)
    assert not np.array_equal(plan.epoch(3).rows, plan.epoch(4).rows)
    assert not np.array_equal(plan.epoch(3).rows, BatchPlan(np.arange(100), 10, seed=8).epoch(3).rows)


def test_the_order_of_a_seed_stays_what_published_runs_used() -> None:
    assert shuffled(8, seed=3, epoch=2).tolist() == [2, 4, 1, 3, 6, 5, 0, 7]


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    with pytest.raises(InputError, match="smaller --batch-size"):
        BatchPlan(np.arange(10), 16, seed=0)


VIDEOS = st.lists(st.integers(0, 9), min_size=4, max_size=60)


@settings(deadline=None, max_examples=60)
@given(VIDEOS, st.integers(1, 4), st.integers(0, 5), st.sampled_from([1, 2, 4]))
def test_every_world_size_sees_the_same_batches_in_the_same_order(
    videos: list[int], share: int, epoch: int, world_size: int
) -> None:
    batch_size = share * 4
    if batch_size > len(videos):
        return
    rows = BatchPlan(np.array(videos), batch_size, seed=3).epoch(epoch).rows
    strips = [rows[:, rank_strip(batch_size, rank, world_size)] for rank in range(world_size)]
    assert all(strip.shape[1] == batch_size // world_size for strip in strips)
    assert np.array_equal(np.concatenate(strips, axis=1), rows)


@settings(deadline=None, max_examples=60)
@given(VIDEOS, st.integers(1, 8), st.data())
def test_a_resume_at_any_step_goes_on_with_exactly_the_steps_that_were_left(
    videos: list[int], batch_size: int, data: st.DataObject
) -> None:
    if batch_size > len(videos):
        return
    plan = BatchPlan(np.array(videos), batch_size, seed=1)
    behind = data.draw(st.integers(0, 3 * plan.steps_per_epoch))
    stop = data.draw(st.integers(0, behind))
    undisturbed = np.concatenate([plan.epoch(epoch).rows for epoch in range(3)])[:behind]
    resumed = BatchPlan(np.array(videos), batch_size, seed=1)
    went = [*plan.steps(0, stop), *resumed.steps(stop, behind)]
    assert len(went) == behind
    assert all(np.array_equal(rows, expected) for rows, expected in zip(went, undisturbed, strict=True))


def test_a_batch_that_the_processes_can_not_share_evenly_is_refused() -> None:
    with pytest.raises(InputError, match="batch of 6 can't be split over 4"):
        rank_strip(6, 0, 4)
    with pytest.raises(InputError, match="ranks go from 0 to 1, got 2"):
        rank_strip(8, 2, 2)
