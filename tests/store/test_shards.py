"""Shards are standard Zarr v3, and damage never passes for data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from store.durable import canonical_json, write_file
from store.errors import DamagedCacheError, InputError
from store.sharded_rows import ShardedRows
from store.shards import RowsArray, ShardFile


def write_array(
    root: Path, values: np.ndarray, shard_rows: int, absent: frozenset[int] = frozenset()
) -> RowsArray:
    array = RowsArray(values.shape, values.dtype.name, tuple("VMD"[: values.ndim]), shard_rows)
    write_file(root / "x" / "zarr.json", canonical_json(array.zarr_json({"note": 1})))
    for number in range(array.shard_count):
        with ShardFile(root, "x", array, number) as shard:
            for row in range(number * shard_rows, min((number + 1) * shard_rows, len(values))):
                if row not in absent:
                    shard.append(row, values[row])
            record = shard.finish()
        assert (root / record.path).stat().st_size == record.bytes
    return array


@given(
    rows=st.integers(1, 9),
    shard_rows=st.integers(1, 5),
    inner=st.lists(st.integers(1, 4), max_size=2),
    dtype=st.sampled_from(["float16", "float32", "float64", "uint8", "int64", "bool"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_zarr_python_reads_what_we_write_and_so_do_we(tmp_path_factory, rows, shard_rows, inner, dtype, seed):
    root = tmp_path_factory.mktemp("array")
    values = (np.random.default_rng(seed).normal(size=(rows, *inner)) * 9).astype(dtype)
    write_array(root, values, shard_rows)
    foreign = zarr.open_array(root / "x", mode="r")
    assert foreign.metadata.dimension_names == tuple("VMD"[: values.ndim])
    np.testing.assert_array_equal(foreign[:], values)
    order = np.random.default_rng(seed).permutation(rows)
    np.testing.assert_array_equal(ShardedRows(root, "x").read(order), values[order])


def test_an_absent_row_is_absent_and_never_a_number(tmp_path):
    values = np.ones((5, 3), dtype=np.float16)
    write_array(tmp_path, values, 2, absent=frozenset({3}))
    rows = ShardedRows(tmp_path, "x")
    assert rows.present.tolist() == [True, True, True, False, True]
    with pytest.raises(InputError, match="no row 3"):
        rows.read(np.array([2, 3]))
    assert np.isnan(zarr.open_array(tmp_path / "x", mode="r")[3]).all()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_shard_is_named_and_never_read(tmp_path, damage):
    write_array(tmp_path, np.arange(12, dtype=np.float32).reshape(4, 3), 2)
    shard = tmp_path / "x/c/1/0"
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    if damage == "flip":
        shard.write_bytes(bytes(content))
    elif damage == "truncate":
        shard.write_bytes(bytes(content[:20]))
    else:
        shard.unlink()
    with pytest.raises(DamagedCacheError, match="x"):
        ShardedRows(tmp_path, "x").read(np.array([2]))


def test_any_flipped_bit_of_a_shard_is_found(tmp_path):
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    write_array(tmp_path, values, 2)
    shard = tmp_path / "x/c/0/0"
    sound = shard.read_bytes()
    for place in range(len(sound)):
        for bit in (1, 128):
            content = bytearray(sound)
            content[place] ^= bit
            shard.write_bytes(bytes(content))
            with pytest.raises(DamagedCacheError):
                ShardedRows(tmp_path, "x").read(np.array([0, 1]))


def test_a_shard_without_finish_leaves_nothing(tmp_path):
    array = RowsArray((2, 3), "float16", ("V", "D"), 2)

    def stop_halfway():
        with ShardFile(tmp_path, "x", array, 0) as shard:
            shard.append(0, np.ones(3, dtype=np.float16))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_halfway()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_row_of_another_shape_dtype_or_shard_is_refused(tmp_path):
    array = RowsArray((4, 3), "float16", ("V", "D"), 2)
    with ShardFile(tmp_path, "x", array, 0) as shard:
        for row, values in [
            (0, np.ones(2, np.float16)),
            (0, np.ones(3, np.float32)),
            (2, np.ones(3, np.float16)),
        ]:
            with pytest.raises(ValueError, match="does not belong"):
                shard.append(row, values)


def test_metadata_of_another_kind_is_refused(tmp_path):
    array = RowsArray((2, 3), "float16", ("V", "D"), 2)
    document = array.zarr_json({})
    document["codecs"][0]["configuration"]["codecs"].append({"name": "gzip", "configuration": {"level": 1}})
    write_file(tmp_path / "x/zarr.json", canonical_json(document))
    with pytest.raises(DamagedCacheError, match="not an array of format 1"):
        ShardedRows(tmp_path, "x")
