"""One question, four layouts: what a layout knows equals the teacher's score, all else is unknown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.durable import ObjectRecord
from store.errors import IdentityError, InputError, UnknownNameError
from store.ledger import Commit
from store.pair_scores import PairScores, PlannedScores, TopkScores, places_in
from store.plans import PlannedBatches
from store.publication import planned_signal_arrays
from store.reader import open_cache
from store.shards import ShardFile
from store.signals import SignalSpec
from store.writer import CacheWriter
from tests.synthetic_cache import (
    SIGNALS,
    shard_commits,
    synthetic_plan,
    synthetic_samples,
    write_synthetic_cache,
)

VIDEOS, CAPTIONS = 12, 2
TEXTS = VIDEOS * CAPTIONS


def teacher_logits(videos=VIDEOS, texts=TEXTS, seed=0):
    return np.random.default_rng(seed).normal(size=(videos, texts)).astype(np.float16)


def drawn(epochs=3, batch=5, seed=1):
    return PlannedBatches.draw("train", np.arange(TEXTS) // CAPTIONS, np.arange(TEXTS), batch, epochs, seed)


class Blocks:
    """Stands for the shards of `planned_scores`: blocks in RAM."""

    def __init__(self, batches, logits):
        self.blocks = np.stack(
            [logits[v[:, None], t] for v, t in zip(batches.video, batches.text, strict=True)]
        )
        self.reads = 0

    def read(self, rows):
        self.reads += len(rows)
        return self.blocks[rows]


def in_one_step(batches, video, text):
    """By brute force: whether some step holds both."""
    return any(video in v and text in t for v, t in zip(batches.video, batches.text, strict=True))


def test_replaying_a_plan_reads_one_block_a_step():
    batches, logits = drawn(), teacher_logits()
    blocks = Blocks(batches, logits)
    scorer = PlannedScores(batches, blocks)
    for video, text in zip(batches.video, batches.text, strict=True):
        scores, known = scorer.score(video, text)
        assert known.all()
        np.testing.assert_array_equal(scores, logits[video[:, None], text].astype(np.float32))
    assert blocks.reads == batches.steps


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_read_their_strips_of_a_planned_block(world):
    batches, logits = drawn(batch=8), teacher_logits()
    scorer = PlannedScores(batches, Blocks(batches, logits))
    step = batches.steps - 1
    for rank in range(world):
        mine = slice(rank * 8 // world, (rank + 1) * 8 // world)
        scores, known = scorer.score(batches.video[step][mine], batches.text[step])
        assert known.all()
        np.testing.assert_array_equal(scores, logits[batches.video[step][mine][:, None], batches.text[step]])


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, VIDEOS - 1), min_size=1, max_size=7),
    st.lists(st.integers(0, TEXTS - 1), min_size=1, max_size=7),
)
def test_a_planned_pair_is_known_exactly_where_a_step_holds_both(videos, texts):
    batches, logits = drawn(), teacher_logits()
    scores, known = PlannedScores(batches, Blocks(batches, logits)).score(np.array(videos), np.array(texts))
    for place, video in enumerate(videos):
        for column, text in enumerate(texts):
            assert known[place, column] == in_one_step(batches, video, text)
            if known[place, column]:
                assert scores[place, column] == logits[video, text]
            else:
                assert np.isnan(scores[place, column])


def test_rows_that_no_plan_holds_are_unknown():
    batches, logits = drawn(), teacher_logits()
    scores, known = PlannedScores(batches, Blocks(batches, logits)).score(np.array([0, 99]), np.array([500]))
    assert not known.any()
    assert np.isnan(scores).all()


@settings(max_examples=60)
@given(
    st.integers(0, 99),
    st.lists(st.integers(0, VIDEOS - 1), min_size=1, max_size=7),
    st.lists(st.integers(0, TEXTS - 1), min_size=1, max_size=7),
)
def test_topk_knows_what_either_direction_ranked(seed, videos, texts):
    logits = teacher_logits(seed=seed)
    of_video = np.argsort(-logits, axis=1)[:, :3].astype(np.int32)
    of_text = np.argsort(-logits, axis=0)[:2].T.astype(np.int32)
    of_video[4, 1:] = -1
    scorer = TopkScores(
        (of_video, np.take_along_axis(logits, of_video, 1)),
        (of_text, np.take_along_axis(logits.T, of_text, 1)),
    )
    scores, known = scorer.score(np.array(videos), np.array(texts))
    for place, video in enumerate(videos):
        for column, text in enumerate(texts):
            assert known[place, column] == (text in of_video[video] or video in of_text[text])
            assert not known[place, column] or scores[place, column] == logits[video, text]
    assert np.isnan(scores[~known]).all()


@given(st.lists(st.integers(0, 9), min_size=1, unique=True), st.lists(st.integers(-1, 12), max_size=8))
def test_places_are_where_rows_stand(rows, wanted):
    place, found = places_in(np.array(rows), np.array(wanted, dtype=np.int64))
    for value, at, there in zip(wanted, place.tolist(), found.tolist(), strict=True):
        assert there == (value in rows)
        assert at == (rows.index(value) if there else 0)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 50))
def test_a_plan_draws_each_text_at_most_once_an_epoch(batch, epochs, seed):
    batches = drawn(epochs, batch, seed)
    assert batches.text.shape == (epochs * (TEXTS // batch), batch)
    np.testing.assert_array_equal(batches.video, batches.text // CAPTIONS)
    for epoch in np.split(batches.text, epochs):
        assert len(np.unique(epoch)) == epoch.size
    again = PlannedBatches.from_dict(batches.to_dict(), batches.video, batches.text)
    assert again.to_dict() == batches.to_dict()


def write_planned_cache(root, batches, logits):
    samples = synthetic_samples(VIDEOS, CAPTIONS)
    scored = SignalSpec("planned_scores/p", {"B": batches.batch_size}, attributes={"logit_scale": 20.0})
    plan = synthetic_plan(samples, signals=(*SIGNALS[:1], SIGNALS[2], scored), shard_rows=4)
    features = synthetic_plan(samples, signals=plan.signals[:2], shard_rows=4)
    with CacheWriter(root, samples) as writer:
        writer.plan(plan)
        writer.add_batch_plan("p", batches)
        for commit in shard_commits(root, samples, features):
            writer.commit(commit)
        array = planned_signal_arrays(plan, scored, writer.counts)[""]
        blocks = Blocks(batches, logits).blocks
        for number in range(array.shard_count):
            writer.commit(
                Commit(f"{plan.name}/planned/{number}", (write_blocks(root, array, number, blocks),))
            )
        writer.complete(plan, [commit.task for commit in writer.ledger if commit.task != "tables"])
    return samples


def write_blocks(root, array, number, blocks) -> ObjectRecord:
    with ShardFile(root, "teachers/synthetic/planned_scores/p", array, number) as shard:
        for row in range(number * 4, min(number * 4 + 4, len(blocks))):
            shard.append(row, blocks[row])
        return shard.finish()


def test_planned_scores_are_read_back_from_a_cache(tmp_path):
    batches, logits = drawn(), teacher_logits()
    samples = write_planned_cache(tmp_path / "c.zarr", batches, logits)
    teacher = open_cache(tmp_path / "c.zarr").teacher("synthetic")
    assert teacher.pair_layout == PairScores("planned", 20.0, plan="p")
    for step in (0, batches.steps - 1):
        scores, known = teacher.pair_scores(batches.video[step], batches.text[step])
        assert known.all()
        np.testing.assert_array_equal(scores, logits[batches.video[step][:, None], batches.text[step]])
    stored = teacher.cache.batch_plan("p")
    np.testing.assert_array_equal(stored.text, batches.text)
    with pytest.raises(UnknownNameError, match="batch plan"):
        teacher.cache.batch_plan("q")
    with (
        CacheWriter(tmp_path / "c.zarr", samples) as writer,
        pytest.raises(IdentityError, match=r"batch plan 'p'.*differs in seed"),
    ):
        writer.add_batch_plan("p", drawn(seed=2))


def test_planned_scores_without_their_plan_are_refused(tmp_path):
    samples = synthetic_samples(VIDEOS, CAPTIONS)
    plan = synthetic_plan(samples, signals=(*SIGNALS[:1], SignalSpec("planned_scores/p", {"B": 5})))
    with (
        CacheWriter(tmp_path / "c.zarr", samples) as writer,
        pytest.raises(InputError, match="draw it first"),
    ):
        planned_signal_arrays(plan, plan.signals[1], writer.counts)


def test_siblings_are_other_captions_of_the_same_video(tmp_path):
    write_planned_cache(tmp_path / "c.zarr", drawn(), teacher_logits())
    siblings = open_cache(tmp_path / "c.zarr").siblings(np.array([0, 3, 1, 7]))
    assert siblings.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("videos", "texts", "words"), [([-1], [0], "video row -1"), ([0], [24], "text row 24")]
)
@pytest.mark.parametrize("signals", [SIGNALS, (SIGNALS[0], SIGNALS[2])])
def test_rows_that_are_none_are_refused_whatever_was_asked_before(tmp_path, signals, videos, texts, words):
    root = write_synthetic_cache(tmp_path / "c.zarr", synthetic_samples(VIDEOS, CAPTIONS), signals=signals)
    teacher = open_cache(root).teacher("synthetic")
    for _ in range(2):
        with pytest.raises(InputError, match=f"no {words}"):
            teacher.pair_scores(np.array(videos), np.array(texts))
        teacher.pair_scores(np.arange(VIDEOS), np.arange(TEXTS))
