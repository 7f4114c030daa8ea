"""Streaming from a real web server: it is slow, refuses, cuts off, is killed and comes back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from store.errors import DamagedCacheError, InputError, MissingFileError, RemoteError
from store.reader import open_cache
from store.remote.persistence import Patience
from store.remote.streaming import ChunkCacheSettings, open_url, parse_size
from tests.conftest import ROOT
from tests.store.remote.range_server import RangeServer
from tests.store.remote.test_streaming import SIGNAL, assert_same, read_all
from tests.store.remote.told_objects import forget
from tests.synthetic_cache import synthetic_samples, write_synthetic_cache

QUICK = Patience(attempts=8, first_pause_s=0.02, longest_pause_s=0.2)
pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_synthetic_cache(tmp_path_factory.mktemp("caches") / "made.zarr", synthetic_samples(12))


@pytest.fixture(scope="module")
def expected(made):
    return read_all(open_cache(made))


@pytest.fixture
def server(made):
    found = RangeServer(made.parent).start()
    yield found
    found.stop()


@pytest.fixture
def settings(tmp_path):
    yield ChunkCacheSettings(tmp_path / "chunks", 1 << 24)
    forget(tmp_path / "chunks")


def shard_requests(server: RangeServer) -> int:
    return sum(times for (path, _), times in server.asked.items() if "/teachers/" in path and "/c/" in path)


def test_a_cache_is_streamed_from_a_web_server_and_the_second_epoch_asks_for_nothing(
    server, settings, made, expected
):
    url = f"{server.url}/made.zarr"
    cache = open_url(url, settings=settings, patience=QUICK)
    digest = open_cache(made).digest
    assert (cache.location, cache.digest) == (f"{url}@sha256:{digest}", digest)
    assert_same(read_all(cache), expected)
    asked = server.asked.total()
    assert_same(read_all(cache, seed=1), expected)
    assert server.asked.total() == asked
    server.stop()
    forget(settings.folder)
    again = open_url(cache.location, settings=settings, patience=QUICK)
    assert_same(read_all(again), expected)  # pinned and fetched: no server is needed


def test_a_server_that_overloads_is_slow_and_cuts_off_is_asked_again(server, settings, expected):
    cache = open_url(f"{server.url}/made.zarr", settings=settings, patience=QUICK)
    cache.teacher("synthetic", 0)
    server.unavailable, server.cut, server.pause_s = 4, 4, 0.001
    assert_same(read_all(cache), expected)
    assert (server.unavailable, server.cut) == (0, 0)


@pytest.mark.slow
def test_a_lost_connection_is_told_with_the_object_after_some_tries(server, settings):
    cache = open_url(f"{server.url}/made.zarr", settings=settings, patience=Patience(3, 0.01, 0.01))
    teacher = cache.teacher("synthetic", 0)
    server.stop()
    with pytest.raises(RemoteError, match=rf"teachers/synthetic/{SIGNAL}/c/.* tried 3 times"):
        teacher.read(SIGNAL, np.array([0]))


def test_a_shard_that_is_replaced_while_it_is_read_is_refused(made, settings, tmp_path):
    import shutil

    copy = shutil.copytree(made, tmp_path / "served" / "made.zarr")
    server = RangeServer(copy.parent).start()
    try:
        cache = open_url(f"{server.url}/made.zarr", settings=settings, patience=QUICK)
        signal = "frame_embedding"
        reader = cache.teacher("synthetic", 0)
        rows = reader._rows(signal)  # reads the indices at the shards' ends
        shard = copy / "teachers/synthetic" / signal / "c/0/0/0/0"
        cache._streamed.chunks.discard(
            next(r.sha256 for r in cache._streamed._shards.values() if shard.as_posix().endswith(r.path)),
            np.array([0]),
        )
        shard.write_bytes(shard.read_bytes())
        with pytest.raises(DamagedCacheError, match="replaced on the server while it was read"):
            rows.read(np.array([0]))
    finally:
        server.stop()


def test_a_url_that_names_no_cache_is_told_in_one_line(server, settings):
    with pytest.raises(MissingFileError, match=r"manifest.json at .*other.zarr"):
        open_url(f"{server.url}/other.zarr", settings=settings, patience=QUICK)


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("1.5TB", 15 * 10**11), ("4096", 4096)]
)
def test_sizes_are_said_with_units(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GB", "20XB", "much"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="no size"):
        parse_size(text)


def start(folder, port: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.store.remote.range_server", str(folder), str(port)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_an_epoch_and_back_again_costs_only_time(made, settings, expected):
    server = start(made.parent)
    port = int(server.stdout.readline())
    patience = Patience(attempts=12, first_pause_s=0.1, longest_pause_s=1.0)
    cache = open_url(f"http://127.0.0.1:{port}/made.zarr", settings=settings, patience=patience)
    cache.teacher("synthetic", 0)
    server.kill()
    server.wait()
    back = []

    def come_back() -> None:
        time.sleep(1.5)
        back.append(start(made.parent, port))

    threading.Thread(target=come_back).start()
    try:
        assert_same(read_all(cache), expected)
        assert back
    finally:
        for process in back:
            process.kill()
            process.wait()
