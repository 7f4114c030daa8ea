"""Teachers come and go one by one; a removal that is cut short leaves a cache that opens."""

from __future__ import annotations

import builtins
import os
import shutil
import threading
from pathlib import Path

import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.errors import LockedCacheError, UnknownNameError
from store.inputs.view import View
from store.lock import WriterLock
from store.reader import open_cache
from store.remove import remove_teacher
from store.verify import verify
from store.writer import CacheWriter
from tests.synthetic_cache import (
    SIGNALS,
    shard_commits,
    synthetic_plan,
    synthetic_samples,
    write_synthetic_cache,
)

SAMPLES = synthetic_samples(4)
SMALL = {"samples": SAMPLES, "signals": SIGNALS[2:4], "shard_rows": 3}


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def begin_teacher(root: Path, name: str, commits: int, view: View | None = None) -> None:
    """Plan a teacher and write its first `commits` shards."""
    plan = synthetic_plan(SAMPLES, name, 3, SIGNALS[2:4])
    if view is not None:
        object.__setattr__(plan, "view", view)
    with CacheWriter(root, SAMPLES) as writer:
        writer.plan(plan)
        shards = shard_commits(root, SAMPLES, plan)
        for _, commit in zip(range(commits), shards, strict=False):
            writer.commit(commit)


@pytest.fixture(scope="module")
def one_teacher(tmp_path_factory):
    return write_synthetic_cache(tmp_path_factory.mktemp("one") / "c.zarr", **SMALL)


@pytest.fixture(scope="module")
def two_teachers(one_teacher, tmp_path_factory):
    root = shutil.copytree(one_teacher, tmp_path_factory.mktemp("two") / "c.zarr")
    return write_synthetic_cache(root, teacher="second", **SMALL)


def test_adding_and_removing_a_teacher_leaves_every_byte_as_it_was(one_teacher, two_teachers, tmp_path):
    root = shutil.copytree(two_teachers, tmp_path / "c.zarr")
    assert open_cache(root).digest != open_cache(one_teacher).digest
    removal = remove_teacher(root, "second")
    assert removal.groups == ("teachers/second",)
    assert removal.kept == ("views/uniform_4x8",)
    assert tree(root) == tree(one_teacher)
    assert open_cache(root).digest == open_cache(one_teacher).digest
    assert not (root / "teachers/second").exists()


def test_replacing_a_teacher_is_removing_it_and_dumping_anew(two_teachers, tmp_path):
    root = shutil.copytree(two_teachers, tmp_path / "c.zarr")
    remove_teacher(root, "synthetic")
    assert open_cache(root).teacher_names == ["second"]
    write_synthetic_cache(root, samples=SAMPLES, signals=SIGNALS[2:3], shard_rows=3)
    assert list(open_cache(root).teacher("synthetic").signals) == ["text_embedding"]
    assert verify(root).faults == []
    remove_teacher(root, "synthetic")
    write_synthetic_cache(root, **SMALL)
    assert open_cache(root).digest == open_cache(two_teachers).digest
    stored, before = tree(root), tree(two_teachers)
    del stored["manifest.json"], before["manifest.json"]  # which tells in what order they came
    assert stored == before


def test_the_last_teacher_takes_its_view_along(one_teacher, tmp_path):
    root = shutil.copytree(one_teacher, tmp_path / "c.zarr")
    removal = remove_teacher(root, "synthetic")
    assert removal.groups == ("teachers/synthetic", "views/uniform_4x8")
    assert removal.bytes > 1000
    cache = open_cache(root)
    assert cache.teacher_names == []
    assert cache.video_ids == [video.id for video in SAMPLES.videos]
    assert not any("uniform" in name for name in tree(root))
    assert verify(root).faults == []
    assert tree(write_synthetic_cache(root, **SMALL)) == tree(one_teacher)


@pytest.mark.parametrize("commits", [0, 3, 12])
@pytest.mark.parametrize("published", [True, False])
def test_an_unfinished_teacher_goes_too_and_its_tasks_with_it(one_teacher, tmp_path, commits, published):
    root = tmp_path / "c.zarr"
    if published:
        shutil.copytree(one_teacher, root)
    begin_teacher(root, "half", commits, View("other_4x8", 4, 8))
    removal = remove_teacher(root, "half")
    assert removal.groups == ("teachers/half", "views/other_4x8")
    if published:
        assert tree(root) == tree(one_teacher)
    else:
        assert b"half" not in (root / "ledger.jsonl").read_bytes()
        assert tree(write_synthetic_cache(root, **SMALL)) == tree(one_teacher)


