"""Every way to read rows gives what plain zarr-python gives, and damage or absence never passes for data."""

from __future__ import annotations

import multiprocessing
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from store import open_shards, sharded_rows
from store.errors import DamagedCacheError, InputError
from store.sharded_rows import ShardedRows
from tests.store.test_shards import write_array

PATHS = ("one by one", "taken from the map", "from RAM")


def opened(root: Path, way: str, monkeypatch) -> ShardedRows:
    """The array at `root`/x, read in one of the ways of PATHS whatever its size."""
    monkeypatch.setattr(sharded_rows, "SMALL_ROW_BYTES", -1 if way == "one by one" else 1 << 30)
    monkeypatch.setattr(sharded_rows, "SCRATCH_BYTES", 64)
    rows = ShardedRows(root, "x")
    if way == "from RAM":
        rows.load()
    return rows


@pytest.mark.parametrize("way", PATHS)
@given(
    rows=st.integers(1, 11),
    shard_rows=st.integers(1, 5),
    inner=st.lists(st.integers(1, 4), max_size=2),
    dtype=st.sampled_from(["float16", "float32", "float64", "uint8", "int8", "int32", "int64", "bool"]),
    wanted=st.lists(st.integers(0, 10), max_size=20),
    absent=st.integers(0, 10),
)
@settings(max_examples=25, deadline=None)
def test_rows_in_any_order_and_repeated_are_those_of_zarr_python(
    tmp_path_factory, way, rows, shard_rows, inner, dtype, wanted, absent
):
    root = tmp_path_factory.mktemp("array")
    values = (np.random.default_rng(rows).normal(size=(rows, *inner)) * 9).astype(dtype)
    write_array(root, values, shard_rows, absent=frozenset({absent}))
    chosen = np.array([row for row in wanted if row < rows and row != absent], dtype=np.int64)
    foreign = np.asarray(zarr.open_array(root / "x", mode="r")[:])
    with pytest.MonkeyPatch.context() as patch:
        stored = opened(root, way, patch)
        for _ in range(2):
            np.testing.assert_array_equal(stored.read(chosen), foreign[chosen])
        np.testing.assert_array_equal(stored.load(), foreign)


@pytest.mark.parametrize("way", PATHS)
def test_a_block_of_a_matrix_is_what_numpy_would_gather(tmp_path, monkeypatch, way):
    values = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float16)
    write_array(tmp_path, values, 4)
    rows, columns = np.array([8, 0, 3, 3, 5]), np.array([6, 0, 0])
    stored = opened(tmp_path, way, monkeypatch)
    np.testing.assert_array_equal(stored.gather(rows, columns), values[np.ix_(rows, columns)])
    with pytest.raises(InputError, match="no column -1"):
        stored.gather(rows, np.array([0, -1]))


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, -1], "x has no row -1, they go from 0 to 4"),
        ([4, 5], "x has no row 5"),
        ([1, 3], "x has no row 3: its video did not decode"),
        ([0.0, 1.0], "whole numbers"),
        ([True, False], "whole numbers"),
        ([[0, 1]], "whole numbers"),
    ],
)
def test_a_row_that_is_not_there_is_named_and_never_wraps(tmp_path, monkeypatch, way, rows, message):
    write_array(tmp_path, np.ones((5, 3), dtype=np.float16), 2, absent=frozenset({3}))
    stored = opened(tmp_path, way, monkeypatch)
    for read in (stored.read, lambda rows: stored.gather(rows, np.array([0]))):
        with pytest.raises(InputError, match=message):
            read(np.array(rows))


def test_an_output_that_does_not_fit_is_refused_before_it_is_touched(tmp_path):
    write_array(tmp_path, np.ones((5, 4), dtype=np.float16), 2)
    stored = ShardedRows(tmp_path, "x")
    rows = np.arange(3)
    for out in (
        np.zeros((2, 4), np.float16),
        np.zeros((3, 4), np.float32),
        np.zeros((3, 5), np.float16),
        np.zeros((3, 8), np.float16)[:, ::2],
    ):
        with pytest.raises(ValueError, match="fill a contiguous float16"):
            stored.read_into(rows, out)
        assert not out.any()


@pytest.mark.parametrize("way", ["one by one", "taken from the map"])
def test_a_flipped_bit_is_found_when_its_row_is_first_read_and_named(tmp_path, monkeypatch, way):
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    write_array(tmp_path, values, 4)
    shard = tmp_path / "x/c/1/0"
    content = bytearray(shard.read_bytes())
    content[2 * 16 + 5] ^= 4
    shard.write_bytes(bytes(content))
    stored = opened(tmp_path, way, monkeypatch)
    np.testing.assert_array_equal(stored.read(np.array([5, 7, 1])), values[[5, 7, 1]])
    for read in (stored.read, lambda rows: stored.gather(rows, np.arange(3)), lambda rows: stored.load()):
        for _ in range(2):
            with pytest.raises(DamagedCacheError, match="x, row 6: the crc32c is wrong"):
                read(np.array([5, 6]))


