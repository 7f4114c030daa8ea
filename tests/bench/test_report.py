"""What a bench leaves behind can be read by a machine and by a person."""

from __future__ import annotations

import json
import math

from tests.bench import report
from tests.bench.report import Bar


def test_a_bar_holds_on_its_own_side_only():
    assert Bar("reads", 0.91, 0.9, "of memcpy").holds
    assert not Bar("reads", 0.89, 0.9, "of memcpy").holds
    assert Bar("block", 0.05, 0.1, "ms", at_least=False).holds
    assert not Bar("block", 0.2, 0.1, "ms", at_least=False).holds
    assert not Bar("broken", math.nan, 0.9, "of memcpy").holds


def test_the_report_holds_machine_rows_and_bars(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = report.write("toy", [{"way": "ours", "ms": 1.25}], [Bar("ours", 0.5, 0.9, "of bare")])
    content = json.loads(path.read_text())
    assert path.relative_to(".").as_posix() == "bench-results/toy.json"
    assert content["machine"]["cores"] >= 1
    assert content["rows"] == [{"way": "ours", "ms": 1.25}]
    assert content["bars"] == [
        {"name": "ours", "value": 0.5, "target": 0.9, "unit": "of bare", "holds": False}
    ]
    assert "MISSED" in capsys.readouterr().out


def test_the_machine_is_told_without_its_name():
    assert {"processor", "cores", "memory_gb", "libraries"} <= report.machine().keys()
