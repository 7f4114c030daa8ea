"""Against nginx, OpenSSH and an S3 server: killed in the middle, forbidding, asked by others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import CacheError, MissingFileError, RemoteError
from store.reader import open_cache
from store.remote.location import Location
from store.remote.persistence import Patience
from store.remote.pull import pull
from store.remote.push import push
from store.remote.selection import Wanted
from store.remote.source import Remote, open_remote
from store.verify import verify
from tests.conftest import ROOT
from tests.store.remote import servers
from tests.store.remote.conftest import add_teacher, at

pytestmark = pytest.mark.slow
ALL = Wanted()
PATIENT = Patience(attempts=12, first_pause_s=0.05, longest_pause_s=0.5)


@pytest.fixture
def nginx(cache, tmp_path):
    """(server, URL) of a pushed cache."""
    push(add_teacher(cache, "second"), at(str(tmp_path / "www" / "team.zarr")))
    server = servers.nginx(tmp_path / "www", tmp_path / "nginx")
    yield server, f"http://127.0.0.1:{server.port}/team.zarr"
    server.stop()


def patiently(url: str) -> Remote:
    return open_remote(Location.parse(url), PATIENT)


def restart_at(server: servers.Served, requests: int, monkeypatch, endpoint: type, method: str) -> list[int]:
    """Kill the server when `method` is called for the `requests`-th time; start it again a little later."""
    real = getattr(endpoint, method)
    asked: list[int] = []
    counting = threading.Lock()

    def counted(self, *arguments):
        with counting:
            asked.append(1)
            now = len(asked)
        if now == requests:
            server.stop()
            threading.Timer(0.3, server.start).start()
        return real(self, *arguments)

    monkeypatch.setattr(endpoint, method, counted)
    return asked


def test_a_cache_behind_nginx_is_pulled_by_pin_and_in_part(nginx, cache, tmp_path):
    _, url = nginx
    digest = open_cache(cache).digest
    pull(at(f"{url}@sha256:{digest}"), tmp_path / "copy.zarr", ALL)
    assert verify(tmp_path / "copy.zarr").count == 0
    pull(at(url), tmp_path / "part.zarr", Wanted(teachers=("second",), signals=("frame_relevance",)))
    assert verify(tmp_path / "part.zarr").count == 0
    with pytest.raises(CacheError, match="is for pulling only"):
        push(cache, at(f"{url}/elsewhere"))


def test_nginx_killed_in_the_middle_and_back_again_is_no_more_than_a_pause(nginx, tmp_path, monkeypatch):
    server, url = nginx
    remote = patiently(url)
    asked = restart_at(server, 30, monkeypatch, type(remote.endpoint), "read_versioned_range")
    pull(remote, tmp_path / "copy.zarr", ALL)
    assert len(asked) > 30
    assert verify(tmp_path / "copy.zarr").count == 0


def test_a_server_that_stays_dead_is_one_line_and_the_pull_goes_on_when_it_is_back(
    nginx, tmp_path, monkeypatch
):
    server, url = nginx
    remote = at(url)
    real = type(remote.endpoint).read_versioned_range
    asked = []

    def dying(self, *arguments):
        asked.append(1)
        if len(asked) == 60:
            server.stop()
        return real(self, *arguments)

    monkeypatch.setattr(type(remote.endpoint), "read_versioned_range", dying)
    with pytest.raises(RemoteError, match=r" at http://127.0.0.1:\d+/team.zarr: tried 3 times"):
        pull(remote, tmp_path / "copy.zarr", ALL)
    assert not (tmp_path / "copy.zarr").exists()
    monkeypatch.setattr(type(remote.endpoint), "read_versioned_range", real)
    server.start()
    pull(at(url), tmp_path / "copy.zarr", ALL)
    assert verify(tmp_path / "copy.zarr").count == 0


def test_what_nginx_may_not_read_is_denied_by_name(nginx, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    _, url = nginx
    (tmp_path / "www/team.zarr/teachers/second/text_embedding/c/0/0").chmod(0)
    with pytest.raises(RemoteError, match=r"text_embedding/c/0/0 at .*permission denied"):
        pull(at(url), tmp_path / "copy.zarr", ALL)


def test_sshd_killed_in_the_middle_of_a_push_and_back_again(cache, tmp_path, monkeypatch):
    server = servers.sshd(tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "served").mkdir()
    url = f"sftp://127.0.0.1:{server.port}{tmp_path}/served/team.zarr"
    try:
        remote = patiently(url)
        asked = restart_at(server, 20, monkeypatch, type(remote.endpoint), "put")
        monkeypatch.setattr(servers.Served, "stop", _with_its_connections(servers.Served.stop))
        push(cache, remote)
        assert len(asked) > 20
        monkeypatch.undo()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        pull(patiently(url), tmp_path / "copy.zarr", ALL)
        assert verify(tmp_path / "copy.zarr").count == 0
        assert not list((tmp_path / "served").rglob("writer.lock"))
    finally:
        server.stop()


def test_a_pull_that_is_killed_goes_on_where_it_ended(cache, tmp_path):
    push(cache, at(str(tmp_path / "www" / "team.zarr")))

    def slow(handler) -> bool:
        time.sleep(0.05)
        return False

    with servers.faulty_server(tmp_path / "www", slow) as server:
        command = [
            sys.executable,
            "-m",
            "store",
            "pull",
            f"{server.url}/team.zarr",
            str(tmp_path / "copy.zarr"),
        ]
        killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(server.asked) < 70:
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        assert not (tmp_path / "copy.zarr").exists()
        had = {path for path in (tmp_path / "copy.zarr.partial").rglob("c/*") if path.is_file()}
        server.asked.clear()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        again = {path.removeprefix("/team.zarr/") for path in server.asked}
    assert had
    assert not again & {path.relative_to(tmp_path / "copy.zarr.partial").as_posix() for path in had}
    assert verify(tmp_path / "copy.zarr").count == 0


def _descendants(process: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(child)
            yield from _descendants(int(child))


def _with_its_connections(stop):
    """sshd serves each connection in a process of its own, in its session: kill those that it started too."""

    def killing(self) -> None:
        started = list(_descendants(self._process.pid))
        stop(self)
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, 9)

    return killing


def test_a_server_that_may_only_be_read_says_so_at_once(cache, tmp_path, monkeypatch):
    server = servers.sshd(tmp_path / "home", "-R")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    push(cache, at(str(tmp_path / "served.zarr")))
    url = f"sftp://127.0.0.1:{server.port}{tmp_path}"
    try:
        with pytest.raises(RemoteError, match=r"sharing/tables.json at sftp://.*permission denied"):
            push(cache, at(f"{url}/elsewhere.zarr"))
        pull(at(f"{url}/served.zarr"), tmp_path / "copy.zarr", ALL)
        assert verify(tmp_path / "copy.zarr").count == 0
    finally:
        server.stop()


def test_a_host_that_is_not_known_is_refused(sftp, ssh, monkeypatch, tmp_path, cache):
    _, home = ssh
    known = (home / ".ssh" / "known_hosts").read_text()
    (home / ".ssh" / "known_hosts").write_text("")
    try:
        with pytest.raises(RemoteError, match=r"permission denied .*known_hosts.* ssh there once"):
            push(cache, at(f"{sftp}/team.zarr"))
    finally:
        (home / ".ssh" / "known_hosts").write_text(known)


def test_an_s3_server_that_is_killed_in_the_middle_of_a_push_leaves_no_cache(cache, monkeypatch, tmp_path):
    import s3fs

    server = servers.s3_server()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        s3fs.S3FileSystem(skip_instance_cache=True).call_s3("create_bucket", Bucket="bucket")
        remote = at("s3://bucket/team.zarr")
        real = type(remote.endpoint).put
        sent = []

        def dying(self, uploads):
            sent.append(uploads)
            if len(sent) == 15:
                server.stop()
            return real(self, uploads)

        monkeypatch.setattr(type(remote.endpoint), "put", dying)
        began = time.monotonic()
        with pytest.raises(RemoteError, match=r" at s3://bucket/team.zarr: tried 3 times") as error:
            push(cache, remote)
        assert time.monotonic() - began < 60
        assert "hush" not in str(error.value)
    finally:
        server.stop()


def test_a_bucket_that_one_may_not_see_is_told_so(s3, cache, monkeypatch, tmp_path):
    from store.remote.protocols.s3 import S3Endpoint

    def denied(self, *arguments, **how):
        from botocore.exceptions import ClientError
        from s3fs.errors import translate_boto_error

        answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise translate_boto_error(ClientError(answer, "PutObject"))

    monkeypatch.setattr(S3Endpoint, "put", denied)
    with pytest.raises(RemoteError, match="permission denied"):
        push(cache, at(f"{s3}/team.zarr"))
    with pytest.raises(MissingFileError, match="is not there"):
        push(cache, at("s3://no-such-bucket-here/team.zarr"))


def test_a_name_that_never_was_there_is_not_looked_for_in_the_listing_of_a_bucket(s3, cache, tmp_path):
    """Two caches in one bucket, one name the beginning of the other: neither's objects are the other's."""
    push(cache, at(f"{s3}/team"))
    push(cache, at(f"{s3}/team.zarr"))
    assert all(not path.startswith(".zarr") for path in at(f"{s3}/team").endpoint.sizes(""))
    pull(at(f"{s3}/team"), tmp_path / "copy.zarr", ALL)
    assert verify(tmp_path / "copy.zarr").count == 0
