"""In a log, where no bar is drawn, a phase says now and then how far it is."""

from __future__ import annotations

from types import SimpleNamespace

from teacher_dump import progress
from teacher_dump.progress import Progress


def test_a_log_is_told_how_far_a_phase_is_and_how_long_it_takes(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with Progress("demo: planned", total=400, unit="step") as told:
        for seconds, task, rows in (
            (30, "a", 50),
            (61, "a", 100),
            (100, "b", 0),
            (125, "b", 100),
            (140, "b", 0),
        ):
            now[0] = seconds
            told(task, rows)
    assert capsys.readouterr().out.splitlines() == [
        "demo: planned: 100 of 400 steps after 1 min, about 3 min left",
        "demo: planned: 200 of 400 steps after 2 min, about 2 min left",
    ]
