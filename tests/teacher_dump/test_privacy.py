"""A cache says nothing of who made it and where: no path, no host, no user, nothing of the environment."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from pathlib import Path

import pytest

import store.__main__
from store.cli import run_cli
from store.info import gather
from store.inputs.decode_pool import DecodeFailure, outcome_of
from store.inputs.view import View
from store.made import read_made
from store.manifest import CARD
from store.writer import CacheWriter
from teacher_dump.__main__ import build_parser
from teacher_dump.dump_card import public_options
from tests.conftest import ROOT
from tests.teacher_dump.colour_teacher import write_clip

FOLDER, USER, HOST, TOKEN = "penguin_palace", "walrusina", "capybara-07", "hunter2-0815"
HERE = (platform.node(), str(Path.home()) + "/", str(ROOT))
"""What would tell of the machine that runs this test."""
QUICK = ("--decoders", "1", "--threads", "1", "--batch-videos", "2", "--no-measure")
WEIGHTS = ROOT / "teacher_dump" / "weights" / "demo_clip4clip.safetensors"
HEAD = "video,text,split\n"
FIRST = (
    "clips/a.mp4,a red circle,train\nclips/b.mp4,a blue square,train\nclips/c.mp4,a green circle,test\n"
    "clips/empty.mp4,a red square,train\nclips/cut.mp4,a red star,train\nclips/noise.mp4,a star,test\n"
    "clips/away.mp4,a blue star,train\n"
)
LATER = "clips/d.mp4,a blue circle,train\nclips/words.txt,a grey circle,test\n"


class LeakError(Exception):
    """Carries a path, as exceptions of libraries do."""


def telling_decoder(path, view, video_id):
    raise LeakError(f"can't decode {path} on {HOST}")


@pytest.fixture
def office(tmp_path, monkeypatch):
    """A folder with a telling name, on a telling machine, with a table of clips; some of them broken."""
    folder = tmp_path / FOLDER
    clips = folder / "data" / "clips"
    clips.mkdir(parents=True)
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green"), ("d", "blue")):
        write_clip(clips / f"{name}.mp4", [colour, "grey"])
    (clips / "empty.mp4").write_bytes(b"")
    whole = (clips / "a.mp4").read_bytes()
    (clips / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (clips / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (clips / "words.txt").write_text(f"made by {USER}")
    (folder / "data" / "clips.csv").write_text(HEAD + FIRST)
    told = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((told.sysname, HOST, *told[2:])))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(platform, "node", lambda: HOST)
    for name, value in (("USER", USER), ("LOGNAME", USER), ("HOSTNAME", HOST), ("HF_TOKEN", TOKEN)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(folder / USER))
    monkeypatch.chdir(folder)
    return folder


def dump(*words: object) -> None:
    assert run_cli(build_parser(), ["dump", "--dataset", "table", *map(str, words), *QUICK]) == 0


def leaks(root: Path, secrets: tuple[str, ...]) -> list[str]:
    """Every object of the cache, by name and content, that holds one of `secrets`, spelt in 8 or 16 bits."""
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        content = name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
        for secret in secrets:
            spelt = (secret.lower().encode(), secret.lower().encode("utf-16-le"))
            found += [f"{name}: {secret}" for words in spelt if words in content.lower()]
    return found


def secrets_of(tmp_path: Path) -> tuple[str, ...]:
    """What may stand in no object; words too short to tell of anybody left out."""
    return tuple(word for word in (FOLDER, USER, HOST, TOKEN, str(tmp_path), *HERE) if len(word) > 3)


STORED = ("--keep-pixels", "jpeg:90", "--encoding", "vit_layers=int8", "--allow-missing")


def test_a_dump_tells_nobody_where_it_ran_neither_while_it_runs_nor_after(office, tmp_path, monkeypatch):
    unfinished: list[str] = []
    complete = CacheWriter.complete

    def look_then_complete(self, plan, tasks):
        assert (self.root / "ledger.jsonl").is_file()
        unfinished.extend(leaks(self.root, secrets_of(tmp_path)))
        return complete(self, plan, tasks)

    monkeypatch.setattr(CacheWriter, "complete", look_then_complete)
    dump("--data", "data/clips.csv", "--cache", "caches/c.zarr", *STORED, "--licence", "CC-BY-4.0")
    told = gather(office / "caches" / "c.zarr")
    assert (told["terms"]["licence"], told["terms"]["share"]) == ("CC-BY-4.0", "yes")
    assert told["dataset"]["missing"] == {"train videos": 1, "train texts": 1}
    assert told["teachers"]["demo"]["videos_failed"] == 3
    assert {"retrieval", "made", "dump"} == told["teachers"]["demo"]["reports"].keys()
    assert unfinished == []
    assert leaks(office / "caches" / "c.zarr", secrets_of(tmp_path)) == []


@pytest.mark.slow
def test_nor_do_additions_reports_a_recheck_and_absolute_paths(office, tmp_path, capsys):
    root, table, weights = office / "c.zarr", office / "data" / "clips.csv", office / f"{USER}.safetensors"
    dump("--data", table, "--cache", root, *STORED)
    table.write_text(HEAD + FIRST + LATER)
    dump("--data", table, "--cache", root, *STORED, "--extend")
    shutil.copy(WEIGHTS, weights)
    second = ("--teacher", "demo_clip4clip", "--checkpoint", weights, "--allow-missing", "--extend")
    dump("--data", table, "--cache", root, *second)
    recheck = ["recheck", str(root), "--data", str(table), "--dataset", "table"]
    assert run_cli(build_parser(), [*recheck, "--teacher", "demo", "--decoders", "1"]) == 0
    assert run_cli(build_parser(), ["report", str(root), "--teacher", "demo", "--expect-r1", "test=50"]) == 1
    assert run_cli(store.__main__.build_parser(), ["card", str(root), "--share", "yes"]) == 0
    told = gather(root)
    assert told["teachers"]["demo"]["videos_failed"] == 4
    assert {"recheck", "retrieval", "made", "dump"} == told["teachers"]["demo"]["reports"].keys()
    assert len(read_made(root, "demo").commands) == 2
    assert read_made(root, "demo_clip4clip").commands[0][:4] == ("--dataset", "table", "--data", "DATA")
    assert "--checkpoint CHECKPOINT" in (root / CARD).read_text().replace(" \\\n    ", " ")
    assert leaks(root, secrets_of(tmp_path)) == []


@pytest.mark.slow
def test_nor_do_workers_of_a_cluster(office, tmp_path):
    dump("--data", "data/clips.csv", "--cache", "c.zarr", "--allow-missing", "--executor", "local:1")
    assert leaks(office / "c.zarr", (*secrets_of(tmp_path), "127.0.0.1")) == []


def test_the_grep_of_this_test_finds_what_is_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"\xff\x00...Walrusina\x00")
    (tmp_path / "walrusina.json").write_bytes(b"")
    (tmp_path / "wide").write_bytes("walrusina".encode("utf-16-le"))
    assert len(leaks(tmp_path, (USER,))) == 3


def test_an_exception_with_a_path_leaves_only_its_kind(tmp_path, capfd):
    found = outcome_of(tmp_path / FOLDER / "a.mp4", "a.mp4", View("uniform_1x8", 1, 8), telling_decoder)
    assert found == DecodeFailure("the decoder raised LeakError")


@pytest.mark.parametrize(
    "private",
    [
        ["--data", "/srv/walrusina/clips.csv"],
        ["--cache", "walrusina/c.zarr"],
        ["--checkpoint", "walrusina.bin"],
        ["--pretrained", "walrusina.pt"],
        ["--pretrained", "/srv/walrusina/weights"],
        ["--vocabulary", "walrusina/vocab.txt"],
        ["--classes", "walrusina.txt"],
        ["--features", "walrusina.npz"],
        ["--learned-prompt", "walrusina.safetensors"],
        ["--executor", "tcp://capybara-07:8786"],
    ],
)
def test_the_command_in_the_card_names_no_file_and_no_host(private):
    words = public_words(["--dataset", "table", *private])
    assert not any(secret in word for word in words for secret in (USER, HOST))


def test_the_command_in_the_card_says_again_what_the_labels_are():
    options = [
        "--dataset",
        "msrvtt",
        "--teacher",
        "clip",
        "--architecture",
        "ViT-B-16",
        "--pretrained",
        "openai",
    ]
    options += ["--encoding", "vit_layers=int8", "--encoding", "text_embedding=int8", "--layers", "2,5"]
    options += ["--keep-pixels", "jpeg:90", "--allow-missing", "--batch-videos", "8"]
    words = public_words(options)
    assert words == public_words(list(words))
    said = " ".join(words)
    assert all(option in said for option in ("--pretrained openai", "--layers 2,5", "text_embedding=int8"))


def public_words(options: list[str]) -> tuple[str, ...]:
    arguments = build_parser().parse_args(["dump", *options])
    return public_options(arguments, arguments.default_of)
