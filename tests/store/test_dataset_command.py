"""python -m store dataset: lists, finds, counts, and its exit status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.inputs import datasets
from store.inputs.datasets import dataset_names, find_dataset, msrvtt
from store.inputs.datasets.base import Count, Published
from tests.store.inputs.datasets.official_files import OFFICIAL_FILES


def run(*words):
    return run_cli(build_parser(), ["dataset", *map(str, words)])


@pytest.fixture
def tiny_msrvtt(monkeypatch, tmp_path):
    """MSR-VTT as if it were published in the size of the tiny files, which lie complete in tmp_path."""
    counts = {"train": Count(3, 6), "test": Count(2, 2)}
    monkeypatch.setattr(msrvtt, "VARIANTS", {"": replace(msrvtt.NINE_K, counts=counts)})
    OFFICIAL_FILES["msrvtt"](tmp_path)
    return tmp_path


def test_without_a_name_all_are_listed_with_their_sizes_and_protocol(capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == len(dataset_names())
    line = next(line for line in printed.splitlines() if line.startswith("msrvtt "))
    assert "train 9,000 / 180,000; test 1,000 / 1,000" in line
    assert "single-caption" in line


def test_a_complete_dataset_says_so_and_exits_0(tiny_msrvtt, capsys):
    assert run("msrvtt", "--data", tiny_msrvtt) == 0
    printed = capsys.readouterr().out
    for part in (
        "found     MSRVTT_data.json",
        "layout    CLIP4Clip (annotations in ., videos in MSRVTT_Videos)",
        "5 videos or images in MSRVTT_Videos",
        "split     train 3 / 6 (published 3 / 6)",
        "5 of 5 are there",
    ):
        assert part in printed
    assert printed.splitlines()[-1] == "complete"


def test_missing_videos_are_named_and_exit_1(tiny_msrvtt, capsys):
    for id in ("video0", "video4"):
        (tiny_msrvtt / "MSRVTT_Videos" / f"{id}.mp4").unlink()
    assert run("msrvtt", "--data", tiny_msrvtt) == 1
    printed = capsys.readouterr().out
    assert "3 of 5 are there" in printed
    assert "video0\n" in printed
    assert "video4\n" in printed
    assert "MSRVTT.zip" in printed, "where to get them"
    assert printed.splitlines()[-1] == "not complete"


def test_the_first_ten_missing_videos_are_shown_unless_all_are_asked_for(tmp_path, monkeypatch, capsys):
    OFFICIAL_FILES["msrvtt"](tmp_path)
    ids = [f"video{n}" for n in range(30)]
    (tmp_path / msrvtt.TRAIN_9K).write_text(
        "\n".join(["video_id", *(id for id in ids if id not in ("video3", "video4"))])
    )
    assert run("msrvtt", "--data", tmp_path) == 1
    assert "... and 15 more (--all names them)" in capsys.readouterr().out
    assert run("msrvtt", "--data", tmp_path, "--all") == 1
    printed = capsys.readouterr().out
    assert all(f"{id}\n" in printed for id in ids[5:])


def test_a_missing_file_is_told_with_where_to_get_it(tiny_msrvtt, capsys):
    (tiny_msrvtt / msrvtt.TRAIN_9K).unlink()
    assert run("msrvtt", "--data", tiny_msrvtt) == 1
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "MISSING" in line)
    assert msrvtt.TRAIN_9K in line
    assert "msrvtt_data.zip" in line


def test_other_counts_exit_1(tmp_path, capsys):
    OFFICIAL_FILES["msrvtt"](tmp_path)
    assert run("msrvtt", "--data", tmp_path) == 1
    assert "3 train videos, published are 9,000" in capsys.readouterr().out


def test_a_broken_file_is_told_in_one_line_and_exits_1(tiny_msrvtt, capsys):
    (tiny_msrvtt / msrvtt.CAPTIONS).write_text("{")
    assert run("msrvtt", "--data", tiny_msrvtt) == 1
    assert "WRONG" in capsys.readouterr().out


def test_an_absent_folder_exits_1_and_says_what_is_needed(tmp_path, capsys):
    assert run("msvd", "--data", tmp_path / "absent") == 1
    printed = capsys.readouterr().out
    assert "no such folder" in printed
    assert "msvd_data.zip" in printed
    assert "YouTubeClips.tar" in printed


def test_a_name_that_is_none_exits_2(capsys):
    assert run("msrvt") == 2
    assert "did you mean 'msrvtt'" in capsys.readouterr().err


def test_a_table_is_complete_if_it_loads(tmp_path, capsys):
    table = tmp_path / "clips.csv"
    table.write_text("video,text,split\na.mp4,one,train\n")
    assert run("table", "--data", table) == 1
    assert "a.mp4" in capsys.readouterr().out
    (tmp_path / "a.mp4").touch()
    assert run("table", "--data", table) == 0
    assert "train: 1 videos, 1 texts" in capsys.readouterr().out


@pytest.mark.parametrize("name", [n for n in dataset_names() if isinstance(find_dataset(n), Published)])
def test_every_published_dataset_is_looked_at(name, tmp_path, capsys):
    OFFICIAL_FILES[name](tmp_path)
    assert run(name, "--data", tmp_path) == 1, "the tiny files are not as large as published"
    printed = capsys.readouterr().out
    assert "layout    none" not in printed
    assert "published are" in printed
    assert run(name, "--data", datasets.__path__[0]) == 1
