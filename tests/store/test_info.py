"""info: the same facts for people and for scripts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.durable import canonical_json, write_file
from store.info import describe, gather
from store.reader import open_cache
from store.writer import CacheWriter
from tests.synthetic_cache import SIGNALS, synthetic_plan, synthetic_samples, write_synthetic_cache

SAMPLES = synthetic_samples(4)


@pytest.fixture
def cache(tmp_path):
    signals = (SIGNALS[0], SIGNALS[2], replace(SIGNALS[1], encoding="int8"))
    root = write_synthetic_cache(tmp_path / "c.zarr", SAMPLES, signals=signals, failed=frozenset({1}))
    report = {"teachers": {"synthetic": {"recall": {"r1": 46.25}, "note": "\x1b[31m"}, "other": {"x": 1}}}
    write_file(root / "reports" / "evaluation.json", canonical_json(report))
    return root


def test_json_has_the_keys_that_scripts_rely_on(cache, capsys):
    assert run_cli(build_parser(), ["info", str(cache), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == gather(cache)
    assert found["name"] == "c.zarr"
    assert (found["format"], found["state"], found["digest"]) == (1, "complete", open_cache(cache).digest)
    assert found["dataset"]["licence"] == "CC0-1.0"
    assert found["dataset"]["splits"]["train"] == {"videos": 2, "texts": 2}
    teacher = found["teachers"]["synthetic"]
    assert (teacher["videos_decoded"], teacher["videos_failed"]) == (3, 1)
    assert teacher["pair_scores"] == "factored"
    assert teacher["bytes"] == sum(signal["bytes"] for signal in teacher["signals"].values())
    assert teacher["reports"] == {"evaluation": {"recall": {"r1": 46.25}, "note": "\x1b[31m"}}
    layers = teacher["signals"]["vit_layers/1"]
    assert layers["shape"] == [4, 1, 4, 3, 2]
    assert layers["axes"] == list("VRMLD")
    assert layers["encoding"] == "int8"
    assert 0 < layers["errors"]["relative_l2"] < 0.02
    assert 0.999 < layers["errors"]["min_cosine"] <= layers["errors"]["mean_cosine"] <= 1
    assert "sab" in layers["needed_by"]


def test_people_see_licence_metrics_errors_and_who_needs_what(cache):
    printed = describe(cache)
    assert "  licence  CC0-1.0" in printed
    assert "report   evaluation: note \\x1b[31m, recall.r1 46.25" in printed
    assert "of use   to sab: frame_embedding, text_embedding, vit_layers/1" in printed
    row = next(line for line in printed.splitlines() if line.startswith("  vit_layers/1"))
    assert "int8" in row
    assert "0.99" in row


def test_a_report_that_can_not_be_read_is_told_and_hides_nothing(cache):
    (cache / "reports" / "broken.json").write_bytes(b"{")
    assert "unreadable" in gather(cache)["teachers"]["synthetic"]["reports"]["broken"]
    assert "teacher synthetic: complete" in describe(cache)


def test_a_second_teacher_under_way_stands_beside_the_finished_one(cache):
    with CacheWriter(cache, SAMPLES) as writer:
        writer.plan(synthetic_plan(SAMPLES, "second"))
    found = gather(cache)
    assert list(found["teachers"]) == ["synthetic"]
    assert found["unfinished"]["second"] == {
        "tasks_done": 0,
        "signals": [spec.name for spec in SIGNALS],
    }
    assert "teacher  second: 0 tasks done" in describe(cache)
