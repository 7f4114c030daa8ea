import numpy as np
import pytest
import torch

from store.errors import InputError, UnknownNameError
from store.inputs.samples import Samples, Split
from store.plans import PlannedBatches
from store.reader import Cache, TeacherReader, open_cache
from store.signals import SignalSpec
from student_train.needs import PAIR_SCORES, PIXELS
from student_train.row_tensors import frame_distribution
from student_train.rows import PairBlock
from student_train.step_source import StepSource
from student_train.stream import TrainingStream, order_of, replayed
from student_train.teachers import Teachers
from student_train.training_rows import training_rows
from tests.student_train.learnable_cache import (
    FRAMES,
    SIGNALS,
    WIDTH,
    learnable_samples,
    write_learnable_cache,
)

EVERYTHING = ("frame_embedding", "text_embedding", PAIR_SCORES, "frame_relevance")


def stream_of(
    cache: Cache, teacher: TeacherReader, needs: tuple[str, ...] = EVERYTHING, **options
) -> TrainingStream:
    settings = {"batch_size": 16, "seed": 0, **options}
    rows, teachers = training_rows(cache, teacher), Teachers(teacher)
    return TrainingStream(rows, teachers, needs, order_of(rows, teachers, needs, **settings))


def batches(
    stream: TrainingStream, first: int, behind: int, siblings_are_negatives: bool = False
) -> list[dict]:
    """Copies, since the stream uses its memory again."""
    with stream.steps(first, behind, False, torch.device("cpu")) as feed:
        return [copied(step.batch) for step in feed]


def copied(batch: dict) -> dict:
    return {
        name: value.map(torch.clone) if isinstance(value, PairBlock) else value.clone()
        for name, value in batch.items()
    }


def batch_of(stream: TrainingStream, rows: np.ndarray, siblings_are_negatives: bool = False) -> dict:
    """The batch of chosen training rows."""
    source = StepSource(
        stream.teachers, stream.needs, slice(0, len(rows)), siblings_are_negatives, torch.device("cpu")
    )
    return source.batch((), stream.rows.video[rows], stream.rows.text[rows]).batch


def with_splits(splits: dict[str, Split]) -> Samples:
    made = learnable_samples()
    return Samples(made.name, made.card, made.videos, made.texts, splits)


def test_a_batch_holds_each_text_with_its_own_video(learnable: Cache, oracle: TeacherReader) -> None:
    stream = stream_of(learnable, oracle)
    rows = np.array([3, 0, 7])
    batch = batch_of(stream, rows)
    text, video = stream.rows.text[rows], stream.rows.video[rows]
    assert np.array_equal(learnable.text_video[text], video)
    assert np.array_equal(batch["text_embedding"].numpy(), oracle.read("text_embedding", text))
    assert np.array_equal(batch["frame_embedding"].numpy(), oracle.read("frame_embedding", video)[:, 0])
    assert batch["frame_embedding"].shape == (3, FRAMES, WIDTH)
    assert batch["pair_scores"].rows.argmax(0).tolist() == [0, 1, 2]
    assert torch.allclose(batch["frame_relevance"].sum(-1), torch.ones(3))
    scores = batch.pop("pair_scores")
    assert scores.rows.dtype == torch.float32
    assert all(value.dtype in (torch.float32, torch.bool) for value in batch.values())


def test_only_needed_signals_are_read(learnable: Cache, oracle: TeacherReader) -> None:
    batch = batches(stream_of(learnable, oracle, ("text_embedding",)), 0, 1)[0]
    assert set(batch) == {"text_embedding", "frame_valid"}


def test_the_same_seed_and_epoch_give_the_same_batches(learnable: Cache, oracle: TeacherReader) -> None:
    first = [batch["text_embedding"] for batch in batches(stream_of(learnable, oracle), 3, 6)]
    again = [batch["text_embedding"] for batch in batches(stream_of(learnable, oracle), 3, 6)]
    other = [batch["text_embedding"] for batch in batches(stream_of(learnable, oracle, seed=1), 3, 6)]
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    assert len(first) == 48 // 16


def test_siblings_are_left_out_of_the_negatives_unless_the_recipe_counts_them(tmp_path) -> None:
    cache = open_cache(
        write_learnable_cache(tmp_path / "c.zarr", learnable_samples({"train": 6}, captions=4))
    )
    stream = stream_of(cache, cache.teacher("oracle"))
    batch = batch_of(stream, np.arange(8), False)
    expected = torch.block_diag(torch.ones(4, 4), torch.ones(4, 4)) - torch.eye(8)
    assert torch.equal(batch["ignored_pair"].rows, expected.bool())
    assert "ignored_pair" not in batch_of(stream, np.arange(8), True)
    assert "ignored_pair" not in batch_of(stream, np.arange(0, 24, 4), False)


def test_videos_that_did_not_decode_are_left_out_and_counted(tmp_path) -> None:
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", failed=frozenset({0, 5, 50})))
    rows = training_rows(cache, cache.teacher("oracle"))
    assert rows.left_out == 2
    assert not {0, 5} & set(rows.video.tolist())
    assert len(rows.text) == 46


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_row_that_is_also_held_out_is_refused(tmp_path, held_out: str) -> None:
    splits = {
        "train": Split(np.arange(20), np.arange(20)),
        held_out: Split(np.arange(19, 30), np.arange(19, 30)),
    }
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", with_splits(splits)))
    with pytest.raises(InputError, match=f"row 19 .* in split 'train' and in '{held_out}'"):
        training_rows(cache, cache.teacher("oracle"))