def test_a_begun_teacher_that_uses_the_view_keeps_it(one_teacher, tmp_path):
    root = shutil.copytree(one_teacher, tmp_path / "c.zarr")
    begin_teacher(root, "half", 2)
    assert remove_teacher(root, "synthetic").kept == ("views/uniform_4x8",)
    write_synthetic_cache(root, teacher="half", **SMALL)
    assert open_cache(root).teacher_names == ["half"]
    assert verify(root).faults == []


@pytest.mark.parametrize("name", ["thrid", "..", "../teachers/second", "/etc", "", "zarr.json"])
def test_an_unknown_name_is_refused_and_nothing_changes(two_teachers, name):
    before = tree(two_teachers)
    with pytest.raises(UnknownNameError, match=r"there is: second, synthetic|did you mean"):
        remove_teacher(two_teachers, name)
    assert tree(two_teachers) == before


def test_a_cache_that_is_being_written_is_left_alone(two_teachers, tmp_path):
    root = shutil.copytree(two_teachers, tmp_path / "c.zarr")
    lock = WriterLock(root, beat_s=0.2)
    with pytest.raises(LockedCacheError):
        remove_teacher(root, "second")
    lock.release()
    assert tree(root) == tree(two_teachers)


def test_a_teacher_with_a_damaged_description_can_still_be_removed(two_teachers, tmp_path):
    root = shutil.copytree(two_teachers, tmp_path / "c.zarr")
    (root / "teachers/second/zarr.json").write_bytes(b"{")
    assert remove_teacher(root, "second").groups == ("teachers/second",)
    assert verify(root).faults == []


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


class Killer:
    """Raises KilledError at call number `at` of the main thread to whatever changes the file system."""

    CHANGING = ("replace", "rename", "unlink", "rmdir", "fsync", "mkdir", "remove")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.at, self.calls = at, 0
        for name in self.CHANGING:
            # A kill, unlike a power cut, loses nothing that is not synced: no need to wait for the disk.
            real = (lambda descriptor: None) if name == "fsync" else getattr(os, name)
            monkeypatch.setattr(os, name, self._counted(real))
        opened = builtins.open

        def open_for_writing(file, mode="r", *rest, **more):
            if any(letter in mode for letter in "wax+"):
                self._count()
            return opened(file, mode, *rest, **more)

        monkeypatch.setattr(builtins, "open", open_for_writing)

    def _count(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.calls += 1
            if self.calls == self.at:
                raise KilledError

    def _counted(self, real):
        def call(*arguments, **options):
            self._count()
            return real(*arguments, **options)

        return call


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "unfinished"), [("second", False), ("only", False), ("half", True)])
def test_killed_at_any_step_the_cache_opens_and_the_same_command_ends_it(
    one_teacher, two_teachers, tmp_path, teacher, unfinished
):
    """Each of the first twenty calls that change the file system is once the last one; then every ninth."""
    start, name = tmp_path / "start.zarr", "synthetic" if teacher == "only" else teacher
    shutil.copytree(two_teachers if teacher == "second" else one_teacher, start)
    if unfinished:
        begin_teacher(start, "half", 5, View("other_4x8", 4, 8))
    others = {"second": ["synthetic"], "only": [], "half": ["synthetic"]}[teacher]
    whole = shutil.copytree(start, tmp_path / "whole.zarr")
    remove_teacher(whole, name)
    at, seen = 0, set()
    while True:
        at += 1 if at < 20 else 9
        root = shutil.copytree(start, tmp_path / f"{at}.zarr")
        with pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, at)
            try:
                remove_teacher(root, name)
            except KilledError:
                killed = True
            else:
                killed = False
        if not killed:
            assert killer.calls < at
            break
        found = open_cache(root).teacher_names
        seen.add(tuple(found))
        assert found in (others, sorted([*others, name]))
        for survivor in found:
            assert open_cache(root).teacher(survivor).video_usable.all()
            of_survivor = (f"teachers/{survivor}/", "views/uniform_4x8/")
            assert [f for f in verify(root, survivor).faults if f.path.startswith(of_survivor)] == []
        (root / "writer.lock").unlink(missing_ok=True)
        try:
            remove_teacher(root, name)
        except UnknownNameError:
            assert found == others
        assert tree(root) == tree(whole), at
        assert open_cache(root).teacher_names == others
        shutil.rmtree(root)
    assert at > 20
    assert seen == ({tuple(others)} if unfinished else {tuple(others), tuple(sorted([*others, name]))})


def test_the_command_says_what_it_did(two_teachers, tmp_path, capsys):
    root = shutil.copytree(two_teachers, tmp_path / "c.zarr")
    assert run_cli(build_parser(), ["remove", str(root), "--teacher", "second"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("removed teachers/second: ")
    assert "kept views/uniform_4x8: another teacher needs it" in printed
    assert run_cli(build_parser(), ["remove", str(root), "--teacher", "second"]) == 2
    assert "unknown teacher 'second'" in capsys.readouterr().err
