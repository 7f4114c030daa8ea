"""The whole path on a small demo: render, dump, train, evaluate, and train where nothing else is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from store.inputs.demo_clips import render
from store.retrieval_metrics import DIRECTIONS, METRICS
from tests.conftest import ROOT

TRAINING = ["--epochs", "2", "--batch-size", "16", "--learning-rates", "0.001,0.003", "--seeds", "3,5"]


def run(*words, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(cwd)}
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with demo/ (clips), demo.zarr and run/, made by the commands of the README at a small size."""
    folder = tmp_path_factory.mktemp("demo")
    render(folder / "demo", split_sizes={"train": 64, "val": 16, "test": 24}, seed=1, workers=2)
    dumped = run("teacher_dump", "dump", "--data", folder / "demo", "--cache", folder / "demo.zarr")
    assert dumped.returncode == 0, dumped.stderr
    trained = run("student_train", "train", folder / "demo.zarr", "--out", folder / "run", *TRAINING)
    assert trained.returncode == 0, trained.stderr
    (folder / "dumped.txt").write_text(dumped.stdout)
    (folder / "trained.txt").write_text(trained.stdout)
    return folder


def test_the_dump_prints_what_is_in_the_cache(made):
    printed = (made / "dumped.txt").read_text()
    for signal in ("frame_embedding", "text_embedding", "video_text_logits", "frame_relevance"):
        assert signal in printed
    assert printed.count("\n  vit_layers/") == 2
    assert "complete" in printed


def test_results_hold_every_number_for_teacher_untaught_and_taught(made):
    results = json.loads((made / "run/results.json").read_text())
    for who, seeds in (("teacher", 1), ("untaught", 2), ("taught", 2)):
        for direction in DIRECTIONS:
            for metric in METRICS:
                numbers = results[who][direction][metric]
                assert set(numbers) == {"mean", "std", "per_seed"}
                assert len(numbers["per_seed"]) == seeds
    assert set(results["seconds"]) >= {"render", "videos", "texts", "pairs", "train untaught", "train taught"}
    assert results["bytes"]["video_text_logits"] > 104 * 104 * 2
    assert results["frame_weights"]["uniform"]
    assert "taught" in (made / "run/results.md").read_text()
    assert (made / "run/results.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_repeats_the_numbers_from_the_saved_students(made):
    evaluated = run("student_train", "evaluate", made / "run")
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "The same numbers" in evaluated.stdout


def test_a_second_training_trains_nothing_and_prints_the_same_table(made):
    students = {path: path.stat().st_mtime_ns for path in (made / "run").rglob("*.safetensors")}
    again = run("student_train", "train", made / "demo.zarr", "--out", made / "run", *TRAINING)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (made / "run").rglob("*.safetensors")} == students
    table = [line for line in (made / "trained.txt").read_text().splitlines() if line.startswith("|")]
    assert [line for line in again.stdout.splitlines() if line.startswith("|")] == table


def test_training_needs_neither_clips_nor_teacher_nor_the_code_of_stage_one(made, tmp_path):
    """A laptop with the cache and two of the three packages gets the same students, byte for byte."""
    for package in ("store", "student_train"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.move(made / "demo", made / "demo-away")
    try:
        away = run(
            "student_train", "train", made / "demo.zarr", "--out", tmp_path / "run", *TRAINING, cwd=tmp_path
        )
    finally:
        shutil.move(made / "demo-away", made / "demo")
    assert away.returncode == 0, away.stderr
    ours, theirs = (
        {
            path.relative_to(run_folder).as_posix(): path.read_bytes()
            for path in run_folder.rglob("*.safetensors")
        }
        for run_folder in (made / "run", tmp_path / "run")
    )
    assert ours == theirs
    assert len(ours) == 6
