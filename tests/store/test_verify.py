"""verify judges what the bytes mean, not only whether they changed: every manifest here is sealed anew."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.durable import canonical_json, record_file, write_file
from store.errors import DamagedCacheError, IncompleteCacheError, MissingFileError, UnknownNameError
from store.ledger import Commit
from store.manifest import MANIFEST, Manifest
from store.plans import PlannedBatches
from store.shards import RowsArray, ShardFile
from store.signals import Reduction, SignalSpec
from store.tables import write_column, write_strings
from store.verify import verify
from store.writer import CacheWriter
from tests.synthetic_cache import (
    FRAMES,
    SIGNALS,
    shard_commits,
    synthetic_plan,
    synthetic_samples,
    write_synthetic_cache,
)

SAMPLES = synthetic_samples(4)
VIEW, TEACHER = "views/uniform_4x8", "teachers/synthetic"
SMALL = {"samples": SAMPLES, "signals": (SIGNALS[0], SIGNALS[3]), "shard_rows": 3, "failed": frozenset({1})}


@pytest.fixture(scope="module")
def sound_cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("verify") / "c.zarr"
    write_synthetic_cache(root, **SMALL)
    return write_synthetic_cache(root, teacher="second", **SMALL)


@pytest.fixture
def cache(sound_cache, tmp_path):
    return shutil.copytree(sound_cache, tmp_path / "c.zarr")


def seal(root):
    """Write all manifests anew over what lies there."""
    found = Manifest.read(root)
    groups = dict.fromkeys(found.groups, "")
    files = [path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST]
    for group in groups:
        own = Manifest.of(record_file(root, path) for path in files if path.is_relative_to(root / group))
        own.write(root / group)
        groups[group] = own.digest
    tables = [path for path in files if not any(path.is_relative_to(root / group) for group in groups)]
    Manifest.of([record_file(root, path) for path in tables], groups).write(root)


def faults(root, **options):
    return {fault.path: fault.problem for fault in verify(root, **options).faults}


def write_shard(root, path, values, skip=()):
    """Shard 0 of the sharded array at `path` anew, rows `values` [rows, ...] from its first row on."""
    array = RowsArray.from_zarr_json(json.loads((root / path / "zarr.json").read_bytes()), path)
    with ShardFile(root, path, array, 0) as shard:
        for row, value in enumerate(values):
            if row not in skip:
                shard.append(row, np.asarray(value, array.dtype))
        shard.finish()


def test_a_sound_cache_is_sound_in_every_encoding(tmp_path):
    signals = (
        SIGNALS[0],
        replace(SIGNALS[1], encoding="int8"),
        replace(SIGNALS[2], encoding="int8"),
        SignalSpec("vit_layers/2", {"R": 1, "M": FRAMES, "L": 3, "D": 2}, reduction=Reduction(width=2)),
        *SIGNALS[3:],
    )
    root = write_synthetic_cache(tmp_path / "c.zarr", signals=signals, failed=frozenset({2, 7}))
    report = verify(root)
    assert report.faults == []
    assert report.notes == []
    assert report.read == report.objects == sum(1 for f in root.rglob("*") if f.is_file()) - 3
    basis = next(root.rglob("projection_basis/c/0/0"))
    values = np.frombuffer(basis.read_bytes()[:-4], "<f4").reshape(2, -1).copy()
    values[0, 0] = np.nan
    write_column(root, f"{TEACHER}/vit_layers/2/projection_basis", values, ("D_full", "D"))
    seal(root)
    assert faults(root) == {f"{TEACHER}/vit_layers/2/projection_basis": "holds a value that is not finite"}


def test_a_batch_plan_that_no_finished_teacher_uses_is_noted(tmp_path):
    split = SAMPLES.splits["train"]
    batches = PlannedBatches.draw("train", split.video, split.text, 2, 2, 0)
    plan = synthetic_plan(SAMPLES, signals=(SIGNALS[2],))
    with CacheWriter(tmp_path / "c.zarr", SAMPLES) as writer:
        writer.add_batch_plan("p", batches)
        writer.plan(plan)
        commits = list(shard_commits(tmp_path / "c.zarr", SAMPLES, plan))
        for commit in commits:
            writer.commit(commit)
        writer.complete(plan, [commit.task for commit in commits])
    report = verify(tmp_path / "c.zarr")
    assert report.faults == []
    assert report.notes == ["plans/p is unfinished and was not checked"]


def test_a_missing_row_and_one_too_many_are_named(cache):
    write_shard(cache, f"{TEACHER}/frame_embedding", np.ones((3, 1, FRAMES, 8)), skip={0})
    seal(cache)
    assert [(fault.path, fault.problem) for fault in verify(cache).faults] == [
        (f"{TEACHER}/frame_embedding", "lacks row 0: neither written nor listed as a failure"),
        (f"{TEACHER}/frame_embedding", "has row 1, of a failed video or a text without one"),
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_row(cache, value):
    values = np.ones((3, 1, FRAMES, 8))
    values[2, 0, 3, 7] = value
    write_shard(cache, f"{TEACHER}/frame_embedding", values, skip={1})
    seal(cache)
    assert faults(cache) == {f"{TEACHER}/frame_embedding/c/0/0/0/0": "row 2 holds a value that is not finite"}
    assert faults(cache, sample=0.0) == {}


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        (lambda root: write_strings(root, "videos/id", ["a", "b", "a", "c"], "V"), "videos/id_utf8", "twice"),
        (
            lambda root: write_strings(root, "texts/text", ["a", " ", "b", "c"], "T"),
            "texts/text_utf8",
            "row 1",
        ),
        (
            lambda root: write_column(root, "texts/video", np.array([0, 1, 2, 9]), ("T",)),
            "tables",
            "entry 3 is 9",
        ),
        (
            lambda root: write_column(root, "texts/kind", np.array([0, 0, 1, 0], np.uint8), ("T",)),
            "texts/kind",
            "row 2",
        ),
        (
            lambda root: write_column(root, "splits/train/video", np.array([1, 0]), ("V_of_split",)),
            "splits/train/video",
            "ascending",
        ),
        (
            lambda root: write_column(root, "splits/train/text", np.array([0, 3]), ("T_of_split",)),
            "splits/train/text",
            "not in the split",
        ),
        (
            lambda root: write_column(root, f"{VIEW}/failed", np.array([False] * 4), ("V",)),
            f"{VIEW}/zarr.json",
            "states 1 failures, 0 are listed",
        ),
        (
            lambda root: write_strings(root, f"{VIEW}/failure", ["", "", "x", ""], "V"),
            f"{VIEW}/failure_utf8",
            "rows 1, 2",
        ),
        (
            lambda root: write_shard(root, f"{VIEW}/frame_valid", np.zeros((3, 1, FRAMES)), skip={1}),
            f"{VIEW}/frame_valid",
            "rows 0, 2 decoded and has no valid frame",
        ),
        (
            lambda root: write_shard(root, f"{VIEW}/frame_time_s", np.full((3, 1, FRAMES), np.nan), skip={1}),
            f"{VIEW}/frame_time_s",
            "without a time",
        ),
    ],
)
def test_tables_and_views_that_contradict_themselves(cache, change, path, said):
    change(cache)
    seal(cache)
    found = faults(cache)
    assert said in found[path]


def change_attributes(root, path, **changes):
    document = json.loads((root / path / "zarr.json").read_bytes())
    document["attributes"] |= changes
    write_file(root / path / "zarr.json", canonical_json(document))
    seal(root)


@pytest.mark.parametrize(
    ("path", "changes", "said"),
    [
        (TEACHER, {"name": "second"}, "second"),
        (TEACHER, {"state": "dumping"}, "dumping"),
        (TEACHER, {"pair_scores": {"layout": "dense"}}, "pair scores"),
        (f"{TEACHER}/frame_embedding", {"encoding_relative_l2": -1.0}, "encoding_relative_l2"),
        (f"{TEACHER}/frame_embedding", {"encoding_min_cosine": "1"}, "encoding_min_cosine"),
        (VIEW, {"state": "dumping"}, "state"),
    ],
)
def test_attributes_that_can_not_be_true(cache, path, changes, said):
    change_attributes(cache, path, **changes)
    assert any(said in problem for problem in faults(cache).values())


def test_a_bad_teacher_hides_no_other(cache):
    (cache / TEACHER / MANIFEST).unlink()
    shard = cache / "teachers/second/frame_embedding/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    found = faults(cache)
    assert set(found) == {f"{TEACHER}/{MANIFEST}", shard.relative_to(cache).as_posix()}
    assert set(faults(cache, teacher="synthetic")) == {f"{TEACHER}/{MANIFEST}"}
    (cache / TEACHER / "frame_embedding/zarr.json").unlink()
    assert set(faults(cache, teacher="second")) == {shard.relative_to(cache).as_posix()}


def test_a_sample_reads_a_share_of_the_shards_and_always_sizes_indices_and_tables(cache):
    whole, none = verify(cache), verify(cache, sample=0.0)
    assert none.faults == []
    assert none.read < whole.read == whole.objects
    assert none.read < verify(cache, sample=0.5).read < whole.read
    shard = cache / TEACHER / "frame_embedding/c/0/0/0/0"
    content = shard.read_bytes()
    for damaged in (content[:-1], content[:-9] + b"?" + content[-8:]):
        shard.write_bytes(damaged)
        assert list(faults(cache, sample=0.0)) == [shard.relative_to(cache).as_posix()]
    shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert faults(cache, sample=0.0) == {}
    assert "row 0 is wrong" in faults(cache)[shard.relative_to(cache).as_posix()]


def test_a_dump_under_way_is_noted_and_no_fault(cache):
    with CacheWriter(cache, SAMPLES) as writer:
        writer.plan(synthetic_plan(SAMPLES, "third"))
        writer.commit(Commit("third/x/0", ()))
        report = verify(cache)
    assert report.faults == []
    assert any("teachers/third is unfinished" in note for note in report.notes)
    assert any("ledger.jsonl" in note for note in report.notes)


def test_what_can_not_be_checked_at_all_says_why(cache, tmp_path):
    with pytest.raises(MissingFileError, match="make dump-teacher"):
        verify(tmp_path / "nothing.zarr")
    with pytest.raises(UnknownNameError, match="second"):
        verify(cache, "secnd")
    (cache / MANIFEST).unlink()
    with pytest.raises(DamagedCacheError, match=r"manifest.json of c.zarr is missing"):
        verify(cache)
    with CacheWriter(tmp_path / "d.zarr", SAMPLES):
        pass
    with pytest.raises(IncompleteCacheError, match="resumes"):
        verify(tmp_path / "d.zarr")


def test_the_command_names_every_fault_and_its_exit_status_tells(cache, capsys, tmp_path):
    parser = build_parser()
    assert run_cli(parser, ["verify", str(cache)]) == 0
    assert capsys.readouterr().out.startswith("sound: ")
    (cache / "extra").write_bytes(b"x")
    (cache / "texts/kind/c/0").unlink()
    assert run_cli(parser, ["verify", str(cache), "--sample", "0"]) == 1
    printed = capsys.readouterr().out
    assert "extra: is in no manifest" in printed
    assert "texts/kind/c/0: is missing" in printed
    assert "2 faults; " in printed
    assert run_cli(parser, ["verify", str(tmp_path / "nothing.zarr")]) == 2
    with pytest.raises(SystemExit):
        run_cli(parser, ["verify", str(cache), "--sample", "1.5"])
