"""Batches that come ahead from threads are right, hold as long as promised, and errors get through."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from store.errors import DamagedCacheError, InputError
from store.feeder import BatchFeeder
from store.reader import open_cache
from store.signals import SignalSpec
from tests.synthetic_cache import SIGNALS, synthetic_samples, write_synthetic_cache

NAMES = [spec.name for spec in SIGNALS]


def steps_of(count: int, batch_size: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [
        (generator.integers(0, 12, batch_size), generator.integers(0, 12, batch_size)) for _ in range(count)
    ]


def feeder_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batch-feeder")]


@pytest.fixture
def teacher(tmp_path):
    return open_cache(write_synthetic_cache(tmp_path / "c.zarr")).teacher("synthetic", resident_bytes=0)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("ring", [3, 6])
def test_batches_come_in_order_and_equal_those_read_one_by_one(teacher, threads, ring):
    steps = steps_of(25)
    with BatchFeeder(teacher, NAMES, steps, 3, ring, threads) as feeder:
        count = 0
        for (videos, texts), batch in zip(steps, feeder, strict=True):
            expected = teacher.batch(NAMES, videos, texts)
            assert list(batch) == NAMES
            assert all(np.array_equal(batch[name], expected[name]) for name in NAMES)
            count += 1
    assert count == 25


def test_a_batch_holds_until_the_next_but_one_and_its_buffer_is_used_again_after(teacher):
    steps = [(np.full(3, row % 12), np.full(3, row % 12)) for row in range(12)]
    alone = [teacher.batch(["frame_embedding"], *step)["frame_embedding"] for step in steps]
    held = []
    with BatchFeeder(teacher, ["frame_embedding"], steps, 3) as feeder:
        for number, batch in enumerate(feeder):
            held.append(batch["frame_embedding"])
            time.sleep(0.02)  # the threads fill whatever they may
            np.testing.assert_array_equal(held[number], alone[number])
            if number:
                np.testing.assert_array_equal(held[number - 1], alone[number - 1])
    assert len({array.ctypes.data for array in held}) == 3
    assert not np.array_equal(held[0], alone[0])


def test_a_slow_consumer_lets_no_more_than_the_ring_be_read(teacher):
    taken = []

    def steps():
        for number, step in enumerate(steps_of(50)):
            taken.append(number)
            yield step

    with BatchFeeder(teacher, NAMES, steps(), 3) as feeder:
        for number in range(10):
            next(feeder)
            time.sleep(0.005)
            assert len(taken) <= number + 3
    assert len(taken) <= 12


def test_a_damaged_row_stops_the_iteration_at_its_batch_and_is_named(tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr")
    shard = root / "teachers/synthetic/frame_embedding/c/1/0/0/0"
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(bytes(content))
    teacher = open_cache(root).teacher("synthetic", resident_bytes=0)
    steps = [(np.array([row]), np.array([row])) for row in (0, 1, 2, 5, 3)]
    feeder = BatchFeeder(teacher, NAMES, steps, 1)
    for _ in range(3):
        next(feeder)
    with pytest.raises(DamagedCacheError, match=r"teachers/synthetic/frame_embedding, row 5: the crc32c"):
        next(feeder)
    assert feeder_threads() == []
    with pytest.raises(StopIteration):
        next(feeder)


def test_a_row_without_data_is_named_from_the_thread_too(tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr", failed=frozenset({2}))
    teacher = open_cache(root).teacher("synthetic")
    with (
        BatchFeeder(teacher, NAMES, [(np.array([2]), np.array([3]))], 1) as feeder,
        pytest.raises(InputError, match="no row 2"),
    ):
        next(feeder)


def test_stopping_early_leaves_no_thread_and_keeps_what_was_handed_out(teacher):
    steps = steps_of(1000)
    feeder = BatchFeeder(teacher, NAMES, iter(steps), 3)
    batch = next(feeder)
    feeder.close()
    assert feeder_threads() == []
    expected = teacher.batch(NAMES, *steps[0])
    assert all(np.array_equal(batch[name], expected[name]) for name in NAMES)
    with pytest.raises(StopIteration):
        next(feeder)


def test_an_error_in_the_consumer_leaves_no_thread(teacher):
    def stop():
        with BatchFeeder(teacher, NAMES, steps_of(100), 3) as feeder:
            next(feeder)
            raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError, match="the step failed"):
        stop()
    assert feeder_threads() == []


def test_a_ring_too_small_for_the_promise_is_refused(teacher):
    with pytest.raises(InputError, match="ring of 3"):
        BatchFeeder(teacher, NAMES, [], 3, ring=2)


def test_encoded_signals_come_encoded_out_of_the_same_buffers(tmp_path):
    signals = (
        SignalSpec("frame_embedding", {"R": 1, "M": 4, "D": 8}, encoding="int8"),
        SignalSpec("text_embedding", {"D": 8}),
    )
    root = write_synthetic_cache(tmp_path / "c.zarr", synthetic_samples(), signals=signals)
    teacher = open_cache(root).teacher("synthetic", resident_bytes=0)
    names = [spec.name for spec in signals]
    steps = steps_of(7)
    with BatchFeeder(teacher, names, steps, 3) as feeder:
        for (videos, texts), batch in zip(steps, feeder, strict=True):
            encoded, expected = batch["frame_embedding"], teacher.read("frame_embedding", videos)
            assert {part: array.dtype.name for part, array in encoded.parts.items()} == {
                "values": "int8",
                "token_scale": "float16",
            }
            np.testing.assert_array_equal(encoded.decode(), expected.decode())
            np.testing.assert_array_equal(batch["text_embedding"], teacher.read("text_embedding", texts))


def test_buffers_are_used_in_place_and_must_fit(teacher):
    buffers = teacher.buffers(["frame_embedding"], 4)
    rows = np.array([3, 1])
    batch = teacher.batch(["frame_embedding"], rows, rows, buffers)
    assert np.shares_memory(batch["frame_embedding"], buffers.parts["frame_embedding"][""])
    assert batch["frame_embedding"].shape == (2, 1, 4, 8)
    assert buffers.nbytes == 4 * 4 * 8 * 2
    with pytest.raises(InputError, match=r"buffers of 4 rows.*5 rows of frame_embedding"):
        teacher.batch(["frame_embedding"], np.arange(5), rows, buffers)
    with pytest.raises(InputError, match="text_embedding; make them with"):
        teacher.batch(["text_embedding"], rows, rows, buffers)


def test_the_smallest_signals_asked_for_together_are_held_in_ram(tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr")
    frames, layers, texts = 12 * 4 * 8 * 2, 12 * 4 * 3 * 2 * 2, 12 * 8 * 2
    assert texts < layers < frames
    teacher = open_cache(root).teacher("synthetic", resident_bytes=texts + layers)
    names = ["frame_embedding", "vit_layers/1", "text_embedding"]
    rows = np.arange(3)
    expected = teacher.batch(names, rows, rows)
    for name in names:
        for path in (root / "teachers/synthetic" / name).rglob("c/**/*"):
            if path.is_file():
                path.write_bytes(b"")
    batch = teacher.batch(names[1:], rows, rows)
    assert all(np.array_equal(batch[name], expected[name]) for name in names[1:])
    with pytest.raises(DamagedCacheError, match="frame_embedding"):
        teacher.batch(names[:1], rows, rows)
