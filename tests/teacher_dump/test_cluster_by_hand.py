"""The cluster that docs/dumping.md tells to start by hand: its lines, run as they stand there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.teacher_dump.test_executors import cache_tree
from tests.teacher_dump.test_kill import table_of
from tests.teacher_dump.test_worker_faults import end_with_children

HEAD, PORT, LOOPBACK = "head", "8786", "127.0.0.1"


def documented_lines():
    """The indented lines below "By hand:"."""
    text = (ROOT / "docs/dumping.md").read_text().partition("By hand:\n\n")[2]
    return [line.strip() for line in text.partition("\n\n")[0].splitlines()]


def free_port():
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return found.getsockname()[1]


@pytest.fixture
def cluster():
    """What the documented lines start, with this machine's name and a port that is free."""
    port = free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            f"exec env {line.replace(HEAD, LOOPBACK).replace(PORT, str(port))}",
            shell=True,
            cwd=ROOT,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for line in documented_lines()
    ]
    yield f"tcp://{LOOPBACK}:{port}", started
    for process in reversed(started):
        end_with_children(process)


@pytest.mark.slow
def test_the_documented_cluster_of_a_scheduler_and_two_workers_dumps_what_serial_dumps(cluster, tmp_path):
    address, processes = cluster
    assert len(processes) == 3
    words = "--dataset table --teacher demo --shard-rows 2 --threads 1 --decoders 1 --no-measure"
    command = [sys.executable, "-m", "teacher_dump", "dump", "--data", table_of(tmp_path), *words.split()]
    options = {
        "cwd": ROOT,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
        "capture_output": True,
        "text": True,
    }
    trees = []
    for executor, name in (("serial", "serial.zarr"), (address, "cluster.zarr")):
        ran = subprocess.run([*command, "--cache", tmp_path / name, "--executor", executor], **options)
        assert ran.returncode == 0, ran.stderr
        trees.append(cache_tree(tmp_path / name))
    assert "dashboard: http://" in ran.stderr
    assert trees[0] == trees[1]
    assert [process.poll() for process in processes] == [None] * 3
