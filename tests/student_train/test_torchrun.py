"""`torchrun` as a person types it: two processes train as one, end on SIGTERM, survive a SIGKILL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from store.reader import open_cache
from student_train.__main__ import main
from student_train.checkpoint import Checkpoints, StepLog
from tests.conftest import ROOT
from tests.student_train.small_training import TIMES, run
from tests.student_train.test_recognition_commands import SMALL, write_class_cache

pytestmark = pytest.mark.slow
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
QUICK = (
    "--epochs",
    "3",
    "--batch-size",
    "16",
    "--seeds",
    "0",
    "--arms",
    "taught",
    "--learning-rates",
    "0.003",
)
SECONDS = 120


def begin(*words: str) -> subprocess.Popen[str]:
    """`torchrun` with these words, in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipe = subprocess.PIPE
    return subprocess.Popen([*TWO, *words], cwd=ROOT, env=environment, text=True, stdout=pipe, stderr=pipe)


def finish(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = started.communicate(timeout=SECONDS)
    return started.returncode, out, err


def lines(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def assert_same_course(found: Sequence[dict], expected: Sequence[dict]) -> None:
    """Every number of every step, but times: equal up to the order in which floats are added.

    A loss of another batch, or of another order of batches, is far from that.
    """
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - set(TIMES):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-6), (name, theirs["step"])


@pytest.mark.parametrize("more", [(), ("--set", "optimizer.accumulation=2")])
def test_the_command_trains_in_two_processes_as_in_one(
    learnable_path: Path, tmp_path: Path, capsys, more: tuple[str, ...]
) -> None:
    words = [*QUICK, *more]
    status, out, err = finish(
        begin("-m", "student_train", "train", str(learnable_path), "--out", str(tmp_path / "two"), *words)
    )
    assert status == 0, err
    assert main(["train", str(learnable_path), "--out", str(tmp_path / "one"), *words]) == 0
    (two,), (one,) = (list((tmp_path / run).glob("trainings/*")) for run in ("two", "one"))
    assert_same_course(lines(two / "log.jsonl"), lines(one / "log.jsonl"))
    stories = [json.loads((folder / "training.json").read_text()) for folder in (two, one)]
    assert stories[0]["kept_epoch"] == stories[1]["kept_epoch"]
    printed = capsys.readouterr().out
    assert out.count("Written to") == 1, "only process 0 tells"
    tables = [[line for line in told.splitlines() if "| taught" in line] for told in (out, printed)]
    assert tables[0] == tables[1] != []
    assert main(["evaluate", str(tmp_path / "two"), "--cache", str(learnable_path)]) == 0


def test_few_shots_are_trained_in_two_processes_as_in_one(tmp_path: Path) -> None:
    cache = write_class_cache(tmp_path / "classes.zarr", "classes", 0)
    words = (str(cache), *SMALL, "--shots", "1,all", "--batch-size", "6", "--set", "model.heads=2")
    status, out, err = finish(
        begin("-m", "student_train", "few-shot", *words, "--out", str(tmp_path / "two"))
    )
    assert status == 0, err
    assert out.count("# Few shots") == out.count("-- all") == 1, "only process 0 tells"
    assert main(["few-shot", *words, "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "few_shot.md").read_bytes() == (tmp_path / "two" / "few_shot.md").read_bytes()
    assert main(["evaluate", str(tmp_path / "two" / "shots-all")]) == 0


@pytest.fixture(scope="module")
def undisturbed(learnable_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The log of one process that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return trained_alone(learnable_path, folder)


def trained_alone(cache: Path, folder: Path) -> list[dict]:
    """One process trains, or goes on with what lies in `folder`; the whole log."""
    log = StepLog(folder)
    checkpoints = Checkpoints(folder / "checkpoints", before_saving=log.flush)
    run(open_cache(cache).teacher("oracle"), checkpoints=checkpoints, logs=[log])
    log.close()
    return lines(folder / "log.jsonl")


ONE_TRAINING = ("-m", "tests.student_train.small_training")


@pytest.fixture(scope="module")
def killed(learnable_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left whose first was killed with the numbers of step 6."""
    folder = tmp_path_factory.mktemp("killed")
    status, _, err = finish(
        begin(*ONE_TRAINING, str(learnable_path), str(folder), "--every", "2", "--kill-at", "6")
    )
    assert status != 0
    assert "SIGKILL" in err
    assert Checkpoints(folder / "checkpoints").step() == 6
    return folder


def test_after_a_sigkill_two_processes_go_on_with_the_batches_that_remain(
    learnable_path: Path, killed: Path, tmp_path: Path, undisturbed: list[dict]
) -> None:
    folder = shutil.copytree(killed, tmp_path / "run")
    assert finish(begin(*ONE_TRAINING, str(learnable_path), str(folder)))[0] == 0
    assert_same_course(lines(folder / "log.jsonl"), undisturbed)


def test_one_process_goes_on_where_two_were_killed(
    learnable_path: Path, killed: Path, tmp_path: Path, undisturbed: list[dict]
) -> None:
    folder = shutil.copytree(killed, tmp_path / "run")
    assert_same_course(trained_alone(learnable_path, folder), undisturbed)


def test_two_processes_go_on_where_one_was_killed(
    learnable_path: Path, tmp_path: Path, undisturbed: list[dict]
) -> None:
    words = (*ONE_TRAINING, str(learnable_path), str(tmp_path))
    alone = [sys.executable, *words, "--every", "5", "--kill-at", "7"]
    assert subprocess.run(alone, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert Checkpoints(tmp_path / "checkpoints").step() == 5
    assert finish(begin(*words))[0] == 0
    assert_same_course(lines(tmp_path / "log.jsonl"), undisturbed)


def test_a_sigterm_to_torchrun_lets_every_process_save_and_end(learnable_path: Path, tmp_path: Path) -> None:
    """The epochs would take minutes; the same command, with SIGTERM once more, then goes on from there."""
    folder, done = tmp_path / "run", 0
    words = [word.replace("3", "9999") if word == "3" else word for word in QUICK]
    for _ in range(2):
        started = begin("-m", "student_train", "train", str(learnable_path), "--out", str(folder), *words)
        wait_for_step(folder, started, done + 5)
        started.send_signal(signal.SIGTERM)
        _, _, err = finish(started)
        (training,) = folder.glob("trainings/*")
        step = Checkpoints(training / "checkpoints").step()
        assert step > done
        assert f"ended by SIGTERM after step {step}; its state is saved" in err
        assert [line["step"] for line in lines(training / "log.jsonl")] == list(range(step))
        done = step


def wait_for_step(folder: Path, started: subprocess.Popen[str], step: int) -> None:
    """Until the log of the only training tells of `step`."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert started.poll() is None, started.communicate()[1]
        logs = list(folder.glob("trainings/*/log.jsonl"))
        if logs and logs[0].read_bytes().count(b"\n") > step:
            return
        time.sleep(0.2)
    raise AssertionError(f"no step {step} within {SECONDS} s")
