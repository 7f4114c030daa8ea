"""kill -9 at random moments: a resume loses nothing, writes nothing twice, and gives the same bytes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from store.reader import open_cache
from teacher_dump.dump import dump
from teacher_dump.settings import DumpSettings
from tests.conftest import ROOT
from tests.store.test_kill import finished_shards, wait_for_work
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples

CHOSEN = {"batch_videos": 1, "batch_texts": 1, "threads": 1, "shard_rows": 1, "decoders": 1}
SETTINGS = DumpSettings(**CHOSEN)
DUMP = """
import json
import sys
from pathlib import Path
from teacher_dump.dump import dump
from teacher_dump.settings import DumpSettings
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples
if __name__ == "__main__":
    root, clips, settings = sys.argv[1:]
    dump(Path(root), colour_samples(Path(clips)), ColourTeacher(), DumpSettings(**json.loads(settings)), {})
"""


@pytest.mark.slow
def test_kill_minus_nine_at_random_moments_loses_and_repeats_nothing(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    samples = colour_samples(clips)
    whole = dump(tmp_path / "whole.zarr", samples, ColourTeacher(), SETTINGS, {})
    script = tmp_path / "run_dump.py"
    script.write_text(DUMP)
    root, kills = tmp_path / "killed.zarr", 0
    chance = random.Random(0)
    for _ in range(40):
        before = finished_shards(root)
        command = [sys.executable, str(script), str(root), str(clips), json.dumps(CHOSEN)]
        process = subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""})
        wait_for_work(root, process, len(before))
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        assert {path: (root / path).stat().st_mtime_ns for path in before} == before, "written again"
        if not killed:
            break
        kills += 1
    assert kills >= 2
    assert open_cache(root).digest == whole.digest
    stored, expected = tree(root), tree(whole.path)
    for files in (stored, expected):
        del files["reports/dump.json"]
    assert stored == expected


def table_of(folder):
    """Eight clips with two captions each, as a table."""
    lines = [
        f"{video.id},{words} {video.path.stem[2:]},train"
        for video in colour_samples(folder).videos
        for words in ("a clip in", "this shows")
    ]
    (folder / "table.csv").write_text("\n".join(["video,text,split", *lines]) + "\n")
    return folder / "table.csv"


def tasks_done(root, phase):
    ledger = root / "ledger.jsonl"
    lines = ledger.read_bytes().split(b"\n")[:-1] if ledger.exists() else []
    return sum(f"/{phase}/" in json.loads(line)["task"] for line in lines)


def wait_for_phase(root, process, phase):
    """Until some tasks of `phase` are done."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not tasks_done(root, phase):
        time.sleep(0.002)


@pytest.mark.slow
def test_kill_minus_nine_in_each_phase_of_chosen_pairs_loses_and_repeats_nothing(tmp_path):
    """The command itself, with a cross-encoder: top-k of texts, of videos, and a plan's batches."""
    command = [sys.executable, "-m", "teacher_dump", "dump", "--dataset", "table", "--data",
               table_of(tmp_path), "--teacher", "demo_albef", "--topk", "4", "--fused-cls", "--plan",
               "batch=2,epochs=6,k=2,name=pairs", "--shard-rows", "1", "--threads", "1", "--decoders", "1",
               "--no-measure"]  # fmt: skip
    options = {"cwd": ROOT, "env": {"PYTHONPATH": str(ROOT), "PATH": ""}, "stdout": subprocess.DEVNULL}
    whole, root, before = tmp_path / "whole.zarr", tmp_path / "killed.zarr", {}
    subprocess.run([*command, "--cache", whole], check=True, **options)
    for phase, tasks in (("topk_texts", 8), ("topk_videos", 16), ("planned", 48)):
        process = subprocess.Popen([*command, "--cache", root], **options)
        wait_for_phase(root, process, phase)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert 0 < tasks_done(root, phase) < tasks
        finished = finished_shards(root)
        assert before.items() <= finished.items(), "written again"
        before = finished
    subprocess.run([*command, "--cache", root], check=True, **options)
    assert {path: (root / path).stat().st_mtime_ns for path in before} == before
    assert open_cache(root).digest == open_cache(whole).digest
    stored, expected = tree(root), tree(whole)
    for files in (stored, expected):
        del files["reports/dump.json"]
    assert stored == expected
