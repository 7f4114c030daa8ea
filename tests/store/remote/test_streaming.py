"""Reading a remote cache block by block: what is fetched, kept, given up, and found wrong."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from store.errors import DamagedCacheError, RemoteError
from store.reader import open_cache
from store.remote.chunk_cache import ChunkCache
from store.remote.chunk_room import ChunkCacheError
from store.remote.location import Location
from tests.conftest import ROOT
from tests.store.remote.told_objects import BLOCK, ToldObjects, forget, streamed
from tests.synthetic_cache import synthetic_samples, write_synthetic_cache

VIDEOS = 24
SIGNAL = "frame_embedding"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_synthetic_cache(
        tmp_path_factory.mktemp("caches") / "made.zarr", synthetic_samples(VIDEOS, 2), failed=frozenset({3})
    )


@pytest.fixture
def objects(made):
    return ToldObjects(made)


@pytest.fixture
def own_objects(made, tmp_path):
    """Of a copy that may be changed."""
    return ToldObjects(shutil.copytree(made, tmp_path / "made.zarr"))


@pytest.fixture
def chunks(tmp_path):
    yield tmp_path / "chunks"
    forget(tmp_path / "chunks")


def read_all(cache, seed: int = 0, at_once: int = 5) -> dict[str, np.ndarray]:
    """Every row of every signal of the teacher, asked for in random order."""
    teacher = cache.teacher("synthetic", resident_bytes=0)
    found = {}
    for name in teacher.signals:
        there = np.flatnonzero(teacher._rows(name).present)
        order = np.random.default_rng(seed).permutation(len(there))
        parts = [teacher.read(name, there[order[at : at + at_once]]) for at in range(0, len(there), at_once)]
        found[name] = np.concatenate(parts)[np.argsort(order)]
    return found


def tightened(cache, size: int) -> ChunkCache:
    """Let the chunk cache hold `size` bytes beside the tables and metadata."""
    cache.teacher("synthetic")
    held = cache._streamed.chunks
    held.bound = held.used + size
    return held


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.fixture(scope="module")
def expected(made):
    return read_all(open_cache(made))


def test_a_streamed_cache_reads_as_the_local_one(objects, chunks, expected):
    assert_same(read_all(streamed(objects, chunks)), expected)


def test_who_streams_as_another_user_goes_back_as_that_one_and_no_cache_tells(own_objects, chunks, expected):
    own_objects.location = Location.parse("sftp://anna@host:2022/caches/made.zarr")
    cache = streamed(own_objects, chunks)
    assert_same(read_all(cache), expected)
    assert cache.location == f"sftp://anna@host:2022/caches/made.zarr@sha256:{cache.digest}"
    assert Location.parse(cache.location).url == own_objects.location.url
    assert not [path for path in chunks.rglob("*") if path.is_file() and b"anna" in path.read_bytes()]


def test_after_the_first_epoch_nothing_is_fetched_again(objects, chunks, expected):
    cache = streamed(objects, chunks)
    read_all(cache)
    fetched = objects.shard_bytes
    assert fetched
    assert max(objects.ranges.values()) == 1
    assert_same(read_all(cache, seed=1), expected)
    assert objects.shard_bytes == fetched
    forget(chunks)
    assert_same(read_all(streamed(objects, chunks)), expected)
    assert objects.shard_bytes == fetched, "a later process fetches nothing either"


@pytest.mark.slow
def test_another_state_of_the_cache_shares_what_was_fetched(own_objects, chunks, expected):
    read_all(streamed(own_objects, chunks))
    fetched = own_objects.shard_bytes
    samples = synthetic_samples(VIDEOS, 2)
    write_synthetic_cache(own_objects.root, samples, teacher="second", failed=frozenset({3}))
    cache = streamed(own_objects, chunks)
    assert cache.teacher_names == ["second", "synthetic"]
    assert_same(read_all(cache), expected)
    assert own_objects.shard_bytes == fetched


def test_a_bound_below_the_cache_gives_up_blocks_and_every_row_stays_right(objects, chunks, expected):
    cache = streamed(objects, chunks)
    held = tightened(cache, sum(values.nbytes for values in expected.values()) // 2)
    for epoch in range(3):
        assert_same(read_all(cache, seed=epoch), expected)
        assert held.used <= held.bound
    assert held.evictions
    assert max(objects.ranges.values()) > 1


def test_what_was_read_last_is_kept_and_what_was_read_longest_ago_is_given_up(objects, chunks):
    cache = streamed(objects, chunks)
    reader = cache.teacher("synthetic", resident_bytes=0)
    held = cache._streamed.chunks
    tables = held.used
    read_all(cache)
    for row in (0, 20):
        reader.read(SIGNAL, np.array([row]))
    fetched = objects.ranges.total()
    held._give_up((held.used - tables) // 2)
    for row in (0, 20):
        reader.read(SIGNAL, np.array([row]))
    assert objects.ranges.total() == fetched
    reader.read(SIGNAL, np.arange(4, 20))
    assert objects.ranges.total() > fetched


@pytest.mark.slow
def test_threads_that_crowd_a_small_bound_read_what_is_right(objects, chunks, expected):
    cache = streamed(objects, chunks)
    held = tightened(cache, 64 * BLOCK)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda seed: read_all(cache, seed, at_once=2), range(4)):
            assert_same(found, expected)
    assert held.evictions


def test_a_bound_too_small_for_one_batch_is_refused_in_one_line(objects, chunks):
    cache = streamed(objects, chunks)
    tightened(cache, 8 * BLOCK)
    with pytest.raises(ChunkCacheError, match=r"too small.*raise --chunk-cache-size"):
        read_all(cache, at_once=20)


def test_damaged_bytes_on_this_disk_are_fetched_again(objects, chunks, expected):
    cache = streamed(objects, chunks)
    read_all(cache)
    for file in cache._streamed.chunks.objects.iterdir():
        if not file.suffix and file.with_name(f"{file.name}.blocks").exists():
            file.write_bytes(bytes(file.stat().st_size))
    forget(chunks)
    assert_same(read_all(streamed(objects, chunks)), expected)


def shards_of(objects: ToldObjects) -> list:
    return sorted((objects.root / "teachers/synthetic" / SIGNAL).glob("c/*/*/*/*"))


def test_an_object_that_is_damaged_on_the_server_is_named(own_objects, chunks):
    shard = shards_of(own_objects)[0]
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedCacheError, match=rf"{SIGNAL}.*row 0.*crc32c.*fetched twice"):
        streamed(own_objects, chunks).teacher("synthetic", 0).read(SIGNAL, np.array([0]))


def test_an_object_replaced_by_a_sound_one_of_other_values_is_found_by_its_sha256(own_objects, chunks):
    shards = shards_of(own_objects)
    shutil.copyfile(shards[2], shards[1])
    with pytest.raises(DamagedCacheError, match=r"c/1/.*sha256"):
        streamed(own_objects, chunks).teacher("synthetic", 0).read(SIGNAL, np.arange(5, 10))


def test_a_replacement_between_two_reads_is_noticed_by_its_version(objects, chunks):
    teacher = streamed(objects, chunks).teacher("synthetic", 0)
    teacher.read("vit_layers/1", np.array([0]))
    teacher.read(SIGNAL, np.array([0]))
    objects.version = "2"
    with pytest.raises(DamagedCacheError, match=r"vit_layers/1.*replaced on the server while it was read"):
        teacher.read("vit_layers/1", np.array([2]))


def test_blocks_that_an_earlier_run_fetched_of_another_version_are_dropped(objects, chunks, expected):
    streamed(objects, chunks).teacher("synthetic", 0).read(SIGNAL, np.array([0]))
    first = {key for key in objects.ranges if f"{SIGNAL}/c/0" in key[0]}
    forget(chunks)
    objects.version = "2"
    teacher = streamed(objects, chunks).teacher("synthetic", 0)
    with pytest.raises(DamagedCacheError, match=rf"{SIGNAL}/c/0.*another version.*same command again"):
        teacher.read(SIGNAL, np.array([2]))
    forget(chunks)
    assert_same(read_all(streamed(objects, chunks)), expected)
    assert {objects.ranges[key] for key in first} >= {2}


def test_a_table_that_was_changed_on_the_server_is_refused(own_objects, chunks):
    (own_objects.root / "texts/video/c/0").write_bytes(
        b"x" * (own_objects.root / "texts/video/c/0").stat().st_size
    )
    with pytest.raises(DamagedCacheError, match=r"texts/video/c/0.*sha256"):
        streamed(own_objects, chunks)


def test_an_error_of_one_fetch_leaves_nothing_claimed(objects, chunks, expected):
    cache = streamed(objects, chunks)

    def cut(path: str) -> None:
        if f"{SIGNAL}/c/1" in path:
            raise RemoteError(f"{path}: the connection was cut")

    objects.before = cut
    with pytest.raises(RemoteError, match=f"{SIGNAL}/c/1"):
        cache.teacher("synthetic", 0).read(SIGNAL, np.arange(4, 12))
    objects.before = lambda path: None
    assert_same(read_all(cache), expected)


def test_two_threads_that_want_the_same_fetch_it_once(objects, chunks):
    cache = streamed(objects, chunks)
    both = threading.Barrier(2)
    reader = cache.teacher("synthetic", 0)

    def read(_: int) -> np.ndarray:
        both.wait()
        return reader.read(SIGNAL, np.array([0, 1, 2]))

    reader._rows(SIGNAL)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, range(2))
    np.testing.assert_array_equal(first, second)
    assert max(objects.ranges.values()) == 1


def test_a_full_disk_gives_up_what_is_old_and_then_says_so(objects, chunks, monkeypatch):
    cache = streamed(objects, chunks)
    teacher = cache.teacher("synthetic", 0)
    teacher.read("frame_relevance", np.arange(4))
    writes = os.pwrite
    refused = []

    def full_once(*arguments):
        if not refused:
            refused.append(arguments)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writes(*arguments)

    monkeypatch.setattr(os, "pwrite", full_once)
    teacher.read(SIGNAL, np.array([0]))
    assert refused
    assert cache._streamed.chunks.evictions

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ChunkCacheError, match=r"can't be written \(No space left on device\).*--chunk-cache"):
        teacher.read("video_text_logits", np.arange(3))
    monkeypatch.setattr(os, "pwrite", writes)
    assert teacher.read("video_text_logits", np.arange(3)).shape[0] == 3


def test_what_a_killed_process_left_is_cleared_up(objects, chunks, expected):
    read_all(streamed(objects, chunks))
    held = chunks / "objects"
    forget(chunks)
    (held / f"{'a' * 64}.0123.partial").write_bytes(b"half")
    (held / ("b" * 64)).write_bytes(b"linked by no cache")
    table = next(held.glob("*.blocks"))
    table.write_bytes(table.read_bytes()[:-8])
    cache = streamed(objects, chunks)
    assert not list(held.glob("*.partial"))
    assert not (held / ("b" * 64)).exists()
    assert_same(read_all(cache), expected)


PROCESS = """
import sys, numpy as np
from pathlib import Path
from tests.store.remote.told_objects import ToldObjects, streamed
from tests.store.remote.test_streaming import read_all
objects = ToldObjects(Path(sys.argv[1]))
cache = streamed(objects, Path(sys.argv[2]), int(sys.argv[3]))
print("open", flush=True)
for epoch in range(int(sys.argv[4])):
    found = read_all(cache, epoch)
