"""Whatever fails in a dump over workers: no shard is lost, none is written twice, the bytes are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from functools import partial

import psutil
import pytest
from distributed import Client

from store.errors import CacheError
from store.inputs.decode_pool import DecodePool
from store.writer import CacheWriter
from teacher_dump.dump import dump
from teacher_dump.settings import DumpSettings
from teacher_dump.workers import jobs
from teacher_dump.workers.dask_executor import DaskExecutor, Machine
from teacher_dump.workers.jobs import Sources
from tests.conftest import ROOT
from tests.store.test_kill import finished_shards, wait_for_work
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples
from tests.teacher_dump.faulty_teacher import DEADLY, FaultyTeacher, deadly_decoder, free_the_disk
from tests.teacher_dump.test_executors import cache_tree

pytestmark = pytest.mark.slow
SETTINGS = DumpSettings(batch_videos=1, batch_texts=1, threads=1, shard_rows=1, decoders=1)
TWO = Machine(workers=2, cores=2, worker_bytes=1 << 30)
OVER_WORKERS = """
import sys
from functools import partial
from pathlib import Path
from teacher_dump.workers.dask_executor import DaskExecutor
from teacher_dump.dump import dump
from teacher_dump.workers.jobs import Sources
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples
from tests.teacher_dump.faulty_teacher import FaultyTeacher
from tests.teacher_dump.test_worker_faults import SETTINGS, TWO
if __name__ == "__main__":
    root, clips = map(Path, sys.argv[1:])
    sources = Sources(partial(colour_samples, clips), partial(FaultyTeacher, pause_s=0.2))
    with DaskExecutor(TWO, sources) as workers:
        dump(root, colour_samples(clips), ColourTeacher(), SETTINGS, {}, workers)
"""


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    root = tmp_path_factory.mktemp("caches") / "whole.zarr"
    dump(root, colour_samples(clips), ColourTeacher(), SETTINGS, {})
    return cache_tree(root)


@pytest.fixture(scope="module")
def cluster():
    """Two workers that outlive each fault; a dump brings its own sources."""
    with DaskExecutor(TWO, Sources(tuple, tuple)) as two:
        yield two.client.scheduler.address


@pytest.fixture
def commits(monkeypatch):
    """The tasks that were committed, dump after dump."""
    counted, commit = Counter(), CacheWriter.commit

    def count(self, done):
        commit(self, done)
        counted[done.task] += 1

    monkeypatch.setattr(CacheWriter, "commit", count)
    return counted


def dump_over(address, root, clips, fault="", pause_s=0.0):
    """Dump on the workers of `address`, in one of which `fault` happens.

    The flag is of this dump alone: a task of an earlier dump may still run, and would take another's.
    """
    flag = root.with_name(f"{root.name}.{uuid.uuid4().hex}.flag")
    flag.touch()
    teacher = partial(FaultyTeacher, fault, flag, pause_s)
    with DaskExecutor(address, Sources(partial(colour_samples, clips), teacher)) as workers:
        dump(root, colour_samples(clips), ColourTeacher(), SETTINGS, {}, workers)
    assert not flag.exists(), "the fault did not happen"


@pytest.mark.parametrize("fault", ["kill", "memory", "write", "fsync", "read", "rename"])
def test_a_dump_goes_on_though_a_worker_meets_a_fault(cluster, clips, whole, tmp_path, commits, fault):
    """The process is killed or takes too much memory, or its file system says EIO once."""
    dump_over(cluster, tmp_path / "c.zarr", clips, fault)
    assert set(commits.values()) == {1}
    assert cache_tree(tmp_path / "c.zarr") == whole


def test_a_video_that_kills_its_decoder_each_time_is_listed_and_costs_only_itself(
    cluster, clips, tmp_path, monkeypatch
):
    dump_over(cluster, tmp_path / "workers.zarr", clips, "decoder")
    monkeypatch.setattr(jobs, "DecodePool", partial(DecodePool, decoder=deadly_decoder))
    alone = dump(tmp_path / "alone.zarr", colour_samples(clips), ColourTeacher(), SETTINGS, {})
    assert alone.teacher("colour").failures == {2: "decoder died (signal 11)"}
    assert alone.video_ids[2] == DEADLY
    assert cache_tree(tmp_path / "workers.zarr") == cache_tree(tmp_path / "alone.zarr")


def test_a_full_disk_stops_the_dump_and_a_resume_does_the_rest(cluster, clips, whole, tmp_path, commits):
    root = tmp_path / "c.zarr"
    with pytest.raises(OSError, match="No space left on device"):
        dump_over(cluster, root, clips, "disk")
    before = finished_shards(root)
    with Client(cluster, set_as_default=False) as client:
        client.run(free_the_disk)
    dump_over(cluster, root, clips)
    assert set(commits.values()) == {1}
    assert {path: (root / path).stat().st_mtime_ns for path in before} == before
    assert cache_tree(root) == whole


def started(program: list, **options) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *program], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, **options
    )


@pytest.fixture
def scheduler(tmp_path):
    """A cluster started by hand, a scheduler and two workers: the scheduler's process and address."""
    file = tmp_path / "scheduler.json"
    both = ["--scheduler-file", file, "--host", "127.0.0.1", "--no-dashboard"]
    head = started(["-m", "dask", "scheduler", *both, "--port", "0"])
    hands = started(["-m", "dask", "worker", *both, "--nworkers", "2", "--nthreads", "1"])
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield head, json.loads(file.read_text())["address"]
    for process in (hands, head):
        end_with_children(process)


def test_a_scheduler_that_is_lost_ends_the_dump_in_one_line_and_a_resume_does_the_rest(
    scheduler, clips, whole, tmp_path, commits, monkeypatch
):
    process, address = scheduler
    root, commit = tmp_path / "c.zarr", CacheWriter.commit

    def lose_the_scheduler(self, done):
        commit(self, done)
        process.kill()

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", lose_the_scheduler)
        with pytest.raises(CacheError, match="scheduler was lost"):
            dump_over(address, root, clips, pause_s=0.3)
    before = finished_shards(root)
    assert before
    dump(root, colour_samples(clips), ColourTeacher(), SETTINGS, {})
    assert set(commits.values()) == {1}
    assert cache_tree(root) == whole


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_is_lost_leaves_no_process_and_a_resume_does_the_rest(
    clips, whole, tmp_path, commits, how
):
    """Ctrl-C reaches all processes of the terminal, SIGKILL one."""
    root, script = tmp_path / "c.zarr", tmp_path / "over_workers.py"
    script.write_text(OVER_WORKERS)
    client = started([script, root, clips], start_new_session=True)
    wait_for_work(root, client, 5)
    family = psutil.Process(client.pid).children(recursive=True)
    assert len(family) >= 4
    if how == signal.SIGINT:
        os.killpg(client.pid, how)
    else:
        client.kill()
    assert client.wait(timeout=60) != 0
    before = finished_shards(root)
    # Workers of a killed client may still be at a shard: they can't spoil what is resumed meanwhile.
    dump(root, colour_samples(clips), ColourTeacher(), SETTINGS, {})
    assert {path: (root / path).stat().st_mtime_ns for path in before} == before
    assert cache_tree(root) == whole
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def end_with_children(process: subprocess.Popen) -> None:
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for one in [process, *children]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
