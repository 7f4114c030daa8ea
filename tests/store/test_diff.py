"""diff names what differs between two caches, and tells provenance apart."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.diff import describe_difference, diff
from store.errors import IncompleteCacheError
from store.inputs.samples import DatasetCard, Split, Text
from store.writer import CacheWriter
from tests.synthetic_cache import (
    SIGNALS,
    shard_commits,
    synthetic_plan,
    synthetic_samples,
    synthetic_values,
    write_synthetic_cache,
)

SAMPLES = synthetic_samples(4)
SMALL = {"signals": SIGNALS[2:4], "shard_rows": 3}


def write_planned(root, plan, seed=0, samples=SAMPLES):
    """A complete cache of this very plan, its values from `seed`."""
    with CacheWriter(root, samples) as writer:
        writer.plan(plan)
        values = synthetic_values(samples, plan.signals, seed)
        commits = list(shard_commits(root, samples, plan, values=values))
        for commit in commits:
            writer.commit(commit)
        writer.complete(plan, [commit.task for commit in commits])
    return root


@pytest.fixture
def cache(tmp_path):
    return write_synthetic_cache(tmp_path / "a.zarr", SAMPLES, **SMALL)


def test_two_dumps_of_the_same_are_equal(cache, tmp_path, capsys):
    twin = write_synthetic_cache(tmp_path / "b.zarr", SAMPLES, **SMALL)
    assert diff(cache, twin) == {"equal": True}
    assert run_cli(build_parser(), ["diff", str(cache), str(twin)]) == 0
    assert capsys.readouterr().out == "equal, by what their manifests say; verify reads the objects\n"


def test_rows_that_come_go_and_move_are_told_with_the_splits_they_leave(cache, tmp_path):
    videos = (SAMPLES.videos[1], SAMPLES.videos[0], *SAMPLES.videos[2:3])
    texts = (Text("caption 0 of clip 1", 0), Text("caption 0 of clip 0", 1), Text("another", 2))
    splits = {"train": Split(np.array([0, 1]), np.array([0, 1])), "val": Split(np.array([2]), np.array([2]))}
    samples = replace(SAMPLES, videos=videos, texts=texts, splits=splits)
    other = write_synthetic_cache(tmp_path / "b.zarr", samples, **SMALL)
    found = diff(cache, other)
    assert not found["equal"]
    assert found["identity"]["videos"] == [4, 3]
    assert found["rows"]["videos"]["only_a"] == {"count": 1, "first": ["clip_003"]}
    assert found["rows"]["videos"]["moved"] == {"count": 2, "first": [["clip_000", 0, 1], ["clip_001", 1, 0]]}
    assert found["rows"]["texts"]["only_b"] == {"count": 1, "first": [("clip_002", "another")]}
    assert found["splits"] == {
        "test": "only in A",
        "val": {
            "texts": {
                "only_a": {"count": 1, "first": [("clip_002", "caption 0 of clip 2")]},
                "only_b": {"count": 1, "first": [("clip_002", "another")]},
            }
        },
    }
    assert "videos/id_utf8" in found["tables"]


def test_teachers_and_signals_that_only_one_has(cache, tmp_path):
    other = write_synthetic_cache(tmp_path / "b.zarr", SAMPLES, signals=SIGNALS[2::2], shard_rows=3)
    write_synthetic_cache(other, SAMPLES, teacher="second", **SMALL)
    found = diff(cache, other)["teachers"]
    assert found["second"] == "only in B"
    assert found["synthetic"]["signals"] == {
        "frame_relevance": "only in A",
        "video_text_logits": "only in B",
    }


@pytest.mark.parametrize(
    ("change", "part", "field"),
    [
        ({"identity": {"weights_sha256": "1" * 64, "logit_scale": 20.0}}, "identity", "weights_sha256"),
        (
            {"signals": (SIGNALS[2], replace(SIGNALS[3], attributes={"temperature": 0.2}))},
            "signals",
            "frame_relevance",
        ),
    ],
)
def test_a_changed_identity_is_named_with_both_values(cache, tmp_path, change, part, field):
    plan = replace(synthetic_plan(SAMPLES, "synthetic", 3, SIGNALS[2:4]), **change)
    found = diff(cache, write_planned(tmp_path / "b.zarr", plan))
    assert list(found) == ["equal", "teachers"]
    assert list(found["teachers"]["synthetic"]) == [part]
    assert field in found["teachers"]["synthetic"][part]
    assert any(field in line and "A " in line and " B " in line for line in describe_difference(found))


def test_other_contents_under_one_identity_are_found_by_their_digests(cache, tmp_path):
    plan = synthetic_plan(SAMPLES, "synthetic", 3, SIGNALS[2:4])
    found = diff(cache, write_planned(tmp_path / "b.zarr", plan, seed=1))
    assert found["teachers"]["synthetic"]["signals"] == {
        "frame_relevance": {"objects_that_differ": 3},
        "text_embedding": {"objects_that_differ": 3},
    }


def test_provenance_is_told_and_makes_no_other_cache(cache, tmp_path, capsys):
    plan = replace(synthetic_plan(SAMPLES, "synthetic", 3, SIGNALS[2:4]), provenance={"numpy": "3"})
    card = replace(SAMPLES, card=DatasetCard("made \x1b[31m elsewhere", "CC0-1.0", "none"))
    other = write_planned(tmp_path / "b.zarr", plan, samples=card)
    found = diff(cache, other)
    assert found["equal"]
    assert found["provenance"]["teachers/synthetic"] == {"provenance.numpy": ["2", "3"]}
    assert found["provenance"]["card"]["title"] == ["made in a test", "made \x1b[31m elsewhere"]
    assert run_cli(build_parser(), ["diff", str(cache), str(other)]) == 0
    printed = capsys.readouterr().out
    assert "told, but no other cache for it:" in printed
    assert "\x1b" not in printed


def test_json_for_scripts_and_exit_status_one(cache, tmp_path, capsys):
    other = write_synthetic_cache(tmp_path / "b.zarr", synthetic_samples(5), **SMALL)
    assert run_cli(build_parser(), ["diff", str(cache), str(other), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["identity"]["videos"] == [4, 5]


def test_an_unfinished_cache_is_refused(cache, tmp_path):
    with CacheWriter(tmp_path / "b.zarr", SAMPLES):
        pass
    with pytest.raises(IncompleteCacheError):
        diff(cache, tmp_path / "b.zarr")
