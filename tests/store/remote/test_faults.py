"""What goes wrong on the way: tried again where that helps, else one line that names the object."""

from __future__ import annotations

import errno
import http.server
import threading
import time

import pytest

from store.errors import DamagedCacheError, InputError, MissingFileError, RemoteError
from store.manifest import Manifest
from store.reader import open_cache
from store.remote.persistence import Patience, is_passing, persistently
from store.remote.pull import pull
from store.remote.push import push
from store.remote.selection import Wanted
from store.verify import verify
from tests.store.remote.conftest import at
from tests.store.remote.servers import faulty_server

ALL = Wanted()
LARGE = "/team.zarr/teachers/synthetic/frame_embedding/c/0/0/0/0"


@pytest.fixture
def served(cache, tmp_path):
    """A pushed cache behind a web server whose `fault` a test sets."""
    push(cache, at(str(tmp_path / "www" / "team.zarr")))
    with faulty_server(tmp_path / "www") as server:
        yield server


def url(server: http.server.HTTPServer) -> str:
    return f"{server.url}/team.zarr"


@pytest.mark.slow
def test_a_server_that_is_overloaded_twice_is_asked_again(served, tmp_path):
    seen: dict[str, int] = {}

    def overloaded(handler) -> bool:
        seen[handler.path] = seen.get(handler.path, 0) + 1
        again = "/c/" in handler.path and seen[handler.path] < 3
        if again:
            handler.send_error(503)
        return again

    served.fault = overloaded
    pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert verify(tmp_path / "copy.zarr").count == 0


def test_a_server_that_stays_overloaded_is_given_up_with_one_line_naming_the_object(served, tmp_path):
    def overloaded(handler) -> bool:
        if handler.path != LARGE:
            return False
        handler.send_error(503)
        return True

    served.fault = overloaded
    with pytest.raises(RemoteError) as error:
        pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert "frame_embedding/c/0/0/0/0 at http://127.0.0.1" in str(error.value)
    assert "tried 3 times" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "copy.zarr").exists()


def test_a_connection_cut_in_the_middle_is_opened_again(served, tmp_path):
    cut = []

    def cutting(handler) -> bool:
        if handler.path != LARGE or cut:
            return False
        cut.append(handler.path)
        handler.send_part(cut_after=100)
        return True

    served.fault = cutting
    pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert cut
    assert verify(tmp_path / "copy.zarr").count == 0


@pytest.mark.slow
def test_a_pull_that_broke_goes_on_with_what_is_missing(served, cache, tmp_path):
    def refusing(handler) -> bool:
        if handler.path == LARGE:
            handler.send_error(403)
        return handler.path == LARGE

    served.fault = refusing
    with pytest.raises(RemoteError, match=r"frame_embedding/c/0/0/0/0 .*permission denied"):
        pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    total = sum(
        record.bytes
        for group in ("", *Manifest.read(cache).groups)
        for record in Manifest.read(cache, group).objects
    )
    served.fault = lambda handler: False
    asked_before = set(served.asked)
    served.asked.clear()
    assert pull(at(url(served)), tmp_path / "copy.zarr", ALL).fetched < total
    assert LARGE in served.asked
    again = [path for path in served.asked if path in asked_before and "/c/" in path]
    assert len(again) < len([path for path in asked_before if "/c/" in path]) / 2
    assert verify(tmp_path / "copy.zarr").count == 0


@pytest.mark.slow
def test_an_object_goes_on_at_the_byte_where_it_was_cut_off(served, cache, tmp_path):
    aside = tmp_path / "copy.zarr.partial" / (LARGE.removeprefix("/team.zarr/") + ".partial")
    aside.parent.mkdir(parents=True)
    aside.write_bytes((cache / LARGE.removeprefix("/team.zarr/")).read_bytes()[:150])
    starts = []

    def watching(handler) -> bool:
        if handler.path == LARGE:
            starts.append(handler.headers["Range"])
        return False

    served.fault = watching
    pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert [start.split("-")[0] for start in starts] == ["bytes=150"]
    assert verify(tmp_path / "copy.zarr").count == 0


@pytest.mark.slow
def test_a_rest_of_another_object_is_fetched_anew(served, tmp_path):
    aside = tmp_path / "copy.zarr.partial" / (LARGE.removeprefix("/team.zarr/") + ".partial")
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"something else")
    pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert verify(tmp_path / "copy.zarr").count == 0


