"""kill -9 at random moments, full disks, read-only folders: a resume loses nothing, repeats nothing."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from store.errors import IdentityError, InputError, LockedCacheError
from store.writer import CacheWriter
from tests.conftest import ROOT
from tests.store.test_writer_and_reader import tree
from tests.store.writing_process import BEAT_S, FAILED, dataset, write
from tests.synthetic_cache import run_task, shard_tasks, synthetic_plan

pytestmark = pytest.mark.slow
KILLS = 15


def finished_shards(root: Path) -> dict[str, int]:
    """Path -> time of last change, of every shard that stands in the ledger."""
    ledger = root / "ledger.jsonl"
    lines = ledger.read_bytes().split(b"\n")[:-1] if ledger.exists() else []
    paths = [record["path"] for line in lines for record in json.loads(line)["objects"]]
    shards = [path for path in paths if path.startswith(("teachers/", "views/")) and "/c/" in path]
    return {path: (root / path).stat().st_mtime_ns for path in shards}


def start(root: Path, processes: int, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.store.writing_process", str(root), str(processes)]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, **options)


def wait_for_work(root: Path, process: subprocess.Popen, already: int) -> None:
    """Until one more shard than `already` stands in the ledger, or the writer ends."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if len(finished_shards(root)) > already:
            return
        time.sleep(0.005)


def kill(process: subprocess.Popen, victim: str, chance: random.Random) -> bool:
    """SIGKILL the writer, all of its processes or one worker; False if there was nothing left to kill."""
    if victim == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "coordinator":
        process.kill()
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if workers:
            os.kill(int(chance.choice(workers)), signal.SIGKILL)
    return process.wait() != 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("caches") / "whole.zarr"
    write(root, 1)
    return tree(root)


@pytest.mark.parametrize(("processes", "victim"), [(1, "all"), (2, "all"), (2, "coordinator"), (2, "worker")])
def test_kill_minus_nine_at_random_moments_loses_and_repeats_nothing(tmp_path, whole, processes, victim):
    root, kills, chance = tmp_path / "killed.zarr", 0, random.Random(processes)
    groups = []
    for _ in range(KILLS):
        before = finished_shards(root)
        process = start(root, processes)
        groups.append(process.pid)
        wait_for_work(root, process, len(before))
        time.sleep(chance.random() * 0.03)
        gone_through = process.poll() == 0 or not kill(process, victim, chance)
        kills += not gone_through
        # What stands in the ledger is never written again; at the end the ledger itself is gone.
        still = {path: (root / path).stat().st_mtime_ns for path in before}
        if victim != "coordinator":
            assert still == before
        if gone_through:
            break
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    write(root, processes)
    assert kills >= 3, f"{kills} kills are no test"
    assert tree(root) == whole


def test_a_worker_that_outlives_its_coordinator_spoils_nothing(tmp_path, whole):
    root = tmp_path / "orphan.zarr"
    for number in range(4):
        process = start(root, 2)
        wait_for_work(root, process, len(finished_shards(root)))
        process.kill()
        process.wait()
        if number == 3:
            write(root, 1)
        os.killpg(process.pid, signal.SIGKILL)
    assert tree(root) == whole


def stop_where(root: Path, **limits: int) -> str:
    """Write in a child under resource limits; what it said when it failed."""

    def limit() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    process = start(root, 1, preexec_fn=limit)
    _, said = process.communicate()
    assert process.returncode == 1
    return said.decode()


@pytest.mark.parametrize(
    "most_bytes", [150, *(pytest.param(most, marks=pytest.mark.slow) for most in (400, 900, 1500))]
)
def test_a_disk_that_fills_up_stops_the_writer_and_a_resume_continues(tmp_path, whole, most_bytes):
    root = tmp_path / "full.zarr"
    said = stop_where(root, RLIMIT_FSIZE=most_bytes)
    assert "File too large" in said
    before = finished_shards(root)
    write(root, 1)
    assert {path: (root / path).stat().st_mtime_ns for path in before} == before
    assert tree(root) == whole


def test_a_full_disk_in_the_middle_of_a_ledger_line_does_not_count_the_task(tmp_path, whole, monkeypatch):
    root = tmp_path / "full.zarr"
    samples, plan = dataset()
    tasks = shard_tasks(samples, plan)
    with CacheWriter(root, samples, beat_s=BEAT_S) as writer:
        writer.plan(plan)
        for task in tasks[:3]:
            writer.commit(run_task(root, samples, plan, task, FAILED))
        done = run_task(root, samples, plan, tasks[3], FAILED)
        ledger = (root / "ledger.jsonl").read_bytes()
        monkeypatch.setattr(
            "os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(OSError, match="No space left"):
            writer.commit(done)
        monkeypatch.undo()
        assert done.task not in writer.ledger
        assert (root / "ledger.jsonl").read_bytes() == ledger
    write(root, 1)
    assert tree(root) == whole


@pytest.fixture
def read_only_folder():
    """A folder in which this process may not write, though it may be root's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.rmdir()


def test_a_read_only_folder_is_refused_in_one_line_and_left_as_it_was(read_only_folder):
    with pytest.raises(PermissionError, match=r"Permission denied: '.*c\.zarr'"):
        CacheWriter(read_only_folder / "c.zarr", dataset()[0])
    assert list(read_only_folder.iterdir()) == []


def test_a_second_writer_is_refused_while_the_first_one_lives(tmp_path):
    samples, plan = dataset()
    with CacheWriter(tmp_path / "c.zarr", samples, beat_s=BEAT_S) as writer:
        writer.plan(plan)
        before = tree(tmp_path / "c.zarr").keys()
        with pytest.raises(LockedCacheError, match="another process is writing"):
            CacheWriter(tmp_path / "c.zarr", samples, beat_s=BEAT_S)
        assert tree(tmp_path / "c.zarr").keys() == before


def test_a_lock_left_by_a_dead_process_is_taken_over(tmp_path, whole):
    root = tmp_path / "dead.zarr"
    root.mkdir()
    (root / "writer.lock").write_text(json.dumps({"token": "0" * 32, "beats": 7}))
    write(root, 1)
    assert tree(root) == whole


def test_a_writer_that_was_taken_over_commits_nothing_more(tmp_path):
    samples, plan = dataset()
    root = tmp_path / "c.zarr"
    with CacheWriter(root, samples, beat_s=BEAT_S) as writer:
        writer.plan(plan)
        task = shard_tasks(samples, plan)[0]
        done = run_task(root, samples, plan, task, FAILED)
        (root / "writer.lock").write_text(json.dumps({"token": "f" * 32, "beats": 1}))
        with pytest.raises(LockedCacheError, match="took over"):
            writer.commit(done)
        assert done.task not in writer.ledger
        with pytest.raises(LockedCacheError, match="took over"):
            writer.complete(plan, [])
    assert (root / "writer.lock").exists(), "the other writer's lock is not ours to remove"


def test_a_resume_under_another_identity_is_refused_and_named(tmp_path):
    samples, plan = dataset()
    root = tmp_path / "c.zarr"
    with CacheWriter(root, samples, beat_s=BEAT_S) as writer:
        writer.plan(plan)
    before = tree(root)
    other = synthetic_plan(samples, shard_rows=2)
    with (
        CacheWriter(root, samples, beat_s=BEAT_S) as writer,
        pytest.raises(IdentityError, match="shard_rows"),
    ):
        writer.plan(other)
    assert tree(root) == before


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis.tex"):
        CacheWriter(tmp_path, dataset()[0])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
