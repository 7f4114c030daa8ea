"""Bad input gets one clear line on stderr, exit status 2, and no stack trace unless --debug."""

from __future__ import annotations

import subprocess
import sys

import pytest

from store.__main__ import build_parser as store_parser
from store.cli import run_cli
from store.errors import CacheError
from teacher_dump.__main__ import build_parser
from tests.conftest import ROOT
from tests.synthetic_cache import synthetic_plan, synthetic_samples, write_synthetic_cache
from tests.teacher_dump.colour_teacher import write_clip


def dump(*words):
    return run_cli(build_parser(), ["dump", *map(str, words)])


def store(*words):
    try:
        return run_cli(store_parser(), words)
    except SystemExit as ended:
        return ended.code


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1, error
    return error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "msrvt"], "unknown dataset 'msrvt'; did you mean 'msrvtt'?"),
        (["--teacher", "xclop"], "unknown teacher 'xclop'; did you mean 'xclip'?"),
        (["--dataset", "msrvtt", "--data", "nowhere"], "MSRVTT_train.9k.csv"),
        (["--json"], "--json prints the tasks of --dry-run"),
        (["--worker-memory-gb", "4"], "--worker-memory-gb is of the workers of local:N"),
        (["--dataset", "table", "--data", "nowhere.csv"], "nowhere.csv; DATASET=table needs DATA=a csv"),
    ],
)
def test_names_and_files_that_are_not_there(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dump(*words, "--cache", tmp_path / "c.zarr") == 2
    assert said in one_line(capsys)
    assert not (tmp_path / "c.zarr").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "CACHE", "https://127.0.0.1:9/c.zarr"), "http is for pulling only"),
        (("push", "CACHE", "nowhere://x/y"), "nowhere:// is not spoken here"),
        (("pull", "CACHE", "FILE"), "exists and is no finished cache; pull into another folder"),
        (("pull", "CACHE@sha256:12ab", "NEW"), "a state is pinned to @sha256: and 64 hexadecimal digits"),
        (("pull", "CACHE", "NEW", "--teacher", "nobody"), "unknown teacher 'nobody'"),
        (("info", "CACHE@v1"), "a state of a shared folder is named by a URL: file://"),
        (("card", "CACHE", "--licence", " "), "an empty name is no licence"),
        (("info", "CACHE", "--chunk-cache-size", "banana"), "'banana' is no size of a chunk cache"),
    ],
)
def test_what_a_cache_is_not_asked_to_do(words, said, capsys, tmp_path):
    write_synthetic_cache(tmp_path / "c.zarr")
    places = {"CACHE": tmp_path / "c.zarr", "FILE": tmp_path / "file", "NEW": tmp_path / "new"}
    (tmp_path / "file").write_text("mine")
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    assert store(*words) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.zarr", "file"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("video,text\na.mp4,x\n", "split"),
        ("video,text,split\nb.mp4,x,train\n", "b.mp4"),
        ("video,text,split\na.mp4,  ,train\n", "clips.csv:2: the caption"),
        ("video,text,split\na.mp4,x,train\na.mp4,x,train\n", "clips.csv:3: "),
        ("video,text,split\na.mp4,x,train\na.mp4,y,test\n", "clips.csv:3: "),
        ("", "no rows"),
    ],
)
def test_a_table_that_can_not_be_used_names_file_and_line(table, said, capsys, tmp_path):
    write_clip(tmp_path / "a.mp4", ["red"])
    (tmp_path / "clips.csv").write_text(table)
    assert dump("--dataset", "table", "--data", tmp_path / "clips.csv", "--cache", tmp_path / "c.zarr") == 2
    error = one_line(capsys)
    assert "clips.csv" in error
    assert said in error
    assert not (tmp_path / "c.zarr").exists()


