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
