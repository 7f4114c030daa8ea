"""A training that ends anywhere goes on as if it had not: in this process, and after a real SIGKILL."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from store.errors import IdentityError
from store.reader import TeacherReader, open_cache
from student_train.__main__ import main
from student_train.checkpoint import Checkpoints, StepLog
from student_train.experiment import Experiment
from student_train.guard import TerminatedError, UnchangedCache
from student_train.run_folder import pinned_digests
from student_train.students.base import Student
from tests.conftest import ROOT
from tests.student_train.learnable_cache import learnable_samples, write_learnable_cache
from tests.student_train.small_training import run, timeless

STEPS = 12


class LostPowerError(Exception):
    pass


def lines(folder: Path) -> list[dict]:
    return [timeless(json.loads(line)) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(learnable_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], dict]:
    """Log and kept parameters of a training that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    log = StepLog(folder)
    trained = run(open_cache(learnable_path).teacher("oracle"), logs=[log])
    log.close()
    return lines(folder), trained.state


def until(step: int, teacher: TeacherReader, folder: Path, error: BaseException | None = None) -> None:
    """A training that loses its process after the numbers of `step` are written."""
    log = StepLog(folder)

    def stop(number: int, line: dict) -> None:
        if number == step and error is None:
            os.kill(os.getpid(), signal.SIGTERM)
        elif number == step:
            raise error

    checkpoints = Checkpoints(
        folder / "checkpoints", every_steps=2 if error else None, before_saving=log.flush
    )
    try:
        run(teacher, checkpoints=checkpoints, logs=[log, stop])
    finally:
        log.close()


def resumed(teacher: TeacherReader, folder: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(12345)
    log = StepLog(folder)
    trained = run(teacher, checkpoints=Checkpoints(folder / "checkpoints"), logs=[log])
    log.close()
    return trained.state


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("step", [0, 1, 5, 6, 11])
def test_what_remains_after_a_loss_of_power_equals_an_undisturbed_training(
    oracle: TeacherReader, undisturbed, tmp_path: Path, step: int
) -> None:
    with pytest.raises(LostPowerError):
        until(step, oracle, tmp_path, LostPowerError())
    state = resumed(oracle, tmp_path)
    assert lines(tmp_path) == undisturbed[0]
    assert same(state, undisturbed[1])


def test_a_sigterm_saves_the_state_and_the_next_start_goes_on_there(
    oracle: TeacherReader, undisturbed, tmp_path: Path
) -> None:
    with pytest.raises(TerminatedError, match=r"SIGTERM after step [78]; its state is saved"):
        until(6, oracle, tmp_path)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    first = lines(tmp_path)
    assert len(first) in (7, 8)
    assert same(resumed(oracle, tmp_path), undisturbed[1])
    assert lines(tmp_path) == undisturbed[0]


def test_a_sigterm_while_the_last_epoch_is_scored_ends_the_run_once_it_is_saved(
    learnable_path: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Experiment.validate

    def asked_to_end(experiment: Experiment, student: Student) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(experiment, student)

    words = [
        "train",
        str(learnable_path),
        "--out",
        str(tmp_path / "run"),
        "--recipe",
        "demo",
        "--epochs",
        "1",
    ]
    words += ["--batch-size", "16", "--seeds", "0", "--learning-rates", "0.001"]
    monkeypatch.setattr(Experiment, "validate", asked_to_end)
    assert main(words) == 143
    assert "SIGTERM came with its last step; it is finished and saved" in capsys.readouterr().err
    assert len(list((tmp_path / "run").glob("trainings/*/training.json"))) == 1
    monkeypatch.setattr(Experiment, "validate", validate)
    assert main(words) == 0


@pytest.mark.parametrize("damage", ["tensors", "facts", "half a file"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_the_one_before_is_used(
    oracle: TeacherReader, undisturbed, tmp_path: Path, damage: str
) -> None:
    with pytest.raises(LostPowerError):
        until(9, oracle, tmp_path, LostPowerError())
    newest = sorted((tmp_path / "checkpoints").glob("step-*.json"))[-1]
    file = newest if damage == "facts" else newest.with_suffix(".safetensors")
    content = bytearray(file.read_bytes())
    if damage == "half a file":
        content = content[: len(content) // 2]
    else:
        at = content.index(b'"step": 8') + 8 if damage == "facts" else len(content) - 5
        content[at] ^= 1
    file.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="step-00000008.* was changed.* the checkpoint before it is used"):
        state = resumed(oracle, tmp_path)
    assert lines(tmp_path) == undisturbed[0]
    assert same(state, undisturbed[1])


def test_a_state_that_was_cut_off_while_it_was_written_does_not_count(
    oracle: TeacherReader, undisturbed, tmp_path: Path
) -> None:
    with pytest.raises(LostPowerError):
        until(9, oracle, tmp_path, LostPowerError())
    sorted((tmp_path / "checkpoints").glob("step-*.json"))[-1].unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert same(resumed(oracle, tmp_path), undisturbed[1])


def test_a_cache_that_changes_while_one_trains_is_refused_unless_only_a_teacher_was_added(
    tmp_path: Path,
) -> None:
    path = write_learnable_cache(tmp_path / "c.zarr")
    cache = open_cache(path)
    unchanged = UnchangedCache(cache, lambda found: pinned_digests(found, ("oracle",)))
    unchanged()
    write_learnable_cache(tmp_path / "more.zarr", teachers=("oracle", "other"))
    path.rename(tmp_path / "before.zarr")
    (tmp_path / "more.zarr").rename(path)
    unchanged()
    write_learnable_cache(tmp_path / "rows.zarr", learnable_samples({"train": 40, "val": 20, "test": 40}))
    path.rename(tmp_path / "between.zarr")
    (tmp_path / "rows.zarr").rename(path)
    with pytest.raises(IdentityError, match=r"since this training began"):
        unchanged()


def start(cache: Path, folder: Path, *options: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.student_train.small_training", str(cache), str(folder), *options]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize("draw", range(3))
def test_after_sigkills_at_random_steps_the_losses_are_those_of_an_undisturbed_training(
    learnable_path: Path, undisturbed, tmp_path: Path, draw: int
) -> None:
    first, second = sorted(random.Random(draw).sample(range(STEPS), 2))
    every = ("--every", str(draw + 1))
    assert start(learnable_path, tmp_path, "--kill-at", str(first), *every) == -signal.SIGKILL
    assert start(learnable_path, tmp_path, "--kill-at", str(second), *every) == -signal.SIGKILL
    assert start(learnable_path, tmp_path, *every) == 0
    assert lines(tmp_path) == undisturbed[0]
