"""Streaming from every protocol, from a server that goes away, and from one whose object changes."""

from __future__ import annotations

import numpy as np
import pytest

from store.errors import DamagedCacheError
from store.reader import open_cache
from store.remote.push import push
from store.remote.streaming import ChunkCacheSettings, open_url
from tests.store.remote import servers
from tests.store.remote.conftest import QUICK, at
from tests.store.remote.test_streaming import SIGNAL, assert_same, read_all
from tests.store.remote.told_objects import forget

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path):
    yield ChunkCacheSettings(tmp_path / "chunks", 1 << 24)
    forget(tmp_path / "chunks")


@pytest.fixture
def expected(made):
    return read_all(open_cache(made))


@pytest.mark.parametrize("protocol", ["s3", "sftp", "gs", "hf"])
def test_every_protocol_streams(protocol, request, cache, settings, expected):
    url = f"{request.getfixturevalue(protocol)}/team.zarr"
    push(cache, at(url))
    streamed = open_url(url, settings=settings, patience=QUICK)
    assert streamed.location == f"{url}@sha256:{open_cache(cache).digest}"
    for epoch in range(2):
        assert_same(read_all(streamed, epoch), expected)


@pytest.mark.parametrize("protocol", ["s3", "sftp", "gs"])
def test_a_shard_that_is_overwritten_while_it_is_read_is_noticed(protocol, request, cache, settings):
    url = f"{request.getfixturevalue(protocol)}/team.zarr"
    push(cache, at(url))
    streamed = open_url(url, settings=settings, patience=QUICK)
    rows = streamed.teacher("synthetic", 0)._rows(SIGNAL)  # reads every shard's index
    shard = f"teachers/synthetic/{SIGNAL}/c/0/0/0/0"
    record = streamed._streamed._shards[shard]
    streamed._streamed.chunks.discard(record.sha256, np.array([0]))
    at(url).endpoint.overwrite(shard, (cache / shard).read_bytes() + b"longer")
    with pytest.raises(DamagedCacheError, match=rf"{SIGNAL}/c/0.*replaced on the server"):
        rows.read(np.array([0]))


def test_a_cache_behind_nginx_streams_and_the_server_may_go_after_the_first_epoch(
    cache, tmp_path, settings, expected
):
    push(cache, at(str(tmp_path / "www" / "team.zarr")))
    server = servers.nginx(tmp_path / "www", tmp_path / "nginx")
    try:
        streamed = open_url(f"http://127.0.0.1:{server.port}/team.zarr", settings=settings, patience=QUICK)
        assert_same(read_all(streamed), expected)
    finally:
        server.stop()
    assert_same(read_all(streamed, seed=1), expected)
