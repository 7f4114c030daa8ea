"""One teacher several times in a cache: other prompts under another name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from store.cli import run_cli
from store.errors import InputError
from store.reader import Cache, open_cache
from teacher_dump.__main__ import build_parser
from teacher_dump.dump import dump
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import TeacherOptions
from teacher_dump.workers.jobs import load_teacher
from tests.teacher_dump.colour_teacher import colour_samples

SETTINGS = DumpSettings(batch_videos=4, threads=1, decoders=1)
OTHER_PROMPT = ("we see a square that {}",)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def cache(clips: Path) -> Cache:
    path = clips / "c.zarr"
    own = load_teacher("demo_classes", TeacherOptions())
    other = load_teacher("demo_classes", TeacherOptions(prompts=OTHER_PROMPT), "squares")
    for teacher in (own, other):
        dump(path, colour_samples(clips), teacher, SETTINGS, {})
    return open_cache(path)


def test_two_classifiers_lie_beside_each_other(cache: Cache) -> None:
    assert cache.teacher_names == ["demo_classes", "squares"]
    own, other = (cache.teacher(name) for name in cache.teacher_names)
    rows = np.arange(len(cache.texts))
    assert not np.array_equal(*(one.read_decoded("text_embedding", rows) for one in (own, other)))
    videos = np.flatnonzero(own.video_usable)
    assert np.array_equal(*(one.read_decoded("frame_embedding", videos) for one in (own, other)))


def test_the_identity_tells_which_teacher_a_name_stands_for(cache: Cache) -> None:
    assert cache.teacher("squares").identity["teacher"] == "demo_classes"
    assert "teacher" not in cache.teacher("demo_classes").identity


def test_a_recheck_loads_the_teacher_behind_the_name(cache: Cache, clips: Path, capsys) -> None:
    words = ["recheck", str(cache.path), "--teacher", "squares", "--data", str(clips), "--decoders", "1"]
    assert run_cli(build_parser(), [*words, "--prompt", *OTHER_PROMPT]) == 0
    assert "teacher squares" in capsys.readouterr().out
    assert run_cli(build_parser(), [*words, "--prompt", "no {}"]) == 1
    assert "identity differs in classifier" in capsys.readouterr().out


def test_another_teachers_name_is_refused() -> None:
    with pytest.raises(InputError, match="--name clip is a teacher of its own"):
        load_teacher("demo_classes", TeacherOptions(), "clip")
