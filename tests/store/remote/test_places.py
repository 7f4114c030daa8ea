"""Whatever the protocol: what was pushed comes back, nothing is moved twice, and nobody's work is lost."""

from __future__ import annotations

import filecmp
import shutil
import threading
from pathlib import Path

import pytest

from store.errors import IdentityError, MissingFileError, UnknownNameError
from store.manifest import MANIFEST, Manifest
from store.reader import open_cache
from store.remote import states
from store.remote.pull import pull
from store.remote.push import Terms, push
from store.remote.selection import Wanted
from store.verify import verify
from tests.store.remote.conftest import add_teacher, at

ALL = Wanted()


def same_files(a: Path, b: Path) -> bool:
    found = filecmp.dircmp(a, b)
    waiting = [found]
    while waiting:
        compared = waiting.pop()
        if compared.left_only or compared.right_only or compared.funny_files:
            return False
        _, different, errors = filecmp.cmpfiles(compared.left, compared.right, compared.common_files, False)
        if different or errors:
            return False
        waiting += compared.subdirs.values()
    return True


def test_what_is_pulled_is_what_was_pushed(cache, place, tmp_path):
    pushed = push(cache, at(place))
    pulled = pull(at(place), tmp_path / "copy.zarr", ALL)
    assert pushed.digest == pulled.digest == open_cache(cache).digest
    assert same_files(cache, tmp_path / "copy.zarr")
    assert verify(tmp_path / "copy.zarr").count == 0


def test_the_second_push_and_the_second_pull_move_nothing(cache, place, tmp_path):
    push(cache, at(place))
    assert push(cache, at(place)).sent == 0
    pull(at(place), tmp_path / "copy.zarr", ALL)
    assert pull(at(place), tmp_path / "copy.zarr", ALL).fetched == 0


def test_where_nothing_was_pushed_nothing_is_pulled(place, tmp_path):
    with pytest.raises(MissingFileError, match="no cache, or its first push is not finished"):
        pull(at(place), tmp_path / "copy.zarr", ALL)


def test_an_addition_sends_its_own_objects_alone_and_leaves_the_old_pin_as_it_was(cache, place, tmp_path):
    first = push(cache, at(place))
    added = push(add_teacher(cache, "second"), at(place))
    own = Manifest.read(cache, "teachers/second").objects
    assert added.groups == ("teachers/second",)
    assert added.sent == sum(record.bytes for record in own)
    pull(at(f"{place}@sha256:{first.digest}"), tmp_path / "old.zarr", ALL)
    assert open_cache(tmp_path / "old.zarr").teacher_names == ["synthetic"]
    pull(at(place), tmp_path / "new.zarr", ALL)
    assert open_cache(tmp_path / "new.zarr").teacher_names == ["second", "synthetic"]


def test_a_copy_goes_on_to_a_later_state_and_fetches_only_what_came(cache, place, tmp_path):
    push(cache, at(place))
    pull(at(place), tmp_path / "copy.zarr", ALL)
    push(add_teacher(cache, "second"), at(place))
    pulled = pull(at(place), tmp_path / "copy.zarr", ALL)
    own = Manifest.read(cache, "teachers/second").objects
    assert pulled.fetched == sum(record.bytes for record in own)
    assert verify(tmp_path / "copy.zarr").count == 0


def test_two_who_add_at_once_both_arrive(cache, place, tmp_path):
    push(cache, at(place))
    copies = {name: Path(shutil.copytree(cache, tmp_path / name)) for name in ("anna", "ben", "cleo")}
    for name, copy in copies.items():
        add_teacher(copy, name)
    failed = []

    def add(copy: Path) -> None:
        try:
            push(copy, at(place))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=add, args=(copy,)) for copy in copies.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    pull(at(place), tmp_path / "all.zarr", ALL)
    assert open_cache(tmp_path / "all.zarr").teacher_names == ["anna", "ben", "cleo", "synthetic"]
    assert verify(tmp_path / "all.zarr").count == 0
    for copy in copies.values():  # what each of them has is a pin as well
        digest = open_cache(copy).digest
        assert at(f"{place}@sha256:{digest}").manifest().digest == digest


def test_one_who_comes_between_reading_and_writing_is_not_overwritten(cache, place):
    push(cache, at(place))
    before = states.latest(at(place).endpoint)
    push(add_teacher(cache, "second"), at(place))
    assert not states.advance(at(place).endpoint, before, before.manifest)
    assert "teachers/second" in at(place).manifest().groups


def test_other_content_under_a_pushed_name_is_refused(cache, place, tmp_path):
    other = Path(shutil.copytree(cache, tmp_path / "other.zarr"))
    push(add_teacher(cache, "second"), at(place))
    manifest = Manifest.read(add_teacher(other, "second"))
    changed = Manifest(manifest.objects, {**manifest.groups, "teachers/second": "0" * 64}, manifest.added)
    changed.write(other)
    with pytest.raises(IdentityError, match=r"teachers/second of .* has been pushed there by somebody else"):
        push(other, at(place))


