"""The team flow of the README over a folder: one pushes, one trains from a part, one adds a teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from store.inputs.demo_clips import render
from store.manifest import CARD
from store.reader import open_cache
from store.verify import verify
from tests.test_end_to_end import TRAINING, run

AFA = "frame_embedding,text_embedding,frame_relevance,video_text_logits"
ONCE = [*TRAINING[:-1], "3"]

pytestmark = pytest.mark.slow


def done(*words: object) -> str:
    """What the command printed; it has to succeed."""
    finished = run(*words)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def contents(root: Path, *teachers: str) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every object of `teachers`."""
    files = (path for teacher in teachers for path in (root / "teachers" / teacher).rglob("*"))
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
        if path.is_file()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first one's clips and cache, and team/, where the cache was pushed as v1."""
    folder = tmp_path_factory.mktemp("flow")
    render(folder / "clips", split_sizes={"train": 32, "val": 8, "test": 16}, seed=1, workers=2)
    done("teacher_dump", "dump", "--data", folder / "clips", "--cache", folder / "first.zarr")
    done("store", "push", folder / "first.zarr", f"file://{folder}/team", "--tag", "v1")
    return folder


def test_another_trains_from_the_signals_of_afa_alone_without_videos(place, tmp_path):
    copy = tmp_path / "laptop.zarr"
    done("store", "pull", f"file://{place}/team@v1", copy, "--teacher", "demo", "--signals", AFA)
    stored = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
    whole = sum(path.stat().st_size for path in (place / "first.zarr").rglob("*") if path.is_file())
    assert stored < whole / 2
    assert "This copy is partial" in (copy / CARD).read_text()
    shutil.move(place / "clips", place / "away")
    try:
        done("student_train", "train", copy, "--out", tmp_path / "run", *ONCE)
    finally:
        shutil.move(place / "away", place / "clips")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["taught"]
    assert open_cache(copy).digest == open_cache(place / "first.zarr").digest


def test_a_third_adds_a_teacher_and_no_object_of_the_first_is_touched(place, tmp_path):
    before = contents(place / "team", "demo")
    copy = tmp_path / "third.zarr"
    done("store", "pull", f"file://{place}/team", copy)
    done("teacher_dump", "dump", "--data", place / "clips", "--cache", copy, "--teacher", "demo_clip4clip")
    done("store", "push", copy, f"file://{place}/team")
    assert contents(place / "team", "demo") == before
    assert contents(place / "team", "demo_clip4clip")

    done("store", "pull", f"file://{place}/team", place / "first.zarr")
    assert open_cache(place / "first.zarr").teacher_names == ["demo", "demo_clip4clip"]
    assert verify(place / "first.zarr").faults == []
    card = (place / "first.zarr" / CARD).read_text()
    assert "## Teacher demo\n" in card
    assert "## Teacher demo_clip4clip\n" in card
    assert card.count("--dataset demo --cache CACHE --teacher demo") == 2
    assert card.count("| test | text to video | R@1 ") == 2
    assert (place / "team" / CARD).read_text() == card

    done("store", "pull", f"file://{place}/team@v1", tmp_path / "as_it_was.zarr")
    assert open_cache(tmp_path / "as_it_was.zarr").teacher_names == ["demo"]
