"""Recognition on the command line: few shots, classes that nobody trained on, and the mean over splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from store.inputs.protocol import RECOGNITION
from store.inputs.samples import CLASS, DatasetCard, Samples, Split, Text, Video
from store.inputs.view import View
from store.layout import TeacherPlan
from store.signals import SignalSpec
from store.writer import CacheWriter
from student_train.__main__ import main
from tests.synthetic_cache import shard_commits

CLASSES, WIDTH, FRAMES = 6, 16, 3
VIDEOS = {"train": 60, "val": 12, "test": 60}
SIGNALS = (
    SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": WIDTH}),
    SignalSpec("text_embedding", {"D": WIDTH}),
)
SMALL = ("--student", "text4vis", "--recipe", "demo", "--epochs", "4", "--batch-size", "12", "--seeds", "0,1")


def write_class_cache(root: Path, name: str, seed: int) -> Path:
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
    identity = {"weights_sha256": "0" * 64, "logit_scale": 20.0}
    plan = TeacherPlan("oracle", identity, View("frames", FRAMES, 8), SIGNALS, execution, {})
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


def test_a_student_of_captions_has_no_shots(cache: Path, tmp_path: Path, capsys) -> None:
    assert main(["few-shot", str(cache), "--out", str(tmp_path / "x"), "--student", "afa"]) == 2
    assert "which have no shots" in capsys.readouterr().err


def test_a_classifier_is_swapped_for_the_classes_that_were_left_out(
    cache: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    told = ("--set", "classes=0,1,2,3", "--arms", "taught")
    assert main(["train", str(cache), "--out", str(run), *SMALL, *told]) == 0
    assert "4 classes" in capsys.readouterr().out
    assert main(["zero-shot", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "2 classes that no student was trained on, 20 videos" in printed
    other = write_class_cache(tmp_path / "other.zarr", "others", 5)
    assert main(["zero-shot", str(run), "--cache", str(other)]) == 0
    printed = capsys.readouterr().out
    assert "others, 6 classes" in printed
    assert "of half the classes" in printed


def test_a_run_that_was_trained_on_all_classes_needs_another_cache_for_zero_shot(few: Path, capsys) -> None:
    assert main(["zero-shot", str(few / "shots-all")]) == 2
    assert "trained on every class" in capsys.readouterr().err


def test_the_mean_over_splits_is_that_of_their_runs(cache: Path, tmp_path: Path, capsys) -> None:
    runs = []
    for name in ("s1", "s2"):
        split = write_class_cache(tmp_path / f"{name}.zarr", name, len(runs))
        runs.append(str(tmp_path / f"run-{name}"))
        assert main(["train", str(split), "--out", runs[-1], *SMALL, "--arms", "taught"]) == 0
    capsys.readouterr()
    assert main(["over-splits", *runs]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "mean of 2 splits" in line)
    found = [
        json.loads((Path(run) / "results.json").read_text())["taught"]["recognition"]["mean class"]["mean"]
        for run in runs
    ]
    assert f"{sum(found) / 2:.1f}" in row
    assert main(["over-splits", runs[0], runs[0]]) == 2
