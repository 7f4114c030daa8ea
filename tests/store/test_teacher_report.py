"""A teacher's own numbers: from the cache, by the dataset's protocol, compared with published ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from store.cli import run_cli
from store.durable import canonical_json, read_json, write_file
from store.errors import InputError
from store.inputs.protocol import MULTI_CAPTION, RECOGNITION
from store.inputs.samples import CLASS, Samples, Split, Text
from store.reader import open_cache
from store.retrieval_metrics import recognition_metrics, retrieval_metrics
from store.teacher_report import compared, complaint, expected_split, parse_expectation, teacher_report
from teacher_dump.__main__ import build_parser
from teacher_dump.report_command import report_teacher
from tests.synthetic_cache import SIGNALS, synthetic_samples, write_synthetic_cache

VIDEOS, CAPTIONS = 40, 2
FACTORED, DENSE = (SIGNALS[0], SIGNALS[2]), (SIGNALS[4],)


def samples(protocol=MULTI_CAPTION) -> Samples:
    return replace(synthetic_samples(VIDEOS, CAPTIONS), protocol=protocol)


@pytest.fixture
def cache(tmp_path):
    return open_cache(write_synthetic_cache(tmp_path / "c.zarr", samples(), signals=FACTORED))


@pytest.mark.parametrize("signals", [FACTORED, DENSE], ids=["factored", "dense"])
def test_every_evaluation_split_has_the_metrics_of_all_its_scores_at_once(tmp_path, signals):
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr", samples(), signals=signals))
    teacher = cache.teacher("synthetic")
    report = teacher_report(teacher)
    assert sorted(report["splits"]) == ["test", "val"]
    for name, told in report["splits"].items():
        rows = cache.split(name)
        scores, _ = teacher.pair_scores(rows.video, rows.text)
        own = np.searchsorted(rows.video, cache.text_video[rows.text])
        left_out = told.pop("left_out")
        assert told == retrieval_metrics(scores, own, MULTI_CAPTION)
        assert left_out == 0


def test_texts_of_videos_that_failed_are_left_out_and_counted(tmp_path):
    failed = frozenset({VIDEOS - 1, VIDEOS - 3})
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr", samples(), signals=FACTORED, failed=failed))
    told = teacher_report(cache.teacher("synthetic"))["splits"]["test"]
    assert told["left_out"] == 2 * CAPTIONS
    assert told["text_to_video"]["R@10"] == 100.0 or told["text_to_video"]["MnR"] > 1


@pytest.mark.parametrize("signals", [FACTORED, DENSE], ids=["factored", "dense"])
def test_classes_are_recognised_over_all_prompts(tmp_path, signals):
    """Of 3 classes in 2 prompts, text row p * 3 + c is class c."""
    base = samples(RECOGNITION)
    texts = tuple(Text(f"prompt {p} class {c}", -1, CLASS) for p in range(2) for c in range(3))
    videos = tuple(replace(video, label=row % 3) for row, video in enumerate(base.videos))
    splits = {name: Split(split.video, np.arange(6)) for name, split in base.splits.items()}
    given = replace(base, texts=texts, videos=videos, splits=splits, prompts=("a {}", "the {}"))
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr", given, signals=signals))
    teacher = cache.teacher("synthetic")
    told = teacher_report(teacher)["splits"]["test"]
    rows = cache.split("test").video
    if signals is DENSE:
        scores = teacher.pair_scores(rows, np.arange(6))[0].astype(np.float64).reshape(-1, 2, 3).mean(1)
    else:
        text = teacher.read_decoded("text_embedding", np.arange(6))
        text = (text / np.linalg.norm(text, axis=1, keepdims=True)).reshape(2, 3, -1).mean(0)
        frames = teacher.read_decoded("frame_embedding", rows)[:, 0]
        frames = frames / np.linalg.norm(frames, axis=2, keepdims=True)
        scores = frames.mean(1) @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T
    del told["left_out"]
    assert told == recognition_metrics(scores, rows % 3)


def test_what_nobody_scored_is_told_and_not_guessed(tmp_path):
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr", samples(), signals=SIGNALS[:1]))
    told = teacher_report(cache.teacher("synthetic"))["splits"]["test"]
    assert "--topk" in told["not_computable"]


def test_a_report_is_kept_printed_and_changes_no_digest(cache, capsys):
    digest = cache.digest
    write_file(cache.reports_dir / "retrieval.json", canonical_json({"teachers": {"other": {"kept": True}}}))
    assert report_teacher(cache, "synthetic", None) is None
    assert "test: text to video: R@1 " in capsys.readouterr().out
    from store.info import describe, gather

    assert open_cache(cache.path).digest == digest
    assert gather(cache.path)["teachers"]["synthetic"]["reports"]["retrieval"]["protocol"] == MULTI_CAPTION
    assert "splits.test.text_to_video.R@1" in describe(cache.path).replace("\n           ", " ")
    assert '"other":{"kept":true}' in (cache.reports_dir / "retrieval.json").read_text()


def test_a_teacher_a_point_or_less_from_its_published_number_passes_and_beyond_it_does_not(cache):
    found = teacher_report(cache.teacher("synthetic"))["splits"]["val"]["text_to_video"]["R@1"]
    assert report_teacher(cache, "synthetic", f"val={found - 0.99:.6f}") is None
    told = report_teacher(cache, "synthetic", f"val={found - 1.01:.6f}")
    assert "more than 1 point apart" in told
    assert "checkpoint" in told
    # What was published stays stated until somebody states another number.
    assert report_teacher(cache, "synthetic", None) is not None
    assert report_teacher(cache, "synthetic", f"val={found:.6f}") is None
    assert report_teacher(cache, "synthetic", None) is None


def test_a_number_that_can_not_be_computed_does_not_meet_an_expectation(tmp_path):
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr", samples(), signals=SIGNALS[:1]))
    report = compared(teacher_report(cache.teacher("synthetic")), None, 45.3)
    assert "not computable" in complaint(report)


@pytest.mark.parametrize("words", ["", "x", "test=", "101", "nan", "-1", "45,3"])
def test_an_expectation_is_a_percentage(words):
    with pytest.raises(InputError, match="--expect-r1"):
        parse_expectation(words)


def test_an_expectation_is_of_one_teacher(tmp_path, capsys):
    root = tmp_path / "c.zarr"
    for name in ("synthetic", "other"):
        write_synthetic_cache(root, samples(), signals=FACTORED, teacher=name)
    command = [build_parser(), ["report", str(root), "--expect-r1", "45.3"]]
    assert run_cli(*command) == 2
    assert "choose one with --teacher other | synthetic" in capsys.readouterr().err
    assert not (root / "reports" / "retrieval.json").exists()
    command[1] += ["--teacher", "other"]
    assert run_cli(*command) == 1
    assert list(read_json(root / "reports" / "retrieval.json")["teachers"]) == ["other"]


def test_an_expectation_is_about_the_test_split_unless_another_is_named():
    assert parse_expectation("45.3") == (None, 45.3)
    assert parse_expectation("val=45.3") == ("val", 45.3)
    assert expected_split(["test", "train", "val"], None) == "test"
    assert expected_split(["train", "val"], None) == "val"
    with pytest.raises(InputError, match="no evaluation split 'train'"):
        expected_split(["test", "train"], "train")
