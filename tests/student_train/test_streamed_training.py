"""Training from a URL: the numbers of a local training, pinned, and repeated from the recorded place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.reader import open_cache
from student_train.__main__ import main
from tests.store.remote.range_server import RangeServer
from tests.store.remote.told_objects import forget

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.slow
QUICK = ("--epochs", "1", "--batch-size", "16", "--seeds", "0", "--recipe", "demo")
ONE_RATE = ("--learning-rates", "0.003")


@pytest.fixture
def server(learnable_path):
    found = RangeServer(learnable_path.parent).start()
    yield found
    found.stop()


@pytest.fixture
def chunks(tmp_path, monkeypatch):
    folder = tmp_path / "chunks"
    monkeypatch.setenv("TEACHER_CACHE_CHUNKS", str(folder))
    yield folder
    forget(folder)


def store(arguments: list[str]) -> int:
    return run_cli(build_parser(), arguments)


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


@pytest.mark.slow
def test_a_url_is_trained_from_pinned_and_evaluated_again(server, chunks, learnable_path, tmp_path, capsys):
    url = f"{server.url}/{learnable_path.name}"
    digest = open_cache(learnable_path).digest
    streamed, local = tmp_path / "streamed", tmp_path / "local"
    assert main(["train", f"{url}@sha256:{digest}", "--out", str(streamed), *QUICK, *ONE_RATE]) == 0
    assert json.loads((streamed / "config.json").read_text())["cache"] == f"{url}@sha256:{digest}"
    assert main(["train", str(learnable_path), "--out", str(local), *QUICK, *ONE_RATE]) == 0
    for who in ("teacher", "untaught", "taught"):
        assert results(streamed)[who] == results(local)[who]
    assert main(["evaluate", str(streamed)]) == 0
    assert main(["report", str(streamed)]) == 0
    assert main(["compare", str(streamed), str(local)]) == 0
    assert "The configurations are the same." in capsys.readouterr().out


def test_info_tells_of_a_url_what_it_tells_of_the_folder(server, chunks, learnable_path, capsys):
    assert store(["info", "--json", str(learnable_path)]) == 0
    local = json.loads(capsys.readouterr().out)
    assert store(["info", "--json", f"{server.url}/{learnable_path.name}"]) == 0
    assert json.loads(capsys.readouterr().out) == {**local, "teachers": without_reports(local["teachers"])}


def without_reports(teachers: dict) -> dict:
    """Reports lie outside the digest and are not streamed."""
    return {name: {**teacher, "reports": {}} for name, teacher in teachers.items()}


def test_another_digest_than_the_url_has_is_refused(server, chunks, learnable_path, tmp_path, capsys):
    url = f"{server.url}/{learnable_path.name}@sha256:{'0' * 64}"
    assert main(["train", url, "--out", str(tmp_path / "run"), *QUICK, *ONE_RATE]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "0" * 64 in error


@pytest.mark.parametrize("command", ["verify", "remove"])
def test_a_command_that_needs_a_folder_refuses_a_url_in_one_line(command, capsys):
    teacher = ["--teacher", "demo"] if command == "remove" else []
    assert store([command, "s3://team/msrvtt.zarr", *teacher]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: s3://... is a URL")
    assert error.count("\n") == 1
    assert not Path("s3:").exists()


def test_a_dump_into_a_url_is_refused_in_one_line(capsys):
    from teacher_dump.__main__ import build_parser as dump_parser

    assert run_cli(dump_parser(), ["dump", "--cache", "s3://team/msrvtt.zarr"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: s3://... is a URL")
    assert error.count("\n") == 1
