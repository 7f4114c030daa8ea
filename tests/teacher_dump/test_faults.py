"""Faults in what a plain cache has not: int8, JPEG, batch plans, appended rows, signals that were added."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest

from store.durable import canonical_json, read_json, record_file, write_file
from store.errors import CacheError, DamagedCacheError
from store.kept_pixels import BLOCK_BYTES, KeptPixels
from store.manifest import MANIFEST, Manifest
from store.parts import group_of
from store.reader import open_cache
from store.sharded_rows import ShardedRows
from store.shards import RowsArray, ShardFile
from store.verify import verify
from teacher_dump.dump import dump
from teacher_dump.pairs.layouts import BatchOptions, PairOptions
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from tests.store.test_faults import CHANGES, found_at
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples
from tests.teacher_dump.test_extend import grown

FAULTS = 1000
RICH = DumpSettings(
    batch_videos=2,
    batch_texts=3,
    threads=1,
    shard_rows=3,
    decoders=1,
    storage=StorageOptions(
        {"vit_layers": "int8", "text_embedding": "int8"}, width=4, pixels=KeptPixels("jpeg", 90)
    ),
    pairs=PairOptions(plan=BatchOptions(batch=2, epochs=1)),
)
SPANS, BLOCKS = "views/uniform_4x16/pixel_jpeg_span", "views/uniform_4x16/pixel_jpeg"


@pytest.fixture(scope="module")
def rich_cache(tmp_path_factory):
    """Two segments, one with a video that is none; dense scores that were added to a planned teacher."""
    folder = tmp_path_factory.mktemp("clips")
    root = tmp_path_factory.mktemp("caches") / "c.zarr"
    dump(root, colour_samples(folder), ColourTeacher(layer=True), RICH, {})
    more = grown(folder, broken=True)
    dump(root, more, ColourTeacher(layer=True), RICH, {}, extend=True)
    dump(root, more, ColourTeacher(layer=True), replace(RICH, pairs=PairOptions("dense")), {}, extend=True)
    return root


@pytest.fixture
def cache(rich_cache, tmp_path):
    return shutil.copytree(rich_cache, tmp_path / "c.zarr")


def seal(root):
    """Write all manifests anew over what lies there."""
    found = Manifest.read(root)
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    records = [record_file(root, root / path) for path in paths if not path.endswith(MANIFEST)]
    groups = {}
    for group in found.groups:
        own = Manifest.of(record for record in records if group_of(record.path) == group)
        own.write(root / group)
        groups[group] = own.digest
    tables = [r for r in records if group_of(r.path) == "" and not r.path.startswith("reports/")]
    replace(Manifest.of(tables, groups), added=found.added).write(root)


@pytest.mark.slow
def test_a_cache_of_everything_is_sound_and_each_of_a_thousand_single_faults_is_found_and_named(cache):
    held = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    for wanted in (
        "teachers/colour/vit_layers/0/token_scale/",
        "teachers/colour/vit_layers/0/projection_basis/",
        "teachers/colour/planned_scores/",
        "teachers/colour.added-1/video_text_logits/",
        "segment-1/teachers/colour/frame_relevance/",
        "segment-1/teachers/colour.added-1/video_text_logits/earlier_videos/",
        "segment-1/views/uniform_4x16/pixel_jpeg/",
        "plans/",
    ):
        assert any(path.startswith(wanted) for path in held), wanted
    draw = random.Random(2027)
    files = sorted(path for path in cache.rglob("*") if path.is_file() and "reports" not in path.parts)
    assert found_at(cache) == []
    missed = []
    for number in range(FAULTS):
        file, change = files[number % len(files)], draw.choice(CHANGES)
        content, name = file.read_bytes(), file.relative_to(cache).as_posix()
        change(file, draw, files)
        if not any(name in found for found in found_at(cache)):
            missed.append((change.__name__, name))
        file.write_bytes(content)
    assert missed == []
    assert found_at(cache) == []


def test_digests_of_segments_and_splits_are_held_to_the_tables(cache):
    for name, key in (("zarr.json", "splits_sha256"), ("segment-1/zarr.json", "splits_sha256")):
        before = (cache / name).read_bytes()
        document = read_json(cache / name)
        document["attributes"]["dataset"][key] = "0" * 64
        write_file(cache / name, canonical_json(document))
        seal(cache)
        told = [(fault.path, fault.problem) for fault in verify(cache).faults]
        assert told == [(name, "states a splits_sha256 that is not that of the splits")]
        write_file(cache / name, before)
    document = read_json(cache / "segment-1/zarr.json")
    document["attributes"]["dataset"]["segments"][1]["sha256"] = "0" * 64
    write_file(cache / "segment-1/zarr.json", canonical_json(document))
    seal(cache)
    (fault,) = verify(cache).faults
    assert fault.path == "segment-1/zarr.json"
    assert fault.problem.startswith(f"states sha256 {'0' * 64} for the rows of segment 1, they have ")


@pytest.mark.parametrize(
    ("change", "path", "problem"),
    [
        (lambda span: span + 1, SPANS, "row 0: its spans do not follow one another"),
        (lambda span: span[:, ::-1], SPANS, "row 0: its spans do not follow one another"),
        (lambda span: np.append(span[:3], [[span[3, 0], BLOCK_BYTES]], axis=0), SPANS, "row 1: its spans"),
    ],
)  # fmt: skip
def test_spans_of_jpegs_are_held_to_one_another_and_to_the_blocks(cache, change, path, problem):
    rows = ShardedRows(cache, SPANS)
    spans = rows.read(np.arange(3))
    spans[0, 0] = change(spans[0, 0])
    rewrite(cache, rows.array, spans)
    seal(cache)
    (fault,) = verify(cache).faults
    assert fault.path == path
    assert fault.problem.startswith(problem)


def test_a_block_of_jpegs_that_no_span_names_is_found(cache):
    rows = ShardedRows(cache, SPANS)
    spans = rows.read(np.arange(3))
    spans[2, 0, 3, 1] += 2 * BLOCK_BYTES
    rewrite(cache, rows.array, spans)
    seal(cache)
    (fault,) = verify(cache).faults
    assert fault.path == BLOCKS
    assert fault.problem.startswith("shard 0 has 1 blocks for ")


def rewrite(root, array: RowsArray, spans):
    with ShardFile(root, SPANS, array, 0) as shard:
        for row, span in enumerate(spans):
            shard.append(row, span)
        shard.finish()


def edit(root, path, change):
    document = read_json(root / path)
    change(document["attributes"])
    write_file(root / path, canonical_json(document))
    seal(root)


@pytest.mark.parametrize(
    ("path", "change", "named"),
    [
        ("segment-1/zarr.json", lambda a: a["dataset"].update(name="other"), "does not go on where"),
        ("segment-1/zarr.json", lambda a: a["dataset"]["segments"].pop(), "segments"),
        ("segment-1/zarr.json", lambda a: a["dataset"]["splits"].pop("test"), "does not go on"),
        ("segment-1/zarr.json", lambda a: a.clear(), "dataset"),
        ("segment-1/teachers/colour/zarr.json", lambda a: a["identity"].update(gain=2.0),
         "is of another teacher than teachers/colour: it differs in identity.gain"),
        ("segment-1/teachers/colour/zarr.json", lambda a: a["signals"][0]["sizes"].update(D=4), "go on"),
        ("teachers/colour.added-1/zarr.json", lambda a: a.update(name="bright"), "not of a complete"),
        ("segment-1/views/uniform_4x16/zarr.json", lambda a: a["view"].update(size=8), "view.size"),
    ],
)  # fmt: skip
def test_what_a_stranger_says_of_appended_rows_is_held_to_the_first_ones(cache, path, change, named):
    edit(cache, path, change)
    with pytest.raises(CacheError, match=named):
        open_cache(cache).teacher("colour")
    assert verify(cache).faults


@pytest.mark.parametrize(
    "added",
    ["x", [], {"steps": "ab"}, {"steps": [["views/none"]], "sha256": "0" * 64}, {"steps": [[["x"]]]}, 3],
)
def test_steps_that_are_none_are_refused(cache, added):
    document = read_json(cache / MANIFEST)
    write_file(cache / MANIFEST, canonical_json({**document, "added": added}))
    with pytest.raises(DamagedCacheError, match="changed after it was written"):
        open_cache(cache)
