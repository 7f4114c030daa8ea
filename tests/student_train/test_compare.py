"""`python -m student_train compare`: what differs is named, what was reached stands side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from student_train.__main__ import main

QUICK = ("--recipe", "demo", "--batch-size", "16", "--seeds", "0,1", "--learning-rates", "0.003")


@pytest.fixture(scope="module")
def runs(learnable_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of one epoch, and one of two whose tables also tell the dual softmax."""
    folder = tmp_path_factory.mktemp("compared")
    short, longer = folder / "short", folder / "longer"
    cache = str(learnable_path)
    dual = ("--set", "evaluation.dual_softmax=true")
    assert main(["train", cache, "--out", str(short), *QUICK, "--epochs", "1"]) == 0
    assert main(["train", cache, "--out", str(longer), *QUICK, "--epochs", "2", *dual]) == 0
    return short, longer


def compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["compare", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_only_the_settings_that_differ_are_listed(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(compare(capsys, *runs, "--json"))
    short, longer = map(str, runs)
    assert found["differs"] == {
        "settings.epochs": {short: 1, longer: 2},
        "request.evaluation.dual_softmax": {short: False, longer: True},
    }
    assert found["same_test_rows"]


def test_every_number_of_a_run_is_found_in_the_comparison(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(compare(capsys, *runs, "--json"))["results"]
    printed = compare(capsys, *runs)
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        for who in ("teacher", "untaught", "taught", "gain"):
            assert found[str(run)][who] == results[who]
        assert f"{results['taught']['text_to_video']['SumR']['mean']:.1f} ± " in printed
        assert f"{results['gain']['text_to_video']['SumR']['mean']:+.1f} ± " in printed


def test_a_way_of_ranking_that_one_run_lacks_is_shown_of_the_other_and_marked(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = compare(capsys, *runs)
    tables = [part for part in printed.split("\n\n") if "dual softmax" in part and "gain" in part]
    assert len(tables) == 2
    assert all(str(runs[1]) in part and str(runs[0]) not in part for part in tables)


def test_a_peak_on_test_and_other_test_rows_are_said_out_loud(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peaked = Path(shutil.copytree(runs[0], tmp_path / "peaked"))
    results = json.loads((peaked / "results.json").read_text())
    results["kept_epoch"] = "best_on_test"
    results["test"]["videos"] += 1
    (peaked / "results.json").write_text(json.dumps(results))
    printed = compare(capsys, runs[0], peaked)
    assert f"{peaked}, peak on test | taught" in printed
    assert f"{peaked}, peak on test | teacher" not in printed
    assert "different rows" in printed
    assert "different rows" not in compare(capsys, *runs)


def test_equal_runs_are_called_equal(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = shutil.copytree(runs[0], tmp_path / "again")
    assert "The configurations are the same." in compare(capsys, runs[0], again)


def test_what_is_no_finished_run_or_named_twice_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (((runs[0], tmp_path), "no config.json"), ((runs[0], runs[0]), "named twice")):
        assert main(["compare", *map(str, arguments)]) == 2
        assert words in capsys.readouterr().err


def test_peak_on_test_is_told_in_the_table_and_takes_one_learning_rate(
    learnable_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student that keeps its best epoch on test really is the best of its epochs there."""
    arguments = ["train", str(learnable_path), "--out", str(tmp_path / "run"), *QUICK, "--epochs", "4"]
    peak = ["--set", "keep=best_on_test"]
    assert main([*arguments, *peak, "--learning-rates", "0.003,0.01"]) == 2
    assert "no learning rate is chosen" in capsys.readouterr().err
    assert main([*arguments, *peak]) == 0
    assert "Peak on test, as the paper" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for arm in ("untaught", "taught"):
        for story, reached in zip(
            results["trainings"][arm], results[arm]["text_to_video"]["SumR"]["per_seed"], strict=True
        ):
            assert story["epoch_chosen_on"] == "test"
            assert reached == pytest.approx(max(story["val"]))
