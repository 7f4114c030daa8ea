"""MCAD from one small cache of two teachers, CLIP and ALBEF: trained, repeated, refused where it must be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from store.kept_pixels import KeptPixels
from store.reader import open_cache
from student_train.__main__ import main
from student_train.needs import PAIR_SCORES
from student_train.step_source import StepSource
from student_train.students import mcad
from student_train.teachers import Teachers
from teacher_dump.dump import dump
from teacher_dump.pairs.layouts import BatchOptions, PairOptions
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import albef, clip
from tests.teacher_dump.colour_teacher import colour_samples

SETTINGS = DumpSettings(batch_videos=2, batch_texts=3, threads=1, decoders=1)
BATCHES = BatchOptions(batch=3, epochs=2, seed=0, k=3)
TEACHERS = ["--teacher", "clip", "--role", "single_stream=albef"]
SMALL = ["--epochs", "1", "--batch-size", "3", "--seeds", "0", "--learning-rates", "0.001"]
MCAD = ["--student", "mcad", "--recipe", "demo", *TEACHERS, *SMALL, "--set", "model.k=2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    root, samples = folder / "two.zarr", colour_samples(folder)
    pixels = StorageOptions(pixels=KeptPixels.parse("raw"))
    dump(root, samples, clip.tiny(0), replace(SETTINGS, storage=pixels), {})
    pairs = PairOptions(plan=BATCHES, topk=2, shortlist="clip", fused_cls=True)
    dump(root, samples, albef.tiny(0), replace(SETTINGS, pairs=pairs), {})
    return root


def test_a_student_of_both_teachers_is_trained_and_repeats_its_numbers(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(cache), "--out", str(tmp_path / "run"), *MCAD]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "The same numbers" in capsys.readouterr().out
    config = json.loads((tmp_path / "run/config.json").read_text())["identity"]["settings"]
    assert config["model"]["integrate"]
    story = next((tmp_path / "run").rglob("taught*/**/*.json"))
    assert "batch_plan" in story.read_text()


@pytest.mark.slow
def test_rows_of_table_1_are_trained_alike(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["GT", "ALBEF", "MT+MT_FA"]
    rows = [word for label in labels for word in ("--row", label)]
    assert main(["ablate", str(cache), "--out", str(tmp_path), *MCAD, *rows]) == 0
    printed = capsys.readouterr().out
    for row in mcad.ABLATION:
        assert (f"| {row.label} |" in printed) == (row.label in labels)


@pytest.mark.slow
def test_pairs_of_the_whole_split_teach_without_a_plan(cache: Path, tmp_path: Path) -> None:
    words = ["--set", "model.pairs=topk", "--set", "least_taught_share=0"]
    assert main(["train", str(cache), "--out", str(tmp_path / "run"), *MCAD, *words]) == 0
    told = "".join(path.read_text() for path in (tmp_path / "run").rglob("*.json"))
    assert "batch_plan" not in told


def test_more_pairs_than_were_judged_are_refused_before_the_first_step(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--set", "model.k=4"]
    assert main(["train", str(cache), "--out", str(tmp_path / "run"), *MCAD, *words]) == 2
    assert "k = 4" in capsys.readouterr().err


def test_a_single_stream_role_that_nobody_fills_is_refused(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in MCAD if word not in ("--role", "single_stream=albef")]
    assert main(["train", str(cache), "--out", str(tmp_path / "run"), *words]) == 2
    told = capsys.readouterr().err
    assert "'clip'" in told
    assert "--fused-cls, or give another teacher that role" in told


def test_two_processes_read_the_strips_of_what_one_reads(cache: Path) -> None:
    opened = open_cache(cache)
    teachers = Teachers(opened.teacher("clip"), {"single_stream": opened.teacher("albef")})
    video = text = opened.split("train").video[:4]
    needs, device = (PAIR_SCORES, mcad.JUDGED), torch.device("cpu")
    whole, *halves = (
        StepSource(teachers, needs, own, True, device).batch((), video, text).batch
        for own in (slice(0, 4), slice(0, 2), slice(2, 4))
    )
    for name in (mcad.JUDGED, mcad.JUDGED_KNOWN, PAIR_SCORES):
        assert torch.equal(torch.cat([half[name].rows for half in halves]), whole[name].rows)
        assert torch.equal(torch.cat([half[name].columns for half in halves], 1), whole[name].columns)
    said, known = opened.teacher("albef").match_probability(video, text)
    assert np.array_equal(whole[mcad.JUDGED_KNOWN].rows.numpy(), known)
    assert np.allclose(whole[mcad.JUDGED].rows.numpy(), np.nan_to_num(said, nan=0.0))
