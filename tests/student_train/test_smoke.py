"""One batch before a long job: it fails where the training would, tells what to expect, changes nothing."""

from __future__ import annotations

import math
import re
import subprocess
import sys
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
from tests.conftest import ROOT
from tests.student_train.small_training import RECIPE, task_and_stream

QUICK = ["--recipe", "demo", "--epochs", "2", "--batch-size", "16", "--seeds", "0"]
QUICK += ["--learning-rates", "0.001"]


def test_a_batch_goes_through_losses_gradients_and_an_update(oracle: TeacherReader) -> None:
    task, stream = task_and_stream(oracle)
    before = {name: value.clone() for name, value in task.named_parameters()}
    estimate = smoke_step(task, stream, RECIPE)
    assert not any(torch.equal(value, before[name]) for name, value in task.named_parameters())
    assert 0 < estimate.step_s < 10
    assert 50 * 2**20 < estimate.peak_bytes < 8 * 2**30


@pytest.mark.slow
def test_memory_is_that_of_this_process_not_of_the_one_that_started_it() -> None:
    large = bytearray(1 << 30)
    large[:: 1 << 12] = b"x" * len(large[:: 1 << 12])
    told = (
        "import torch; from student_train.smoke import peak_memory; print(peak_memory(torch.device('cpu')))"
    )
    found = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 50 * 2**20 < int(found.stdout) < len(large)


def test_every_arm_is_tried_before_anything_is_written(learnable_path: Path, tmp_path: Path, capsys) -> None:
    words = ["train", str(learnable_path), "--out", str(tmp_path / "run"), *QUICK]
    for setting, told in (
        ("untaught_losses.info_nce=0", "there is no loss to learn by; give one a weight: coarse_cross"),
        ("optimizer.schedule=cosin", "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("optimizer.name=adamx", "unknown optimizer 'adamx'; did you mean 'adamw'?"),
        ("optimizer.betas=2,3", "betas lie from 0 to below 1, got 2.0, 3.0"),
        ("optimizer.weight_decay=-1", "weight_decay is at least 0, got -1"),
        ("optimizer.lr_scale.atention.=10", "optimizer.lr_scale 'atention.'; did you mean 'attention.'?"),
        ("optimizer.undecayed=atention", "optimizer.undecayed 'atention'; did you mean 'attention.'?"),
        ("losses.nce=1", "unknown loss 'nce'"),
    ):
        assert main([*words, "--set", setting]) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    assert main([*words, "--set", "losses.nce=1", "--print-config"]) == 2


def test_time_and_memory_are_told_for_all_steps_of_all_trainings() -> None:
    told = Estimate(step_s=0.5, peak_bytes=2_600_000_000).told(steps=1200, trainings=3)
    assert "a step takes about 500 ms" in told
    assert "1,200 steps x 3 trainings, about 30 min" in told
    assert told.endswith("memory about 2.6 GB")


def test_a_long_job_is_told_beforehand_what_it_takes_and_a_short_one_is_not(
    learnable_path: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", str(learnable_path), "--out", str(tmp_path / "short"), *QUICK]) == 0
    assert "tried a batch" not in capsys.readouterr().out
    monkeypatch.setattr(experiment, "LONG_S", 0.0)
    assert main(["train", str(learnable_path), "--out", str(tmp_path / "long"), *QUICK]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    # 3 batches in each of 2 epochs, untaught and taught.
    assert re.match(r"tried a batch in \d+ s: a step takes .*: 6 steps x 2 trainings, about 0 min", first)
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
    assert not (tmp_path / "run").exists()


class FullDeviceError(CacheError):
    """What a device says whose memory is full."""
