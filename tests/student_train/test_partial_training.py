"""Training from a partial copy: what it lacks is told before the first step, with the pull that brings it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from store.remote.location import Location
from store.remote.pull import pull
from store.remote.selection import Wanted
from store.remote.source import open_remote
from student_train.__main__ import main
from tests.student_train.learnable_cache import write_learnable_cache

QUICK = (
    "--epochs",
    "1",
    "--batch-size",
    "16",
    "--seeds",
    "0",
    "--recipe",
    "demo",
    "--learning-rates",
    "0.003",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard holds four videos, so that every split has shards of its own."""
    return write_learnable_cache(tmp_path_factory.mktemp("whole") / "meanings.zarr", shard_rows=4)


@pytest.fixture
def part(whole: Path, tmp_path: Path):
    """Pulls what is wanted of the cache; its folder as a word."""

    def pulled(**wanted: object) -> str:
        pull(open_remote(Location.parse(str(whole))), tmp_path / "part.zarr", Wanted(**wanted))
        return str(tmp_path / "part.zarr")

    return pulled


@pytest.mark.parametrize("splits", [("train",), ("train", "val")])
def test_a_part_without_what_is_measured_is_refused_before_the_first_step(
    part, tmp_path: Path, capsys, splits: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    assert main(["train", part(splits=splits), "--out", str(run), *QUICK]) == 2
    told = capsys.readouterr()
    assert "is not in this partial copy; get it: python -m store pull" in told.err
    assert told.out == ""
    assert not run.exists()


def test_a_part_with_every_split_but_no_scores_is_trained_and_says_what_the_teacher_lacks(
    part, tmp_path: Path
) -> None:
    cache = part(signals=("frame_embedding", "text_embedding", "frame_relevance"))
    words = ["train", cache, "--out", str(tmp_path / "run"), *QUICK, "--set", "losses.coarse_pearson=0"]
    assert main(words) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "is not in this partial copy" in results["teacher"]["absent"]
    assert results["taught"]["text_to_video"]["SumR"]["mean"] > 0


def test_a_signal_that_was_left_out_is_to_be_pulled_not_dumped(part, tmp_path: Path, capsys) -> None:
    cache = part(signals=("frame_relevance", "video_text_logits"))
    assert main(["train", cache, "--out", str(tmp_path / "run"), *QUICK]) == 2
    told = capsys.readouterr().err
    assert "signal 'frame_embedding' of teacher 'oracle' in part.zarr is not in this partial copy" in told
    assert "--teacher oracle --signals frame_embedding" in told