def test_a_row_is_checked_once_in_a_process(tmp_path, monkeypatch):
    write_array(tmp_path, np.ones((6, 3), dtype=np.float16), 4)
    checked = []
    original = sharded_rows.crc32c
    for way in ("one by one", "taken from the map"):
        stored = opened(tmp_path, way, monkeypatch)
        monkeypatch.setattr(sharded_rows, "crc32c", lambda content: checked.append(1) or original(content))
        checked.clear()
        stored.read(np.array([0, 5, 2]))
        assert len(checked) == 3
        stored.read(np.array([2, 0, 1]))
        assert len(checked) == 4
        monkeypatch.setattr(sharded_rows, "crc32c", original)


@pytest.mark.parametrize("way", ["one by one", "taken from the map"])
def test_a_shard_that_is_cut_off_while_open_is_an_error_and_no_bus_error(tmp_path, monkeypatch, way):
    write_array(tmp_path, np.ones((64, 4096), dtype=np.float16), 64)
    stored = opened(tmp_path, way, monkeypatch)
    stored.read(np.arange(64))
    os.truncate(tmp_path / "x/c/0/0", 8192)
    with pytest.raises(DamagedCacheError, match=r"x/c/0/0.*cut off"):
        stored.read(np.arange(64))


def test_a_shard_that_was_replaced_is_not_read_as_if_it_had_been_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(open_shards, "OPEN_LIMIT", 1)
    write_array(tmp_path, np.zeros((4, 3), dtype=np.float16), 2)
    stored = ShardedRows(tmp_path, "x")
    stored.read(np.arange(4))
    (tmp_path / "x/c/0/0").unlink()
    write_array(tmp_path, np.ones((4, 3), dtype=np.float16), 2)
    with pytest.raises(DamagedCacheError, match="x/c/0/0 was replaced"):
        stored.read(np.array([0]))


def test_more_shards_than_may_be_open_are_read_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(open_shards, "OPEN_LIMIT", 3)
    values = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float16)
    write_array(tmp_path, values, 2)
    before = len(os.listdir("/proc/self/fd"))
    stored = ShardedRows(tmp_path, "x")
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(stored.read(order), values[order])
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 3
    del stored
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("way", PATHS)
def test_many_threads_reading_at_once_get_the_right_rows(tmp_path, monkeypatch, way):
    monkeypatch.setattr(open_shards, "OPEN_LIMIT", 2)
    values = np.random.default_rng(0).normal(size=(60, 300)).astype(np.float16)
    write_array(tmp_path, values, 7)
    stored = opened(tmp_path, way, monkeypatch)

    def read_some(seed: int) -> bool:
        generator = np.random.default_rng(seed)
        return all(
            np.array_equal(stored.read(rows), values[rows]) for rows in generator.integers(0, 60, (20, 16))
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read_some, range(16)))


def sum_in_child(root: Path, answers) -> None:
    answers.put(float(ShardedRows(root, "x").read(np.arange(6)).sum()))


def sum_in_forked_child(stored: ShardedRows, answers) -> None:
    answers.put(float(stored.read(np.arange(6)).sum()))


@pytest.mark.parametrize("way", ["one by one", "taken from the map"])
def test_a_forked_child_goes_on_reading_and_a_spawned_one_opens_anew(tmp_path, monkeypatch, way):
    write_array(tmp_path, np.arange(18, dtype=np.float32).reshape(6, 3), 4)
    stored = opened(tmp_path, way, monkeypatch)
    expected = float(stored.read(np.arange(6)).sum())
    for method, target, argument in (
        ("fork", sum_in_forked_child, stored),
        ("spawn", sum_in_child, tmp_path),
    ):
        context = multiprocessing.get_context(method)
        answers = context.SimpleQueue()
        child = context.Process(target=target, args=(argument, answers))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert answers.get() == expected


@pytest.mark.parametrize("row_values", [2048, 1 << 16])
def test_streaming_an_array_takes_no_memory_that_grows_with_it(tmp_path, row_values):
    """32 MB, streamed through a buffer of 1 MB: what is allocated besides stays below 2 MB."""
    rows = (32 << 20) // (2 * row_values)
    write_array(tmp_path, np.ones((rows, row_values), dtype=np.float16), rows // 4)
    stored = ShardedRows(tmp_path, "x")
    batch = rows // 32
    out = stored.empty(batch)
    order = np.random.default_rng(0).permutation(rows)
    tracemalloc.start()
    try:
        for start in range(0, rows, batch):
            stored.read_into(order[start : start + batch], out)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