@pytest.mark.slow
@pytest.mark.parametrize("change", ["another byte", "shorter", "gone"])
def test_an_object_that_changed_on_the_server_since_its_manifest_is_named(served, tmp_path, change):
    file = tmp_path / "www" / LARGE.removeprefix("/")
    content = file.read_bytes()
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(
            content[:-1] + bytes([content[-1] ^ 1]) if change == "another byte" else content[:-1]
        )
    expected = MissingFileError if change == "gone" else DamagedCacheError
    with pytest.raises(expected, match="frame_embedding/c/0/0/0/0 at "):
        pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert not (tmp_path / "copy.zarr").exists()


@pytest.mark.slow
def test_slow_answers_are_waited_for(served, tmp_path):
    def slow(handler) -> bool:
        time.sleep(0.01)
        return False

    served.fault = slow
    pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert verify(tmp_path / "copy.zarr").count == 0


@pytest.mark.slow
def test_a_server_that_falls_silent_is_given_up(served, tmp_path, monkeypatch):
    from store.remote.protocols import http as spoken

    monkeypatch.setattr(spoken, "SILENCE_S", 0.2)
    released = threading.Event()

    def silent(handler) -> bool:
        if handler.path == LARGE:
            released.wait(10)
        return False

    served.fault = silent
    with pytest.raises(RemoteError, match=r"frame_embedding/c/0/0/0/0 .*tried 3 times"):
        pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    released.set()


@pytest.mark.slow
def test_a_full_disk_is_told_before_anything_is_fetched(served, tmp_path, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(
        InputError, match=r"bytes are to be pulled, .* has room for 10; make room, or pull a part"
    ):
        pull(at(url(served)), tmp_path / "copy.zarr", ALL)
    assert LARGE not in served.asked


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC])
def test_a_quota_that_is_reached_stops_a_push_at_once(cache, tmp_path, monkeypatch, code):
    remote = at(str(tmp_path / "shared.zarr"))
    tries = []

    def full(self, uploads):
        tries.append(uploads)
        raise OSError(code, "no room")

    monkeypatch.setattr(type(remote.endpoint), "put", full)
    with pytest.raises(RemoteError, match="no space or quota is left"):
        push(cache, remote)
    assert len({upload.path for uploads in tries for upload in uploads}) == len(tries)  # none was tried twice


def test_a_local_object_that_is_damaged_is_not_pushed(cache, tmp_path):
    file = cache / LARGE.removeprefix("/team.zarr/")
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCacheError, match="is not pushed"):
        push(cache, at(str(tmp_path / "shared.zarr")))
    assert not (tmp_path / "shared.zarr" / "manifest.json").exists()


@pytest.mark.slow
def test_a_pull_beside_another_cache_is_refused(cache, served, tmp_path):
    from store.errors import IdentityError
    from tests.synthetic_cache import write_synthetic_cache

    other = write_synthetic_cache(tmp_path / "other.zarr")
    digest = open_cache(other).digest
    with pytest.raises(IdentityError, match="neither goes on from the other"):
        pull(at(url(served)), other, ALL)
    assert open_cache(other).digest == digest


class AnsweredError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_statuses_that_pass_are_tried_again(status):
    assert is_passing(AnsweredError(status))


@pytest.mark.parametrize(
    "error",
    [AnsweredError(400), AnsweredError(403), AnsweredError(404), AnsweredError(507), PermissionError()],
)
def test_what_the_server_means_is_told_at_once(error):
    tries = []

    def act() -> None:
        tries.append(1)
        raise error

    with pytest.raises((RemoteError, MissingFileError)):
        persistently(act, "x at y", Patience(5, 0.001, 0.002))
    assert len(tries) == 1


def test_who_waits_is_told_once_that_it_goes_on(caplog):
    def away() -> None:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(RemoteError, match="x at y: tried 5 times"):
        persistently(away, "x at y", Patience(5, 0.001, 0.002))
    assert caplog.messages == ["x at y: nobody there; still trying, up to 5 times"]


def test_pauses_grow_and_end():
    pauses = list(Patience(attempts=6, first_pause_s=1, longest_pause_s=4).pauses())
    assert len(pauses) == 5
    bounds = [1, 2, 4, 4, 4]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))


def test_errors_of_a_library_are_told_without_credentials():
    def act() -> None:
        raise OSError("cannot reach https://anna:hush@host/x?sig=hush")

    with pytest.raises(RemoteError) as error:
        persistently(act, "x at y", Patience(1))
    assert "hush" not in str(error.value)
