"""Recognition on the command line: few shots, classes that nobody trained on, and the mean over splits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from store.inputs.protocol import RECOGNITION
from store.inputs.samples import CLASS, DatasetCard, Samples, Split, Text, Video
from store.inputs.view import View
from store.layout import TeacherPlan
from store.reader import open_cache
from store.signals import SignalSpec
from store.writer import CacheWriter
from student_train.__main__ import main
from student_train.configuration import Told
from student_train.experiment import Experiment
from student_train.few_shot import choice_of
from student_train.guard import TerminatedError
from tests.synthetic_cache import shard_commits

CLASSES, WIDTH, FRAMES = 6, 16, 3
VIDEOS = {"train": 60, "val": 12, "test": 60}
SIGNALS = (
    SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": WIDTH}),
    SignalSpec("text_embedding", {"D": WIDTH}),
)
SMALL = ("--student", "text4vis", "--recipe", "demo-features", "--seeds", "0,1")
SMALL += ("--epochs", "4", "--batch-size", "12", "--learning-rates", "1e-3")


def write_class_cache(
    root: Path, name: str, seed: int, teacher: str = "oracle", weights: str = "0" * 64
) -> Path:
    """Frames show the meaning of their class under noise, texts tell it: text is worth many videos."""
    count = sum(VIDEOS.values())
    bounds = np.cumsum([0, *VIDEOS.values()]).tolist()
    label = np.arange(count) % CLASSES
    videos = tuple(Video(f"v{row}", Path(f"v{row}.mp4"), label=int(label[row])) for row in range(count))
    texts = tuple(Text(f"class {number}", -1, CLASS) for number in range(CLASSES))
    splits = {
        split: Split(np.arange(start, stop), np.arange(0))
        for split, start, stop in zip(VIDEOS, bounds, bounds[1:], strict=False)
    }
    card = DatasetCard("made in a test", "CC0-1.0", "none")
    samples = Samples(name, card, videos, texts, splits, RECOGNITION, prompts=("{}",))
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(CLASSES, WIDTH))
    frames = meaning[label][:, None, None] + 2.5 * rng.normal(size=(count, 1, FRAMES, WIDTH))
    values = {"frame_embedding": frames.astype(np.float32), "text_embedding": meaning.astype(np.float32)}
    execution = {
        "phase_of": {"frame_embedding": "V", "text_embedding": "T"},
        "shard_rows": {"V": count, "T": count, "videos": count},
    }
    identity = {"weights_sha256": weights, "logit_scale": 20.0}
    plan = TeacherPlan(teacher, identity, View("frames", FRAMES, 8), SIGNALS, execution, {})
    with CacheWriter(root, samples) as writer:
        writer.plan(plan)
        tasks = []
        for commit in shard_commits(root, samples, plan, frozenset(), values):
            tasks.append(commit.task)
            writer.commit(commit)
        writer.complete(plan, tasks)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_cache(tmp_path_factory.mktemp("caches") / "classes.zarr", "classes", 0)


@pytest.fixture(scope="module")
def few(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "few"
    assert main(["few-shot", str(cache), "--out", str(run), *SMALL, "--shots", "1,all"]) == 0
    return run


def test_text_is_worth_more_the_fewer_videos_there_are(few: Path) -> None:
    shots = json.loads((few / "few_shot.json").read_text())["shots"]
    top_1 = {(k, arm): shots[k][arm]["top-1"]["mean"] for k in shots for arm in ("untaught", "taught")}
    assert top_1["1", "taught"] > top_1["1", "untaught"] + 20
    assert top_1["all", "untaught"] > top_1["1", "untaught"]
    stories = [json.loads(path.read_text()) for path in few.glob("shots-1/trainings/*/training.json")]
    assert [story["training_rows"] for story in stories] == [CLASSES] * 4


def test_the_table_of_few_shots_tells_every_arm_and_nothing_is_trained_twice(
    few: Path, cache, capsys
) -> None:
    assert main(["few-shot", str(cache), "--out", str(few), *SMALL, "--shots", "1,all"]) == 0
    printed = capsys.readouterr().out
    assert "learning rate" not in printed
    assert printed.endswith((few / "few_shot.md").read_text())
    for row in ("| 0 ", "| 1 ", "| all "):
        assert row in printed
    assert main(["few-shot", str(cache), "--out", str(few), *SMALL, "--shots", "1,none"]) == 2


def test_each_number_of_shots_is_a_run_whose_numbers_can_be_repeated(few: Path, capsys) -> None:
    assert "\nshots: 1\n" in (few / "shots-1" / "configuration.yaml").read_text()
    assert main(["evaluate", str(few / "shots-1")]) == 0
    assert "The same numbers" in capsys.readouterr().out


def test_a_service_that_is_not_installed_is_told_before_the_first_shot(
    cache: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    words = ["few-shot", str(cache), "--out", str(tmp_path / "x"), *SMALL, "--track", "trackio"]
    assert main(words) == 2
    assert "pip install trackio" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_videos_are_refused_where_the_student_reads_frozen_features(
    cache: Path, tmp_path: Path, capsys
) -> None:
    words = ["few-shot", str(cache), "--out", str(tmp_path / "x"), *SMALL, "--videos", str(tmp_path)]
    assert main(words) == 2
    assert "leave out --videos" in capsys.readouterr().err


def test_few_shots_over_many_epochs_warm_up_as_long_as_the_recipe(cache: Path) -> None:
    settings = (("student", "text4vis"), ("recipe", "text4vis"))
    configuration = Told(words=settings).resolve(open_cache(cache))
    for epochs in (None, 10, 200):
        recipe = choice_of(configuration, "1", epochs).recipe
        assert recipe.shots == 1
        assert recipe.epochs == (epochs or 30)
        assert recipe.optimizer.warmup * recipe.epochs == pytest.approx(min(5, recipe.epochs / 6))
    assert choice_of(configuration, "all", 200).recipe == configuration.recipe


def test_a_student_of_captions_has_no_shots(cache: Path, tmp_path: Path, capsys) -> None:
    assert main(["few-shot", str(cache), "--out", str(tmp_path / "x"), "--student", "afa"]) == 2
    assert "which have no shots" in capsys.readouterr().err


def test_a_classifier_is_swapped_for_the_classes_that_were_left_out(
    cache: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    told = ("--set", "classes=0,1,2,3", "--arms", "taught", "--seeds", "0", "--role", "classifier=oracle")
    assert main(["train", str(cache), "--out", str(run), *SMALL, *told]) == 0
    assert "4 classes" in capsys.readouterr().out
    assert main(["zero-shot", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "2 classes, of none of which the students saw videos by that name, 20 videos" in printed
    other = write_class_cache(tmp_path / "other.zarr", "others", 5, teacher="seer")
    swapped = ["zero-shot", str(run), "--cache", str(other), "--teacher", "seer"]
    assert main(swapped) == 2, "the teacher that made the classifier is not in that cache"
    assert "unknown teacher 'oracle'" in capsys.readouterr().err
    assert main([*swapped, "--role", "classifier=seer"]) == 0
    printed = capsys.readouterr().out
    assert "others, 6 classes, of 4 of which the students saw videos by that name" in printed
    assert "of half the classes" in printed
    assert main([*swapped, "--role", "clasifier=seer"]) == 2
    assert "unknown role 'clasifier'; did you mean 'classifier'?" in capsys.readouterr().err
    stranger = write_class_cache(tmp_path / "stranger.zarr", "others", 5, teacher="oracle", weights="f" * 64)
    assert main(["zero-shot", str(run), "--cache", str(stranger)]) == 2
    assert "differs in identity.weights_sha256: stored '000" in capsys.readouterr().err


@pytest.mark.parametrize("classifier", ["linear", "unfrozen"])
def test_a_classifier_that_learned_its_classes_is_not_swapped(cache, tmp_path, capsys, classifier) -> None:
    """Half of the classes were left out, so that it would fit those that it does not know."""
    told = ("--set", "classes=0,1,2", "--set", f"model.classifier={classifier}")
    words = ("--arms", "taught", "--seeds", "0", "--epochs", "1")
    run = str(tmp_path / "run")
    assert main(["train", str(cache), "--out", run, *SMALL, *told, *words]) == 0
    assert main(["zero-shot", run]) == 2
    assert "learned a classifier of their own classes" in capsys.readouterr().err


def test_zero_shot_refuses_videos_that_its_student_does_not_read(few: Path, cache, tmp_path, capsys) -> None:
    words = ["zero-shot", str(few / "shots-all"), "--cache", str(cache), "--videos", str(tmp_path)]
    assert main(words) == 2
    assert "leave out --videos" in capsys.readouterr().err


def test_what_each_process_would_do_again_is_refused_to_several(few: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("evaluate", "zero-shot"):
        assert main([command, str(few / "shots-all")]) == 2
        assert "2 processes were started; only training" in capsys.readouterr().err


def test_few_shots_that_are_told_to_end_say_so(cache: Path, tmp_path, capsys, monkeypatch) -> None:
    def told_to_end(*_) -> None:
        raise TerminatedError("SIGTERM after step 3; its state is saved")

    monkeypatch.setattr(Experiment, "select_and_train", told_to_end)
    assert main(["few-shot", str(cache), "--out", str(tmp_path / "x"), *SMALL]) == 143
    assert capsys.readouterr().err == "SIGTERM after step 3; its state is saved\n"


def test_a_run_that_was_trained_on_all_classes_needs_another_cache_for_zero_shot(few: Path, capsys) -> None:
    assert main(["zero-shot", str(few / "shots-all")]) == 2
    assert "trained on every class" in capsys.readouterr().err


def write_results(
    run: Path, dataset: str, mean_class: float, recipe: str = "text4vis", epochs: int = 30
) -> str:
    """A finished run, as far as its results are read."""
    metrics = {"top-1": 50.0, "top-5": 90.0, "mean class": mean_class}
    recognition = {name: {"mean": value, "std": 0.0, "per_seed": [value]} for name, value in metrics.items()}
    identity = {"dataset": dataset, "cache": {"tables": dataset}, "settings": {"epochs": epochs}}
    needed = {key: {} for key in ("request", "learning_rate", "teacher", "seconds", "bytes", "frame_weights")}
    told = {"student": "text4vis", "recipe": recipe, "cache": {"dataset": dataset}}
    run.mkdir()
    results = {**needed, **told, "taught": {"recognition": recognition}}
    (run / "results.json").write_text(json.dumps(results))
    (run / "config.json").write_text(json.dumps({"identity": identity, "cache": ".", "provenance": {}}))
    return str(run)


def test_the_mean_over_splits_is_that_of_their_runs(tmp_path: Path, capsys) -> None:
    accuracies = {"ucf101": 90.0, "ucf101-split2": 93.0, "ucf101-split3": 95.0}
    runs = [write_results(tmp_path / name, name, value) for name, value in accuracies.items()]
    assert main(["over-splits", *runs]) == 0
    printed = capsys.readouterr().out
    (row,) = (line for line in printed.splitlines() if "mean of 3 splits" in line)
    assert row.split("|")[-2].strip() == "92.7"
    assert all(name in printed for name in accuracies)


def test_runs_that_are_no_splits_of_one_another_are_not_averaged(tmp_path: Path, capsys) -> None:
    first = write_results(tmp_path / "a", "ucf101", 90.0)
    for wrong, told in (
        (first, "named twice"),
        (write_results(tmp_path / "b", "ucf101", 91.0), "each run is of another split"),
        (write_results(tmp_path / "c", "ucf101-split2", 91.0, epochs=9), "differs in settings.epochs"),
        (write_results(tmp_path / "d", "hmdb51-split2", 91.0), "hmdb51 and ucf101 are two datasets"),
    ):
        assert main(["over-splits", first, wrong]) == 2
        assert told in capsys.readouterr().err
