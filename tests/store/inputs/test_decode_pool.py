"""The pool: in order, ahead of its reader, and at the cost of one video where a decoder hangs or dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from store.errors import CacheError, InputError, UndecodableVideoError
from store.inputs.decode_pool import AHEAD_PER_WORKER, DecodeFailure, DecodePool, Limits
from store.inputs.frames import DecodedVideo
from store.inputs.view import RANDOM_SEGMENTS, View
from tests.conftest import ROOT
from tests.store.inputs.clips import number_of, write_clip

VIEW = View("test", 2, 32)


def small_video(number: int) -> DecodedVideo:
    pixels = np.full((1, 2, 32, 32, 3), number, dtype=np.uint8)
    times, valid = np.zeros((1, 2)), np.ones((1, 2), dtype=bool)
    box, flip = np.zeros((1, 4), dtype=np.float32), np.zeros(1, dtype=bool)
    thumbnail, colour = pixels[..., :16, :16, :], np.ones((1, 4), dtype=np.float32)
    return DecodedVideo(pixels, times, valid, thumbnail, box, flip, colour, "test", 1.0, 0)


def acting_decoder(path: Path, view: View, video_id: str) -> DecodedVideo:
    """A decoder that does what the path says; `<number>` decodes to that number, `slow-<number>` later."""
    what, _, number = path.name.rpartition("-")
    if what == "hang":
        time.sleep(600)
    if what == "once" and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "counted":
        path.write_text((path.read_text() if path.exists() else "") + "x")
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(3)
    if what == "broken":
        raise UndecodableVideoError("empty file (0 bytes)")
    if what == "bug":
        raise KeyError(path)
    if what == "memory":
        np.ones(int(number) << 20, dtype=np.uint8)
    if what == "id":
        return small_video(int(video_id))
    if what == "view":
        raise InputError("the view is wrong")
    if what == "slow":
        time.sleep(0.3)
    if what == "torch":
        return small_video("torch" in sys.modules)
    return small_video(int(number))


GENEROUS = Limits(20.0)


def outcomes(names, workers=2, limits=GENEROUS):
    with DecodePool(VIEW, workers, limits, acting_decoder) as pool:
        return [told(outcome) for outcome in pool.decode(Path(name) for name in names)]


def told(outcome):
    return outcome.reason if isinstance(outcome, DecodeFailure) else int(outcome.frames[0, 0, 0, 0, 0])


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    assert multiprocessing.active_children() == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_videos_come_in_order_though_some_take_longer():
    names = [f"slow-{number}" if number % 3 == 0 else str(number) for number in range(12)]
    assert outcomes(names, workers=3) == list(range(12))


def test_real_clips_and_broken_ones_go_through(tmp_path):
    paths = [write_clip(tmp_path / f"{frames}.mp4", frames=frames) for frames in (4, 8)]
    paths.insert(1, tmp_path / "empty.mp4")
    paths[1].touch()
    with DecodePool(VIEW) as pool:
        first, empty, last = pool.decode(paths)
    assert [number_of(square) for square in first.frames[0]] == [1, 3]
    assert empty == DecodeFailure("empty file (0 bytes)")
    assert [number_of(square) for square in last.frames[0]] == [2, 6]


@pytest.mark.slow
def test_a_video_that_hangs_is_listed_and_the_rest_goes_on():
    assert outcomes(["1", "hang-0", "2", "3"], limits=Limits(1.5)) == [1, "took longer than 1.5 s", 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash-0", "decoder died (signal 11)"),
        ("exit-0", "decoder died (exit code 3)"),
        ("broken-0", "empty file (0 bytes)"),
        ("memory-4000", "needs more memory than a decoder may take"),
        ("bug-0", "the decoder raised KeyError"),
    ],
)
def test_a_video_that_takes_its_decoder_with_it_is_listed_and_the_rest_goes_on(name, reason):
    assert outcomes(["1", name, "2", name, "3"], workers=1) == [1, reason, 2, reason, 3]


def test_the_memory_limit_is_what_it_says():
    limits = Limits(20.0, memory_mb=300)
    starved = "needs more memory than a decoder may take"
    names = ["memory-200", "memory-400", "memory-200"]
    assert outcomes(names, 1, limits) == [200, starved, 200]


def test_a_file_that_decodes_to_more_than_it_may_is_listed(tmp_path):
    """Frames of 4096 x 4096 are within what is decoded at all, and 40 MB each with those they refer to."""
    clip = {"frames": 3, "size": (4096, 4096), "options": {"preset": "ultrafast"}}
    paths = [write_clip(tmp_path / "small.mp4"), write_clip(tmp_path / "large.mp4", **clip)]
    with DecodePool(VIEW, 1, Limits(60.0, memory_mb=60)) as pool:
        small, large = pool.decode(paths)
    assert [number_of(square) for square in small.frames[0]] == [10, 30]
    assert large == DecodeFailure("needs more memory than a decoder may take")


def test_a_worker_killed_from_outside_costs_no_video(tmp_path):
    """As the kernel does when the machine is out of memory."""
    assert outcomes(["1", tmp_path / "once-7", "2"], workers=1) == [1, 7, 2]


def test_a_video_that_kills_its_decoder_each_time_is_listed_after_two_tries(tmp_path):
    assert outcomes(["1", tmp_path / "counted-0", "2"], workers=1) == [1, "decoder died (signal 9)", 2]
    assert (tmp_path / "counted-0").read_text() == "xx"


def test_ids_reach_the_decoder_that_draws_by_them(tmp_path):
    with DecodePool(VIEW, 2, Limits(20.0), acting_decoder) as pool:
        names = [Path(f"id-{number}") for number in range(4)]
        assert [told(video) for video in pool.decode(names, "6789")] == [6, 7, 8, 9]
    clip, view = write_clip(tmp_path / "clip.mp4"), View("drawn", 4, 32, RANDOM_SEGMENTS)
    with DecodePool(view, 1) as pool:
        (drawn,) = pool.decode([clip], ["an id"])
    wanted = view.frame_indices(np.arange(40), video_id="an id").tolist()
    assert [number_of(square) for square in drawn.frames[0]] == wanted


def test_every_video_has_pixels_of_its_own():
    """The next video is written into the same shared memory."""
    with DecodePool(VIEW, 1, Limits(20.0), acting_decoder) as pool:
        first, second = pool.decode([Path("3"), Path("4")])
    assert (told(first), told(second)) == (3, 4)


def test_what_is_wrong_with_every_video_stops_the_run():
    with pytest.raises(InputError, match="the view is wrong"):
        outcomes(["1", "view-0", "2"])


def test_workers_do_not_import_torch():
    assert outcomes(["torch-0"], workers=1) == [0]


def test_the_pool_decodes_ahead_but_not_without_bound():
    asked = []

    def names():
        for number in range(40):
            asked.append(number)
            yield Path(str(number))

    with DecodePool(VIEW, 2, Limits(20.0), acting_decoder) as pool:
        videos = pool.decode(names())
        next(videos)
        assert len(asked) == 2 * AHEAD_PER_WORKER


def test_leaving_early_ends_the_workers_at_once():
    begin = time.monotonic()
    with DecodePool(VIEW, 1, Limits(60.0), acting_decoder) as pool:
        videos = pool.decode([Path("1"), Path("hang-0"), Path("2")])
        assert told(next(videos)) == 1
    assert time.monotonic() - begin < 30


@pytest.fixture
def hanging_program(tmp_path):
    """A program in a group of its own whose two workers hang, and the pids of these."""
    paths = [str(tmp_path / name) for name in "ab"]
    code = f"from tests.store.inputs.test_decode_pool import hang_in_a_pool; hang_in_a_pool({paths})"
    program = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        yield program, wait_for_pids(tmp_path)
    finally:
        program.kill()
        program.wait()


@pytest.mark.slow
def test_the_processes_are_gone_after_ctrl_c(hanging_program):
    """Ctrl-C goes to the whole group, as from a terminal."""
    program, workers = hanging_program
    os.killpg(program.pid, signal.SIGINT)
    assert program.wait(30) != 0
    assert wait_until_gone(workers)


@pytest.mark.slow
def test_the_processes_are_gone_when_the_program_is_killed(hanging_program):
    program, workers = hanging_program
    program.kill()
    program.wait(30)
    assert wait_until_gone(workers)


def hang_in_a_pool(paths):
    # A test run in the background passes on that SIGINT is ignored; a program at a terminal does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with DecodePool(VIEW, len(paths), Limits(60.0), leave_pid_and_hang) as pool:
        list(pool.decode(Path(path) for path in paths))


def leave_pid_and_hang(path: Path, view: View, video_id: str) -> DecodedVideo:
    path.with_suffix(".tmp").write_text(str(os.getpid()))
    path.with_suffix(".tmp").rename(path.with_suffix(".pid"))
    time.sleep(600)
    return small_video(0)


def wait_for_pids(folder):
    for _ in range(600):
        pids = [int(path.read_text()) for path in folder.glob("*.pid")]
        if len(pids) == 2:
            return pids
        time.sleep(0.1)
    raise AssertionError("the workers did not start")


def wait_until_gone(pids):
    for _ in range(300):
        if not any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def is_zombie(pid):
    """Killed, and waiting for a parent that a container may not have."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(("workers", "time_s", "memory_mb"), [(0, 1, 1), (1, 0, 1), (1, -1, 1), (1, 1, 0)])
def test_a_pool_of_nobody_or_of_no_time_or_memory_is_refused(workers, time_s, memory_mb):
    with pytest.raises(InputError, match="needs"):
        DecodePool(VIEW, workers, Limits(time_s, memory_mb))


def test_a_closed_pool_says_so():
    with DecodePool(VIEW, 1, Limits(5.0), acting_decoder) as pool:
        pass
    with pytest.raises((CacheError, RuntimeError)):
        list(pool.decode([Path("1")]))
