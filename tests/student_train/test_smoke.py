"""One batch before a long job: it fails where the training would, tells what to expect, changes nothing."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from store.errors import CacheError
from store.reader import TeacherReader
from student_train import experiment
from student_train.__main__ import main
from student_train.rows import PerRow
from student_train.smoke import Estimate, smoke_step
from student_train.students import afa
from tests.student_train.small_training import RECIPE, task_and_stream

QUICK = ["--recipe", "demo", "--epochs", "2", "--batch-size", "16", "--seeds", "0"]
QUICK += ["--learning-rates", "0.001"]


def test_a_batch_goes_through_losses_and_gradients_and_no_parameter_moves(oracle: TeacherReader) -> None:
    task, stream = task_and_stream(oracle)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    estimate = smoke_step(task, stream, RECIPE)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    assert 0 < estimate.step_s < 10
    parameters = sum(p.numel() * p.element_size() for p in task.parameters())
    assert estimate.peak_bytes > 50 * 2**20 + 2 * parameters, "the process, and two moments"


def test_time_and_memory_are_told_for_all_steps_of_all_trainings() -> None:
    told = Estimate(step_s=0.5, peak_bytes=2_600_000_000).told(steps=1200, trainings=3)
    assert "a step takes about 500 ms" in told
    assert "1,200 steps x 3 trainings, about 30 min" in told
    assert told.endswith("memory about 2.6 GB")


def test_a_long_job_is_told_beforehand_what_it_takes_and_a_short_one_is_not(
    learnable_path: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", str(learnable_path), "--out", str(tmp_path / "short"), *QUICK]) == 0
    assert "tried one batch" not in capsys.readouterr().out
    monkeypatch.setattr(experiment, "LONG_S", 0.0)
    assert main(["train", str(learnable_path), "--out", str(tmp_path / "long"), *QUICK]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    # 3 batches in each of 2 epochs, untaught and taught.
    assert re.match(r"tried one batch in \d+ s: a step takes .*: 6 steps x 2 trainings, about 0 min", first)
    stories = [sorted((tmp_path / run / "trainings").iterdir()) for run in ("short", "long")]
    students = [[(path / "student.safetensors").read_bytes() for path in run] for run in stories]
    assert students[0] == students[1], "the trial changes no training"


def test_what_would_fail_in_the_first_step_fails_before_the_first_training(
    learnable_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(outputs: dict, batch: dict) -> PerRow:
        raise FullDeviceError(f"no room for {math.prod(outputs['logits'].rows.shape)} logits")

    monkeypatch.setitem(afa.LOSSES, "info_nce", afa.LossTerm(broken, reads=("logits",)))
    with pytest.raises(FullDeviceError, match="no room for 256 logits"):
        main(["train", str(learnable_path), "--out", str(tmp_path / "run"), *QUICK, "--debug"])
    assert not (tmp_path / "run" / "trainings").exists()


class FullDeviceError(CacheError):
    """What a device says whose memory is full."""