def test_a_group_that_another_is_pushing_is_refused_until_forced(cache, place):
    endpoint = at(place).endpoint
    assert endpoint.create(f"teachers/synthetic/{MANIFEST}", b"another's")
    with pytest.raises(IdentityError, match=r"never finished \(then say --force\)"):
        push(cache, at(place))
    push(cache, at(place), Terms(force=True))
    assert at(place).manifest().digest == open_cache(cache).digest


def test_another_dataset_is_refused(cache, place, tmp_path):
    from tests.synthetic_cache import write_synthetic_cache

    push(cache, at(place))
    with pytest.raises(IdentityError, match="holds another dataset"):
        push(write_synthetic_cache(tmp_path / "other.zarr"), at(place))


def test_a_tag_names_its_state_and_moves_only_by_force(cache, place, tmp_path):
    first = push(cache, at(place), Terms(tag="v1"))
    add_teacher(cache, "second")
    with pytest.raises(IdentityError, match="tags do not move"):
        push(cache, at(place), Terms(tag="v1"))
    assert "teachers/second" not in at(place).manifest().groups  # refused before anything was sent
    assert at(f"{place}@v1").manifest().digest == first.digest
    second = push(cache, at(place), Terms(tag="v1", force=True))
    assert at(f"{place}@v1").manifest().digest == second.digest
    with pytest.raises(UnknownNameError, match="no tag 'v2'"):
        at(f"{place}@v2").manifest()


def test_a_state_that_never_was_is_refused(cache, place):
    push(cache, at(place))
    with pytest.raises(IdentityError, match="was never pushed as"):
        at(f"{place}@sha256:{'0' * 64}").manifest()


def test_a_push_cut_short_is_no_cache_and_goes_on_where_it_ended(cache, place, tmp_path, monkeypatch):
    remote = at(place)
    sent = []
    put = type(remote.endpoint).put

    breaks_at = 10 if remote.endpoint.uploads_together == 1 else 1

    def breaking(self, uploads):
        if len(sent) == breaks_at:
            raise PermissionError("the connection is gone")
        sent.append(uploads)
        put(self, uploads)

    monkeypatch.setattr(type(remote.endpoint), "put", breaking)
    with pytest.raises(OSError, match="permission denied"):
        push(cache, remote)
    with pytest.raises(MissingFileError, match="not finished"):
        pull(at(place), tmp_path / "copy.zarr", ALL)
    monkeypatch.setattr(type(remote.endpoint), "put", put)
    arrived = sum(upload.bytes for uploads in sent for upload in uploads)
    total = sum(
        record.bytes
        for group in ("", *Manifest.read(cache).groups)
        for record in Manifest.read(cache, group).objects
    )
    assert push(cache, at(place)).sent == total - arrived
    pull(at(place), tmp_path / "copy.zarr", ALL)
    assert same_files(cache, tmp_path / "copy.zarr")


def test_a_push_killed_between_the_new_state_and_its_copy_is_healed_by_the_next(cache, tmp_path, monkeypatch):
    place = str(tmp_path / "shared.zarr")
    push(cache, at(place))
    endpoint = type(at(place).endpoint)
    overwrite = endpoint.overwrite

    def dying(self, path, content):
        if path == MANIFEST:
            raise KeyboardInterrupt
        overwrite(self, path, content)

    monkeypatch.setattr(endpoint, "overwrite", dying)
    with pytest.raises(KeyboardInterrupt):
        push(add_teacher(cache, "second"), at(place))
    assert at(place).manifest().digest == open_cache(cache).digest  # readers of ours see it
    assert open_cache(place).teacher_names == ["synthetic"]
    monkeypatch.setattr(endpoint, "overwrite", overwrite)
    push(cache, at(place))
    assert open_cache(place).teacher_names == ["second", "synthetic"]


def test_of_many_who_create_one_object_one_wins(place):
    won = []
    endpoints = [at(place).endpoint for _ in range(6)]

    def create(number: int) -> None:
        if endpoints[number].create("sharing/tags/x.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert endpoints[0].read("sharing/tags/x.json", 0, 10) == str(won[0]).encode()


def test_ranges_are_what_was_asked_for_and_end_with_the_object(place, tmp_path):
    from store.remote.protocols.base import Upload

    content = bytes(range(256)) * 9000
    (tmp_path / "object").write_bytes(content)
    endpoint = at(place).endpoint
    endpoint.put([Upload("folder/object", tmp_path / "object", len(content))])
    assert endpoint.read("folder/object", 0, len(content)) == content
    assert endpoint.read("folder/object", 5, 7) == content[5:12]
    assert endpoint.read("folder/object", len(content) - 3, 100) == content[-3:]
    assert endpoint.read("folder/object", len(content), 5) == b""
    assert endpoint.read("folder/object", 0, 0) == b""
    assert endpoint.sizes("folder") == {"folder/object": len(content)}
    assert endpoint.sizes("nowhere") == {}
    with pytest.raises(Exception) as missing:
        endpoint.read("folder/none", 0, 5)
    assert isinstance(missing.value, FileNotFoundError)
