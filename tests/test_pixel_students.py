"""Students that train on pixels, from a small cache of CLIP4Clip with its frames: tables and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from store.kept_pixels import KeptPixels
from student_train.__main__ import main
from student_train.students import sab
from teacher_dump.dump import dump
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import clip4clip
from tests.teacher_dump.colour_teacher import colour_samples

SETTINGS = DumpSettings(batch_videos=2, batch_texts=3, threads=1, decoders=1)
SMALL = ["--epochs", "1", "--batch-size", "3", "--seeds", "0,1", "--learning-rates", "0.001"]
SAB = ["--student", "sab", "--recipe", "demo", *SMALL]
SAB += ["--set", "model.teacher_layers=[0,1]", "--set", "model.borders=[[1,1]]"]
AFA = ["--student", "afa", "--recipe", "demo", *SMALL, "--set", "model.way_in=frames"]
AFA += ["--set", "model.architecture=tiny", "--set", "model.words=12"]


def dumped(folder: Path, pixels: str | None) -> Path:
    kept = StorageOptions(pixels=KeptPixels.parse(pixels) if pixels else None)
    path = folder / f"{pixels}.zarr"
    dump(path, colour_samples(folder), clip4clip.tiny(0), replace(SETTINGS, storage=kept), {})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pixels")


@pytest.fixture(scope="module")
def cache(folder: Path) -> Path:
    return dumped(folder, "raw")


@pytest.mark.slow
def test_sab_trains_evaluates_and_repeats_its_numbers(cache: Path, tmp_path: Path, capsys) -> None:
    assert main(["train", str(cache), "--out", str(tmp_path / "run"), *SAB]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "The same numbers" in capsys.readouterr().out


@pytest.mark.slow
def test_afa_trains_whole_towers_on_the_frames_of_the_cache(cache: Path, tmp_path: Path, capsys) -> None:
    losses = ["--set", "losses={info_nce: 1, coarse_pearson: 1}"]
    assert main(["train", str(cache), "--out", str(tmp_path / "run"), *AFA, *losses]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "The same numbers" in capsys.readouterr().out


@pytest.mark.slow
def test_an_ablation_trains_every_row_alike_and_prints_it_beside_the_paper(
    cache: Path, tmp_path: Path, capsys
) -> None:
    assert main(["ablate", str(cache), "--out", str(tmp_path), *SAB]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "ablation.json").read_text())
    assert [row["label"] for row in results["rows"]] == [row.label for row in sab.ABLATION]
    for row in sab.ABLATION:
        config = json.loads((tmp_path / row.folder / "config.json").read_text())["identity"]["settings"]
        assert set(config["losses"]) == {"info_nce", *row.losses}
        assert config["epochs"] == 1
        written = yaml.safe_load((tmp_path / row.folder / "configuration.yaml").read_text())
        assert (written["losses"], written["arms"]) == (config["losses"], ["taught"])
        compares_layers = {"sab", "tab_unmasked", "ol2ol_unmasked"} & set(row.losses)
        assert bool(config["model"]["teacher_layers"]) == bool(compares_layers)
        assert f"| {row.label} |" in printed
        assert f"| {row.paper[0]:.1f} | {row.paper[1]:.1f} |" in printed
    for row in results["rows"]:
        for direction in row["student"].values():
            assert len(direction["R@1"]["per_seed"]) == 2


@pytest.mark.slow
def test_rows_may_be_added_to_an_ablation_without_training_the_others_again(
    cache: Path, tmp_path: Path, capsys
) -> None:
    for rows in (["--row", "none"], ["--row", "none", "--row", "T"]):
        assert main(["ablate", str(cache), "--out", str(tmp_path), *SAB, *rows]) == 0
    assert capsys.readouterr().out.count("taught    learning rate") == 4


def test_a_row_that_is_not_there_and_a_student_without_an_ablation_are_refused(
    cache: Path, tmp_path: Path, capsys
) -> None:
    words = ["ablate", str(cache), "--out", str(tmp_path)]
    assert main([*words, *SAB, "--row", "T+"]) == 2
    assert "unknown row 'T+'; did you mean 'T+S'" in capsys.readouterr().err
    assert main([*words, "--recipe", "demo", "--learning-rates", "0.001"]) == 2
    assert "student 'afa' has no ablation" in capsys.readouterr().err


def test_several_learning_rates_are_no_ablation(cache: Path, tmp_path: Path, capsys) -> None:
    words = ["ablate", str(cache), "--out", str(tmp_path), *SAB, "--learning-rates", "0.1,0.2"]
    assert main(words) == 2
    assert "one learning rate" in capsys.readouterr().err


def test_what_the_cache_lacks_is_refused_with_the_command_that_adds_it(
    folder: Path, cache: Path, tmp_path: Path, capsys
) -> None:
    words = ["--out", str(tmp_path / "run"), *SAB]
    assert main(["train", str(cache), *words, "--set", "model.teacher_layers=[0,5]"]) == 2
    told = capsys.readouterr().err
    assert "vit_layers/5" in told
    assert "dump" in told
    assert main(["train", str(dumped(folder, None)), *words]) == 2
    told = capsys.readouterr().err
    assert "--keep-pixels" in told
