"""`fit` on a dataset that is not the demo: a table of clips, and clips of named classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from store.cli import run_cli
from store.inputs.samples import Samples, Split, Text
from store.reader import open_cache
from teacher_dump.__main__ import build_parser
from teacher_dump.courses import classes as classes_course
from teacher_dump.dump import dump
from teacher_dump.fitting.course import Decoding, FitRequest
from teacher_dump.fitting.loop import fit
from teacher_dump.fitting.progress import Progress
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import classes
from teacher_dump.weights_file import told_by
from tests.teacher_dump.colour_teacher import COLOURS, colour_samples
from tests.teacher_dump.test_fit import albef_files, clip_file

pytestmark = pytest.mark.slow
SEEN = ["--frames", 4, "--words", 16]
FITTED = {"clip4clip": SEEN, "xclip": SEEN, "albef": ["--image-size", 32, "--queue", 8, "--momentum", 0.9]}
DUMPED = {"clip4clip": SEEN, "xclip": [], "albef": []}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight clips with two captions each; the last two are for validation."""
    folder = tmp_path_factory.mktemp("clips")
    lines = [
        f"{video.id},{words} {video.path.stem[2:]},{'train' if row < 6 else 'val'}"
        for row, video in enumerate(colour_samples(folder).videos)
        for words in ("a clip in", "this shows")
    ]
    (folder / "table.csv").write_text("\n".join(["video,text,split", *lines]) + "\n")
    return folder / "table.csv"


def run(*words):
    return run_cli(build_parser(), [*map(str, words)])


def executed(*words):
    """Without what turns an error into a line."""
    arguments = build_parser().parse_args([*map(str, words)])
    return arguments.execute(arguments)


class KilledError(Exception):
    pass


def killed_after_its_first_epoch(monkeypatch, fitting):
    """Run `fitting` until the first epoch is saved."""
    save = Progress.save

    def save_and_die(*arguments):
        save(*arguments)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "save", save_and_die)
        with pytest.raises(KilledError):
            fitting()


@pytest.mark.parametrize("teacher", FITTED)
def test_a_teacher_is_fitted_to_a_table_goes_on_after_a_kill_and_dumps_it(
    teacher, table, tmp_path, monkeypatch
):
    checkpoint = albef_files(tmp_path) if teacher == "albef" else clip_file(tmp_path)
    words = ["fit", teacher, "--dataset", "table", "--data", table, "--checkpoint", checkpoint]
    words += [*FITTED[teacher], "--epochs", 3, "--batch-size", 4, "--threads", 1, "--decoders", 1]
    words += ["--learning-rate", 1e-3, "--pretrained-learning-rate", 1e-3]
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert run(*words, "--out", whole) == 0
    told = told_by(whole)
    assert told["dataset"] == "table"
    assert [epoch.keys() >= {"loss"} for epoch in told["epochs"]] == [True] * 3
    assert any("R@1" in name for name in told["epochs"][0])
    killed_after_its_first_epoch(monkeypatch, lambda: executed(*words, "--out", cut))
    assert not cut.exists()
    assert run(*words, "--out", cut) == 0
    once, resumed = load_file(whole), load_file(cut)
    assert once.keys() == resumed.keys()
    assert all(once[name].equal(resumed[name]) for name in once)
    vocabulary = ["--vocabulary", tmp_path / "vocab.txt"] if teacher == "albef" else []
    root = tmp_path / "c.zarr"
    assert run("dump", "--dataset", "table", "--data", table, "--cache", root, "--teacher", teacher,
               "--checkpoint", whole, *DUMPED[teacher], *vocabulary, "--threads", 1, "--decoders", 1,
               "--no-measure") == 0  # fmt: skip
    scores, known = open_cache(root).teacher(teacher).pair_scores(np.arange(8), np.arange(16))
    assert known.all()
    assert np.isfinite(scores).all()


def of_classes(samples: Samples) -> Samples:
    """The clips with their colours as classes in place of captions."""
    names = list(COLOURS)
    videos = tuple(replace(v, moment_s=None, label=names.index(v.path.stem[2:])) for v in samples.videos)
    texts = tuple(Text(name, -1, "class") for name in names)
    nothing = np.zeros(0, np.int64)
    splits = {"train": Split(np.arange(6), nothing), "val": Split(np.arange(6, 8), nothing)}
    return replace(samples, videos=videos, texts=texts, splits=splits, protocol="recognition")


def test_a_prompt_is_learned_on_classes_goes_on_after_a_kill_and_is_dumped(table, tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "load", lambda options: classes.tiny(0))
    samples = of_classes(colour_samples(table.parent))
    settings = replace(classes_course.DEFAULTS, epochs=3, batch_size=4, threads=1)
    request = FitRequest(samples, settings, Decoding(decoders=1), options={"context": 2})

    def fitted(name):
        course = classes_course.course(request)
        try:
            return fit(course, settings, tmp_path / name, {"dataset": samples.name}, report=lambda line: None)
        finally:
            course.close()

    told = fitted("whole.safetensors")
    assert {name for epoch in told["epochs"] for name in epoch} > {"loss"}
    killed_after_its_first_epoch(monkeypatch, lambda: fitted("cut.safetensors"))
    assert len(fitted("cut.safetensors")["epochs"]) == 3
    whole, cut = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "cut.safetensors")
    assert all(whole[name].equal(cut[name]) for name in whole)
    towers = classes.tiny(0)
    learned = classes.LearnedPrompt.read(tmp_path / "whole.safetensors", towers.model)
    teacher = classes.ClassesTeacher(
        towers.model, "tiny", "random", towers.tokenize, learned=learned, frames=3
    )
    cache = dump(tmp_path / "c.zarr", samples, teacher, DumpSettings(threads=1, decoders=1), {})
    scores, known = cache.teacher("classes").pair_scores(np.arange(8), np.arange(4))
    assert known.all()
    assert np.isfinite(scores).all()
