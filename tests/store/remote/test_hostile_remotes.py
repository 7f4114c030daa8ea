"""A cache from a stranger is only data, over the network too."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from store.durable import canonical_json, json_digest
from store.errors import DamagedCacheError, RemoteError
from store.reader import open_cache
from store.remote import source
from store.remote.protocols.base import Upload
from store.remote.protocols.http import _refuse_another_host
from store.remote.pull import pull
from store.remote.push import push
from store.remote.selection import Wanted
from tests.store.remote.conftest import add_teacher, at
from tests.store.remote.servers import faulty_server

ALL = Wanted()
NOT_FOLLOWED = "a redirect to another host, port or protocol is not followed"


@pytest.fixture
def served(cache, tmp_path):
    push(cache, at(str(tmp_path / "www" / "team.zarr")))
    with faulty_server(tmp_path / "www") as server:
        yield server


def redirect(handler, header: str, target: str) -> bool:
    """Answer that what is asked for lies at `target`."""
    handler.send_response(302)
    handler.send_header(header, target)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return True


def rewrite_view(tmp_path, change) -> None:
    """Change the view's manifest as its owner could: every digest up to the root's fits."""
    root = tmp_path / "www" / "team.zarr"
    group = root / "views/uniform_4x8/manifest.json"
    document = json.loads(group.read_bytes())
    change(document["objects"])
    document["objects"].sort(key=lambda record: record["path"])
    del document["digest"]
    document["digest"] = json_digest(document)
    group.write_bytes(canonical_json(document))
    told = json.loads((root / "manifest.json").read_bytes())
    told["groups"]["views/uniform_4x8"] = document["digest"]
    del told["digest"]
    told["digest"] = json_digest(told)
    (root / "manifest.json").write_bytes(canonical_json(told))


@pytest.mark.parametrize(
    "path",
    ["../../outside", "/etc/outside", "views/uniform_4x8/../../../outside", "views/uniform_4x8/c\\..\\x"],
)
def test_no_path_of_a_manifest_leads_out_of_the_copy(served, tmp_path, path):
    rewrite_view(tmp_path, lambda objects: objects[0].update(path=path))
    with pytest.raises(DamagedCacheError, match=r"views/uniform_4x8/manifest.json at "):
        pull(at(f"{served.url}/team.zarr"), tmp_path / "inner" / "copy.zarr", ALL)
    assert not any("outside" in entry.name for entry in tmp_path.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("bytes_told", [10, 10**14])
def test_a_size_that_lies_is_found_without_taking_it_at_its_word(served, tmp_path, bytes_told, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**15, 0, 10**15))
    rewrite_view(tmp_path, lambda objects: objects[-2].update(bytes=bytes_told))
    with pytest.raises(DamagedCacheError, match=r"views/uniform_4x8/.* (sha256 is another|ends at byte)"):
        pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)
    held = sum(entry.stat().st_size for entry in tmp_path.glob("copy*/**/*") if entry.is_file())
    assert held < 10**6


@pytest.mark.slow
def test_an_answer_larger_than_what_was_asked_for_is_cut(served, tmp_path, monkeypatch):
    sent = []

    def flooding(handler) -> bool:
        if not handler.path.endswith("zarr.json"):
            return False
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for _ in range(2000):
                handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent.append(65536)
        except OSError:
            pass
        handler.close_connection = True
        return True

    served.fault = flooding
    with pytest.raises(DamagedCacheError, match=r"zarr.json at .* sha256 is another"):
        pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)
    assert len(sent) < 2000 * 12


@pytest.mark.slow
def test_a_manifest_with_too_many_objects_is_refused(served, tmp_path, monkeypatch):
    from store.remote import pull as pulling

    monkeypatch.setattr(pulling, "MOST_OBJECTS", 50)
    with pytest.raises(DamagedCacheError, match="lists over 50 objects"):
        pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)
    monkeypatch.setattr(pulling, "MOST_GROUPS", 1)
    with pytest.raises(DamagedCacheError, match="names 2 groups, over 1"):
        pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)


@pytest.mark.slow
def test_a_manifest_that_does_not_end_is_refused(served, tmp_path, monkeypatch):
    from store.remote import states

    monkeypatch.setattr(states, "JSON_BYTES", 1000)
    monkeypatch.setattr(source, "JSON_BYTES", 1000)
    with pytest.raises(DamagedCacheError, match=r"manifest.json at .* is larger than 1000 bytes"):
        pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["http://localhost:1/x", "https://example.invalid/x", "file:///etc/passwd", "ftp://127.0.0.1/x"]
)
def test_a_redirect_to_another_host_or_protocol_is_refused(served, tmp_path, target):
    def redirecting(handler) -> bool:
        if "frame_embedding/c/" not in handler.path:
            return False
        return redirect(handler, "Location", target)

    served.fault = redirecting
    with pytest.raises(RemoteError, match=NOT_FOLLOWED):
        pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)


@pytest.mark.parametrize("header", ["Location", "URI"])
def test_a_redirect_to_another_port_is_refused_whichever_header_tells_it(served, tmp_path, header):
    with faulty_server(tmp_path / "www") as inner:
        served.fault = lambda handler: redirect(handler, header, f"{inner.url}{handler.path}")
        with pytest.raises(RemoteError, match=NOT_FOLLOWED):
            pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)
        assert inner.asked == []


def test_an_empty_location_does_not_hide_where_a_redirect_leads(served, tmp_path):
    def redirecting(handler) -> bool:
        handler.send_response(302)
        handler.send_header("Location", "")
        handler.send_header("URI", f"{inner.url}{handler.path}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    with faulty_server(tmp_path / "www") as inner:
        served.fault = redirecting
        with pytest.raises(RemoteError, match=NOT_FOLLOWED):
            pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)
        assert inner.asked == []


@pytest.mark.parametrize(
    ("asked", "target", "followed"),
    [
        ("http://host/x", "https://host/y", True),
        ("http://host:80/x", "https://HOST:443/y", True),
        ("http://host:9000/x", "//host:9000/y", True),
        ("http://host/x", "https://host:8443/y", False),
        ("http://host:9000/x", "https://host/y", False),
        ("http://host:9000/x", "https://host:9000/y", False),
        ("https://host/x", "http://host/y", False),
        ("http://host/x", "//other/y", False),
        ("http://host/x", "http:///y", False),
    ],
)
def test_only_from_http_to_https_at_their_own_ports_a_redirect_may_leave_the_port(asked, target, followed):
    from yarl import URL

    response = SimpleNamespace(headers={"Location": target})
    check = _refuse_another_host(None, None, SimpleNamespace(url=URL(asked), response=response))
    if followed:
        asyncio.run(check)
        return
    with pytest.raises(RemoteError, match=NOT_FOLLOWED):
        asyncio.run(check)


@pytest.mark.slow
def test_a_redirect_within_the_host_is_followed(served, tmp_path):
    def redirecting(handler) -> bool:
        if handler.path.startswith("/moved/"):
            handler.path = handler.path.replace("/moved/", "/team.zarr/")
            return False
        return redirect(handler, "Location", handler.path.replace("/team.zarr/", "/moved/"))

    served.fault = redirecting
    pull(at(f"{served.url}/team.zarr"), tmp_path / "copy.zarr", ALL)
    assert (tmp_path / "copy.zarr").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"{}", b"nonsense", b'{"digest":"../../x"}', b"[" * 3000])
def test_a_tag_that_names_no_digest_is_refused(served, tmp_path, content):
    tags = tmp_path / "www" / "team.zarr" / "sharing" / "tags"
    tags.mkdir()
    (tags / "v1.json").write_bytes(content)
    with pytest.raises(DamagedCacheError, match="names no digest"):
        pull(at(f"{served.url}/team.zarr@v1"), tmp_path / "copy.zarr", ALL)


def test_a_state_that_is_not_the_one_of_its_name_is_refused(served, cache, tmp_path):
    states = tmp_path / "www" / "team.zarr" / "sharing" / "manifests"
    (true,) = states.iterdir()
    (states / f"{'1' * 64}.json").write_bytes(true.read_bytes())
    with pytest.raises(DamagedCacheError, match="holds another state"):
        pull(at(f"{served.url}/team.zarr@sha256:{'1' * 64}"), tmp_path / "copy.zarr", ALL)


def test_a_link_in_a_shared_folder_is_not_followed(cache, tmp_path):
    push(cache, at(str(tmp_path / "shared.zarr")))
    secret = tmp_path / "secret"
    secret.write_text("hush")
    chunk = tmp_path / "shared.zarr" / "teachers/synthetic/text_embedding/c/0/0"
    chunk.unlink()
    chunk.symlink_to(secret)
    with pytest.raises(RemoteError, match="text_embedding/c/0/0 at "):
        pull(at(str(tmp_path / "shared.zarr")), tmp_path / "copy.zarr", ALL)


@pytest.fixture
def linked(cache, tmp_path) -> str:
    """URL of a shared cache whose folder `teachers` is a link to the folder `outside`."""
    push(cache, at(str(tmp_path / "shared.zarr")))
    (tmp_path / "shared.zarr" / "teachers").rename(tmp_path / "outside")
    (tmp_path / "shared.zarr" / "teachers").symlink_to(tmp_path / "outside")
    return str(tmp_path / "shared.zarr")


def test_a_link_above_an_object_is_not_followed_by_who_pulls(linked, tmp_path):
    with pytest.raises(RemoteError, match=r"teachers/synthetic at .*: teachers is a link"):
        pull(at(linked), tmp_path / "copy.zarr", ALL)
    assert not (tmp_path / "copy.zarr").exists()


def test_a_link_above_an_object_is_not_followed_by_who_pushes(linked, cache, tmp_path):
    before = sorted((tmp_path / "outside").rglob("*"))
    with pytest.raises(RemoteError, match=r"teachers/second at .*: teachers is a link"):
        push(add_teacher(cache, "second"), at(linked))
    assert sorted((tmp_path / "outside").rglob("*")) == before


@pytest.mark.parametrize("path", ["teachers/x", "teachers/synthetic/x", "teachers/new/inner/x"])
def test_nothing_is_read_written_or_listed_through_a_link(linked, tmp_path, path):
    secret = tmp_path / "outside" / path.removeprefix("teachers/")
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("hush")
    upload = Upload(path, tmp_path / "shared.zarr" / "manifest.json", 1)
    before = sorted((tmp_path / "outside").rglob("*"))
    endpoint = at(linked).endpoint
    for act in (
        lambda: endpoint.read(path, 0, 10),
        lambda: endpoint.read_versioned_range(path, 0, 10),
        lambda: endpoint.sizes(path.rpartition("/")[0]),
        lambda: endpoint.put([upload]),
        lambda: endpoint.create(path, b"other"),
        lambda: endpoint.create(f"{path}y", b"other"),
        lambda: endpoint.overwrite(path, b"other"),
    ):
        with pytest.raises(RemoteError, match="teachers is a link, and no link in a shared folder"):
            act()
    assert (sorted((tmp_path / "outside").rglob("*")), secret.read_text()) == (before, "hush")
    assert not any(name.startswith("teachers/") for name in endpoint.sizes(""))


def test_the_shared_folder_itself_may_be_reached_by_a_link(cache, tmp_path):
    push(cache, at(str(tmp_path / "shared.zarr")))
    (tmp_path / "link.zarr").symlink_to(tmp_path / "shared.zarr")
    push(add_teacher(cache, "second"), at(str(tmp_path / "link.zarr")))
    pulled = pull(at(str(tmp_path / "link.zarr")), tmp_path / "copy.zarr", ALL)
    assert pulled.digest == open_cache(cache).digest