def test_a_cache_without_a_train_split_says_what_there_is(tmp_path) -> None:
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", learnable_samples({"trian": 8})))
    with pytest.raises(UnknownNameError, match="'train'; did you mean 'trian'"):
        training_rows(cache, cache.teacher("oracle"))


def test_a_signal_that_the_teacher_lacks_is_refused_with_the_command_that_adds_it(tmp_path) -> None:
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", signals=SIGNALS[:2]))
    with pytest.raises(UnknownNameError, match=r"frame_relevance.*teacher_dump dump"):
        stream_of(cache, cache.teacher("oracle"))


def test_a_teacher_without_pair_scores_is_refused_before_the_first_batch(tmp_path) -> None:
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", signals=SIGNALS[1:3]))
    with pytest.raises(UnknownNameError, match=r"stores no pair_scores.*teacher_dump dump"):
        stream_of(cache, cache.teacher("oracle"), (PAIR_SCORES,))


def test_what_is_run_for_layers_extends_and_for_frames_begins_another_cache(tmp_path) -> None:
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr"))
    layers = ("vit_layers/5", "vit_layers/11")
    with pytest.raises(UnknownNameError, match=r"--cache \S+c.zarr --teacher oracle --layers 5,11 --extend$"):
        stream_of(cache, cache.teacher("oracle"), layers)
    anew = (
        r"--cache ANOTHER_CACHE --teacher oracle --layers 5,11 --keep-pixels jpeg:90; or give .*--videos DIR$"
    )
    with pytest.raises(UnknownNameError, match=anew):
        stream_of(cache, cache.teacher("oracle"), (*layers, PIXELS))


def test_relevance_is_a_softmax_at_the_recorded_temperature_over_frames_that_exist(
    oracle: TeacherReader,
) -> None:
    score = torch.tensor([[0.0, 0.2, torch.nan]])
    weight = frame_distribution(oracle, score, torch.tensor([[True, True, False]]))
    assert weight[0].tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e), 0])


def test_a_stored_plan_is_replayed_in_its_order_and_another_batch_size_is_refused(
    learnable: Cache, oracle: TeacherReader
) -> None:
    rows = training_rows(learnable, oracle)
    plan = PlannedBatches.draw("train", rows.video, rows.text, batch_size=16, epochs=2, seed=5)
    order = replayed(plan, "p", rows, 16)
    assert order.steps_per_epoch == 3
    found = list(order.steps(4, 9))
    for step, of_step in enumerate(found, start=4):
        assert np.array_equal(rows.text[of_step], plan.text[step % 6])
        assert np.array_equal(rows.video[of_step], plan.video[step % 6])
    with pytest.raises(InputError, match=r"of 16 pairs each.* train with --batch-size 16, not 8"):
        replayed(plan, "p", rows, 8)


def test_a_plan_of_rows_that_may_not_be_trained_on_is_refused(
    learnable: Cache, oracle: TeacherReader
) -> None:
    test = learnable.split("test")
    plan = PlannedBatches.draw("test", test.video, test.text, batch_size=8, epochs=1, seed=0)
    with pytest.raises(InputError, match=r"holds text row .*, which is no training row here"):
        replayed(plan, "p", training_rows(learnable, oracle), 8)


@pytest.mark.parametrize("own", [slice(0, 4), slice(4, 8)])
def test_a_process_reads_its_strips_of_the_global_batch(
    learnable: Cache, oracle: TeacherReader, own: slice
) -> None:
    stream = stream_of(learnable, oracle)
    chosen = np.arange(8)
    whole = batch_of(stream, chosen)
    source = StepSource(stream.teachers, stream.needs, own, False, torch.device("cpu"))
    part = source.batch((), stream.rows.video[chosen], stream.rows.text[chosen]).batch
    for name in ("frame_embedding", "text_embedding", "frame_relevance", "frame_valid"):
        assert torch.equal(part[name], whole[name][own])
    scores = part["pair_scores"]
    assert torch.equal(scores.rows, whole["pair_scores"].rows[own])
    assert torch.equal(scores.columns, whole["pair_scores"].rows[:, own])
    assert scores.own.tolist() == list(range(own.start, own.stop))


def test_int8_signals_are_decoded_as_the_store_decodes_them(tmp_path) -> None:
    signals = (
        SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": WIDTH}, encoding="int8"),
        *SIGNALS[1:],
    )
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", signals=signals))
    teacher = cache.teacher("oracle")
    rows = np.array([2, 5, 1])
    batch = batch_of(stream_of(cache, teacher, ("frame_embedding",)), rows)
    video = training_rows(cache, teacher).video[rows]
    expected = teacher.read_decoded("frame_embedding", video)[:, 0]
    assert np.allclose(batch["frame_embedding"].numpy(), expected, atol=1e-6)


def test_captions_come_as_words(learnable: Cache, oracle: TeacherReader) -> None:
    stream = stream_of(learnable, oracle, ("text",))
    batch = batch_of(stream, np.array([4, 2]))
    assert batch["text"] == [learnable.texts[row] for row in stream.rows.text[[4, 2]]]


def test_missing_layers_and_pixels_are_named_with_the_options_that_add_them(
    learnable: Cache, oracle: TeacherReader
) -> None:
    with pytest.raises(
        UnknownNameError, match=r"vit_layers/3, vit_layers/7, pixels.*--layers 3,7 --keep-pixels"
    ):
        stream_of(learnable, oracle, ("vit_layers/3", "vit_layers/7", "pixels"))
