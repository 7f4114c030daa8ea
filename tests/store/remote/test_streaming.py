"""Reading a remote cache block by block: what is fetched, kept, given up, and found wrong."""

from __future__ import annotations

import numpy as np
import pytest

from store.errors import DamagedCacheError
from store.reader import open_cache
from store.remote.chunk_room import ChunkCacheError
from tests.store.remote.told_objects import ToldObjects, forget, streamed
from tests.synthetic_cache import synthetic_samples, write_synthetic_cache

VIDEOS = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_synthetic_cache(
        tmp_path_factory.mktemp("caches") / "made.zarr", synthetic_samples(VIDEOS, 2), failed=frozenset({3})
    )


@pytest.fixture
def objects(made):
    return ToldObjects(made)


@pytest.fixture
def chunks(tmp_path):
    yield tmp_path / "chunks"
    forget(tmp_path / "chunks")


def read_all(cache, resident_bytes: int = 0) -> dict[str, np.ndarray]:
    """Every row of every signal of the teacher; in batches of 5 in random order."""
    teacher = cache.teacher("synthetic", resident_bytes)
    found = {}
    for name, spec in teacher.signals.items():
        rows = np.random.default_rng(0).permutation(np.flatnonzero(teacher._rows(name).present))
        parts = [teacher.read(name, rows[start : start + 5]) for start in range(0, len(rows), 5)]
        found[name] = np.concatenate(parts)
        assert spec.row_axis in "VT"
    return found


def test_a_streamed_cache_reads_as_the_local_one(made, objects, chunks):
    local, remote = read_all(open_cache(made)), read_all(streamed(objects, chunks))
    assert local.keys() == remote.keys()
    for name, values in local.items():
        np.testing.assert_array_equal(values, remote[name])


def test_after_the_first_epoch_nothing_is_fetched_again(objects, chunks):
    cache = streamed(objects, chunks)
    first = read_all(cache)
    fetched = objects.shard_bytes
    assert fetched
    second = read_all(cache)
    assert objects.shard_bytes == fetched
    assert max(objects.ranges.values()) == 1
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    forget(chunks)
    read_all(streamed(objects, chunks))
    assert objects.shard_bytes == fetched, "a later process fetches nothing either"