def test_a_cache_of_another_dataset_is_refused_and_left_alone(capsys, tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr")
    before = sorted(path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file())
    write_clip(tmp_path / "a.mp4", ["red"])
    (tmp_path / "clips.csv").write_text("video,text,split\na.mp4,something red,train\n")
    assert dump("--dataset", "table", "--data", tmp_path / "clips.csv", "--cache", root) == 2
    assert "differs in name: stored 'synthetic', wanted 'table'" in one_line(capsys)
    assert sorted(path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()) == before


def test_what_is_missing_is_refused_or_recorded_in_the_cache(capsys, tmp_path):
    write_clip(tmp_path / "a.mp4", ["red"])
    (tmp_path / "clips.csv").write_text("video,text,split\na.mp4,red,train\ngone.mp4,blue,train\n")
    words = ["--dataset", "table", "--data", tmp_path / "clips.csv", "--cache", tmp_path / "c.zarr"]
    assert dump(*words) == 2
    assert "1 of 2 video files are missing, first: gone.mp4" in one_line(capsys)
    assert dump(*words, "--allow-missing") == 0
    printed = capsys.readouterr().out
    assert "missing  of what is published: 1 train texts, 1 train videos" in printed


def test_xclip_without_weights_says_what_to_place_where(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", ["red"])
    (tmp_path / "clips.csv").write_text("video,text,split\na.mp4,something red,train\n")
    assert dump("--dataset", "table", "--data", "clips.csv", "--teacher", "xclip") == 2
    assert "weights/xclip" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--plan", "batch=1,epochs=1", "--expect-r1", "45"],
            "dump with --topk 128 --topk-splits test as well",
        ),
        (["--topk", "2", "--topk-splits", "train", "--expect-r1", "45"], "not all of split 'test'"),
        (["--teacher", "clip"], "no weights were named for ViT-B-32"),
    ],
)
def test_what_would_fail_after_a_day_is_refused_at_once(words, said, capsys, tmp_path):
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", ["red"])
    (tmp_path / "clips.csv").write_text("video,text,split\na.mp4,red,train\nb.mp4,more red,test\n")
    root = tmp_path / "c.zarr"
    assert dump("--dataset", "table", "--data", tmp_path / "clips.csv", "--cache", root, *words) == 2
    assert said in one_line(capsys)
    assert not root.exists()


def test_a_broken_video_is_listed_and_max_failures_decides_the_exit_status(capsys, tmp_path):
    write_clip(tmp_path / "good.mp4", ["red", "blue"])
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    rows = "video,text,split\ngood.mp4,something red,train\nbroken.mp4,something else,train\n"
    (tmp_path / "clips.csv").write_text(rows)
    words = ["--dataset", "table", "--data", tmp_path / "clips.csv", "--cache", tmp_path / "c.zarr"]
    assert dump(*words) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 videos failed and are left out:\n  broken.mp4: " in printed
    assert dump(*words, "--max-failures", "1") == 0
    capsys.readouterr()
    assert dump(*words, "--max-failures") == 1
    assert one_line(capsys) == "error: 1 videos failed, more than --max-failures 0; the cache is finished\n"


def test_debug_shows_the_stack_trace(tmp_path):
    words = ["--dataset", "table", "--data", tmp_path / "no.csv", "--cache", tmp_path / "c.zarr", "--debug"]
    with pytest.raises(CacheError):
        dump(*words)


@pytest.mark.parametrize("stop_at", ["planned", "nothing"])
def test_info_of_an_unfinished_or_missing_cache(stop_at, tmp_path, capsys):
    from store.__main__ import build_parser as store_parser
    from store.writer import CacheWriter

    root = tmp_path / "c.zarr"
    if stop_at == "planned":
        with CacheWriter(root, synthetic_samples()) as writer:
            writer.plan(synthetic_plan(synthetic_samples()))
        assert run_cli(store_parser(), ["info", str(root)]) == 0
        printed = capsys.readouterr().out
        assert "dumping" in printed
        assert "will hold frame_embedding" in printed
    else:
        assert run_cli(store_parser(), ["info", str(root)]) == 2
        assert "make dump-teacher" in one_line(capsys)


def test_info_shows_every_signal_with_shape_bytes_and_error(tmp_path, capsys):
    from store.__main__ import build_parser as store_parser

    root = write_synthetic_cache(tmp_path / "c.zarr", failed=frozenset({3}))
    assert run_cli(store_parser(), ["info", str(root)]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "vit_layers/1" in line).split()
    assert row[1] == "V,R,M,L,D"
    assert " ".join(row[2:11]) == "12 x 1 x 4 x 3 x 2"
    assert row[11] == "float16"
    assert int(row[12].replace(",", "")) >= 11 * 4 * 3 * 2 * 2
    assert float(row[-1]) < 1e-3
    assert "complete" in printed
    assert "11 decoded, 1 failed" in printed


@pytest.mark.parametrize("package", ["store", "teacher_dump", "student_train"])
def test_help_is_everywhere(package):
    result = subprocess.run(
        [sys.executable, "-m", package, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "usage:" in result.stdout
