"""Whoever runs the tasks, the cache is the same; and who may run them is said in one word."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
from distributed import LocalCluster

from store.errors import IdentityError, InputError
from store.writer import CacheWriter
from teacher_dump.dump import dump, make_job, make_plan
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings, checked_executor
from teacher_dump.workers import dask_executor
from teacher_dump.workers.dask_executor import DaskExecutor, Machine, this_machine, visible_devices
from teacher_dump.workers.dask_worker import load_checked
from teacher_dump.workers.executors import SerialExecutor
from teacher_dump.workers.jobs import Sources
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples
from tests.teacher_dump.test_extend import grown

STORAGE = StorageOptions(encodings={"vit_layers": "int8"}, width=8)
SETTINGS = DumpSettings(batch_videos=1, batch_texts=1, threads=1, shard_rows=2, decoders=1, storage=STORAGE)
PLAIN = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=3, decoders=1)
TWO = Machine(workers=2, cores=2, worker_bytes=1 << 31)


def cache_tree(root):
    """What lies in the cache, without the seconds that it took."""
    found = tree(root)
    del found["reports/dump.json"]
    return found


@pytest.fixture(scope="module")
def cluster(clips):
    with DaskExecutor(
        TWO, Sources(partial(colour_samples, clips), partial(ColourTeacher, layer=True))
    ) as two:
        yield two


@pytest.mark.parametrize("name", ["serial", "local:1", "local:64", "tcp://10.0.0.7:8786", "tls://head:8786"])
def test_an_executor_is_named_in_one_word(name):
    assert checked_executor(name) == name


@pytest.mark.parametrize(
    "name", ["", "dask", "local", "local:", "local:0", "local:-1", "local:x", "tcp", "tcp:1"]
)
def test_another_word_is_refused_and_the_three_are_told(name):
    with pytest.raises(InputError, match=r"serial, local:N .* tcp://HOST:8786"):
        checked_executor(name)


def test_workers_share_the_cores_of_their_machine():
    assert Machine(workers=2, cores=16, worker_bytes=1).share.threads == 8
    assert Machine(workers=4, cores=2, worker_bytes=1).share.threads == 1


def test_each_worker_owns_one_of_the_visible_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,GPU-7")
    assert this_machine(2, "cuda", None).devices == ("3", "5", "GPU-7")
    assert visible_devices("cuda:1") == ("5",)
    assert this_machine(2, "cpu", 3).devices == ()
    assert this_machine(2, "cpu", 3).worker_bytes == 3 << 30
    with pytest.raises(
        InputError, match="local:4 gives each worker a GPU of its own, cuda names 3; use local:3"
    ):
        this_machine(4, "cuda", None)


def test_a_scheduler_without_workers_says_how_to_start_one(clips, monkeypatch):
    monkeypatch.setattr(dask_executor, "CONNECT_S", 1)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        executor = DaskExecutor(address, Sources(partial(colour_samples, clips), ColourTeacher))
        with executor, pytest.raises(InputError) as caught:
            executor.share()
    assert f"start some: dask worker {address} --nthreads 1" in str(caught.value)


def loaded(root, samples, theirs):
    """What a worker has that reads the rows `theirs`, once it is compared with a coordinator of `samples`."""
    with CacheWriter(root, samples, extend=True) as writer:
        plan = make_plan(writer, ColourTeacher(), PLAIN, SerialExecutor())
        job = make_job(writer, plan, PLAIN, SerialExecutor())
        return load_checked(job, Sources(lambda: theirs, ColourTeacher))


def test_a_worker_works_on_the_coordinators_rows_and_on_no_others(clips, tmp_path):
    root, samples = tmp_path / "c.zarr", colour_samples(clips)
    dump(root, samples, ColourTeacher(), PLAIN, {})
    more = grown(clips)
    assert loaded(root, samples, samples)[0] is samples
    assert loaded(root, more, more)[0] is more
    with pytest.raises(IdentityError, match="the dataset in a worker differs in"):
        loaded(root, more, samples)


@pytest.mark.slow
def test_two_workers_append_the_rows_that_one_process_appends(clips, tmp_path):
    """And another teacher, later, to all of them."""
    more, first = grown(clips), tmp_path / "first.zarr"
    dump(first, colour_samples(clips), ColourTeacher(), PLAIN, {})
    roots = [shutil.copytree(first, tmp_path / name) for name in ("serial.zarr", "workers.zarr")]
    with DaskExecutor(TWO, Sources(partial(grown, clips), ColourTeacher)) as two:
        for root, executor in zip(roots, (SerialExecutor(), two), strict=True):
            dump(root, more, ColourTeacher(), PLAIN, {}, executor, extend=True)
    with DaskExecutor(TWO, Sources(partial(grown, clips), partial(ColourTeacher, name="bright"))) as two:
        for root, executor in zip(roots, (SerialExecutor(), two), strict=True):
            dump(root, more, ColourTeacher(name="bright"), PLAIN, {}, executor)
    assert cache_tree(roots[1]) == cache_tree(roots[0])


@pytest.mark.slow
def test_two_workers_write_the_cache_that_one_process_writes(clips, cluster, tmp_path, capfd):
    samples, teacher = colour_samples(clips), ColourTeacher(layer=True)
    dump(tmp_path / "serial.zarr", samples, teacher, SETTINGS, {})
    dump(tmp_path / "workers.zarr", samples, teacher, SETTINGS, {}, cluster)
    assert cache_tree(tmp_path / "workers.zarr") == cache_tree(tmp_path / "serial.zarr")
    assert "dashboard: http://127.0.0.1:" in capfd.readouterr().err


@pytest.mark.slow
def test_a_worker_that_loads_another_teacher_or_other_rows_writes_nothing(clips, cluster, tmp_path):
    samples = colour_samples(clips)
    with pytest.raises(IdentityError, match=r"teacher 'colour' in a worker differs in identity.gain"):
        dump(tmp_path / "gain.zarr", samples, ColourTeacher(gain=2.0, layer=True), SETTINGS, {}, cluster)
    assert not list((tmp_path / "gain.zarr" / "teachers").rglob("c/*"))