print(objects.shard_bytes, float(sum(np.nansum(v.astype(np.float64)) for v in found.values())), flush=True)
"""


def process(made, chunks, bound: int, epochs: int) -> subprocess.Popen:
    command = [sys.executable, "-c", PROCESS, str(made), str(chunks), str(bound), str(epochs)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_share_a_chunk_cache_and_fetch_every_byte_once(made, chunks, objects, expected):
    both = [process(made, chunks, 1 << 24, 2) for _ in range(2)]
    told = [one.communicate(timeout=120)[0].split() for one in both]
    alone = streamed(objects, chunks.with_name("alone"))
    read_all(alone)
    forget(chunks.with_name("alone"))
    assert sum(int(words[1]) for words in told) == objects.shard_bytes
    total = float(sum(np.nansum(values.astype(np.float64)) for values in expected.values()))
    assert [float(words[2]) for words in told] == [total, total]


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_nothing_wrong(made, chunks, objects, expected):
    bound = 1 << 16  # of it, the tables take a part: blocks are given up all the time
    chance = np.random.default_rng(0)
    beside = process(made, chunks, bound, 1000)
    assert beside.stdout.readline() == "open\n"
    for _ in range(8):
        killed = process(made, chunks, bound, 1000)
        assert killed.stdout.readline() == "open\n"
        threading.Event().wait(chance.uniform(0, 0.5))
        killed.kill()
        killed.communicate()
    assert beside.poll() is None, "a process that reads at the same time goes on"
    beside.kill()
    beside.communicate()
    cache = streamed(objects, chunks, bound)
    for epoch in range(2):
        assert_same(read_all(cache, epoch), expected)
    assert cache._streamed.chunks.used <= bound
