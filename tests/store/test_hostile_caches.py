"""A cache from a stranger is only data: it opens, or it is refused in one line; nothing else ever happens.

The stranger can compute digests as well as we can, so every change here is sealed again: all manifests
fit, and what refuses the cache is the reader's judgement of what they vouch for.
"""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.__main__ import build_parser
from store.cli import run_cli
from store.diff import diff
from store.durable import canonical_json, json_digest, record_file
from store.errors import CacheError, DamagedCacheError
from store.info import describe
from store.inputs.samples import DatasetCard
from store.manifest import MANIFEST, Manifest
from store.reader import TeacherReader, open_cache
from store.remove import remove_teacher
from store.shards import CRC_BYTES, crc32c
from store.untrusted import JSON_DEPTH, JSON_VALUES, parse_json, printable
from store.verify import verify
from store.writer import CacheWriter
from tests.synthetic_cache import SIGNALS, synthetic_plan, synthetic_samples, write_synthetic_cache

pytestmark = pytest.mark.slow
SAMPLES = synthetic_samples(4)
MOST_BYTES = 100 << 20
SOME = SIGNALS[:1] + SIGNALS[2:4]
TEACHER, VIEW = "teachers/synthetic", "views/uniform_4x8"


@pytest.fixture(scope="module")
def sound_cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "c.zarr"
    return write_synthetic_cache(root, SAMPLES, failed=frozenset({1}), signals=SOME, shard_rows=3)


@pytest.fixture
def cache(sound_cache, tmp_path):
    return shutil.copytree(sound_cache, tmp_path / "c.zarr")


def seal(root: Path) -> None:
    """Write all manifests anew, so that they vouch for whatever lies there now."""
    groups = {}
    files = [path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST]
    for group in (VIEW, TEACHER):
        own = [record_file(root, path) for path in files if path.is_relative_to(root / group)]
        manifest = Manifest.of(own)
        (root / group / MANIFEST).write_bytes(canonical_json({**manifest._body(), "digest": manifest.digest}))
        groups[group] = manifest.digest
    tables = [path for path in files if not any(path.is_relative_to(root / group) for group in groups)]
    manifest = Manifest.of([record_file(root, path) for path in tables], groups)
    (root / MANIFEST).write_bytes(canonical_json({**manifest._body(), "digest": manifest.digest}))


def use_everything(root: Path) -> None:
    """All that anybody does with a cache that was sent to them."""
    describe(root)
    cache = open_cache(root)
    for name in cache.splits:
        cache.split(name)
    assert len(cache.texts) == len(cache.text_video)
    for name in cache.teacher_names:
        teacher = TeacherReader(cache, name)
        rows = np.flatnonzero(teacher.video_usable)[:2]
        teacher.batch(list(teacher.signals), rows, rows)
        teacher.pair_scores(rows, rows)
        assert len(teacher.frame_time_s) == len(teacher.frame_valid) == len(cache.video_ids)
        assert all(isinstance(reason, str) for reason in teacher.failures.values())


def outcome(root: Path, measured: bool = True) -> list[str]:
    """Use the cache in every way; the messages of those that refused. Any other exception is a failure.

    measured: also hold memory to its bound, which makes it four times slower.
    """
    messages = []
    for use in (use_everything, verify_all, lambda root: diff(root, root)):
        try:
            with memory_bounded() if measured else nullcontext():
                use(root)
        except CacheError as error:
            messages.append(str(error))
    return messages


@contextmanager
def memory_bounded() -> Iterator[None]:
    """Python and NumPy may ask for MOST_BYTES in the block; whoever asks for more fails the test."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MOST_BYTES, f"{peak:,} bytes"


def test_the_bound_on_memory_holds():
    with pytest.raises(AssertionError, match="bytes"), memory_bounded():
        np.empty(MOST_BYTES + 1, dtype=np.uint8)


def verify_all(root: Path) -> None:
    report = verify(root)
    if report.count:
        raise DamagedCacheError(f"{report.faults[0].path}: {report.faults[0].problem}")


def leaves(value: Any, where: tuple = ()) -> Iterator[tuple]:
    yield where
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*where, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, (*where, place))


def replaced(value: Any, where: tuple, new: Any) -> Any:
    if not where:
        return new
    copy = value.copy()
    copy[where[0]] = replaced(value[where[0]], where[1:], new)
    return copy


ODD_VALUES = st.one_of(
    st.sampled_from(
        [
            None, True, False, 0, 1, -1, 1.0, 4.0, 0.5, -1e300, 10**18, 2**62, 2**63 - 1, 2**31, 2**47, 7,
            "", "x", "..", "../../etc", "/etc/passwd", "a/b", "C:\\x", "nul\0l", "NaN", "float64", "object",
            "|O", "vlen-utf8", "\x1b[2J\x1b[31m", "\u202e", "x" * 5000, "vit_layers/1", "text_embedding",
            "c/0", [], {}, [[]], [None], [0], [10**18], [-1, -1], [10**9] * 40, {"": ""}, {"name": "gzip"},
            [{"name": "blosc"}], [{"name": "zstd", "configuration": {"level": 22}}], {"a": {"b": {"c": []}}},
        ]
    ),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)  # fmt: skip


def documents(root: Path) -> list[str]:
    """One zarr.json of each kind, and the manifests."""
    found = [path.relative_to(root).as_posix() for path in root.rglob("*.json")]
    return sorted(found)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_leaf_of_any_document_may_be_anything(sound_cache, cache, draw):
    """Sealed again, or as a bad disk leaves it: used without a fault or refused, within memory."""
    name = draw.draw(st.sampled_from(documents(sound_cache)))
    value = json.loads((sound_cache / name).read_bytes())
    where = draw.draw(st.sampled_from(sorted(leaves(value), key=repr)))
    new = draw.draw(ODD_VALUES)
    (cache / name).write_bytes(json.dumps(replaced(value, where, new)).encode())
    try:
        if draw.draw(st.booleans()) and not name.endswith(MANIFEST):
            seal(cache)
        outcome(cache, measured=draw.draw(st.integers(0, 3)) == 0)
    finally:
        for changed in documents(sound_cache):
            shutil.copyfile(sound_cache / changed, cache / changed)


def every_leaf_of(name: str, root: Path) -> list[tuple]:
    return list(leaves(json.loads((root / name).read_bytes())))


@pytest.mark.parametrize("new", [None, -1, 10**18, 1.5, True, "\x1b[2J", [], {}])
def test_every_leaf_of_the_documents_that_decide_shapes(cache, new):
    for name in (
        "zarr.json",
        f"{TEACHER}/zarr.json",
        f"{TEACHER}/frame_relevance/zarr.json",
        f"{VIEW}/zarr.json",
    ):
        content = (cache / name).read_bytes()
        value = json.loads(content)
        for where in leaves(value):
            (cache / name).write_bytes(canonical_json(replaced(value, where, new)))
            seal(cache)
            assert all(len(message) < 2000 for message in outcome(cache, measured=False))
        (cache / name).write_bytes(content)


RAW_DOCUMENTS = {
    "NaN": b'{"zarr_format":3,"node_type":"group","attributes":{"x":NaN}}',
    "infinity": b'{"zarr_format":3,"node_type":"group","attributes":{"x":-Infinity}}',
    "a number beyond float": b'{"zarr_format":3,"node_type":"group","attributes":{"x":1e999}}',
    "a number of 5,000 digits": b'{"x":1' + b"0" * 5000 + b"}",
    "a number beyond int64": b'{"x":9223372036854775808}',
    "a key twice": b'{"zarr_format":3,"node_type":"group","attributes":{},"attributes":{}}',
    "half a surrogate pair": b'{"x":"\\ud800"}',
    "UTF-16": '{"x":1}'.encode("utf-16"),
    "no JSON": b"\x80\x02}q\x00.",
    "nothing": b"",
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a little too deep": b"[" * (JSON_DEPTH + 1) + b"]" * (JSON_DEPTH + 1),
    "a million lists": b"[" + b"[]," * JSON_VALUES + b"[]]",
    "a million numbers": b"[" + b"1," * JSON_VALUES + b"1]",
    "gigantic": b'"' + b"x" * (65 << 20) + b'"',
}


@pytest.mark.parametrize("what", RAW_DOCUMENTS)
@pytest.mark.parametrize(
    "name", ["zarr.json", MANIFEST, f"{TEACHER}/zarr.json", "videos/id_offset/zarr.json"]
)
def test_json_that_no_cache_needs_is_refused_within_memory(cache, what, name):
    (cache / name).write_bytes(RAW_DOCUMENTS[what])
    if name != MANIFEST:
        seal(cache)
    messages = outcome(cache)
    assert len(messages) == 3
    assert all(len(message) < 1000 for message in messages)


@pytest.mark.parametrize("depth", [1, JSON_DEPTH - 1])
def test_ordinary_nesting_is_read(depth):
    value = parse_json(b"[" * depth + b'"x"' + b"]" * depth)
    for _ in range(depth):
        (value,) = value
    assert value == "x"


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("frame_embedding", {"shape": [10**18, 1, 4, 8]}),
        ("frame_embedding", {"shape": [-4, 1, 4, 8]}),
        ("frame_embedding", {"shape": [4.0, 1, 4, 8]}),
        ("frame_embedding", {"shape": [True, 1, 4, 8]}),
        ("frame_embedding", {"shape": ["4", 1, 4, 8]}),
        ("frame_embedding", {"shape": [4, 1, 4, 10**12]}),
        ("frame_embedding", {"shape": [4] * 60}),
        ("frame_embedding", {"shape": []}),
        ("frame_embedding", {"data_type": "object"}),
        ("frame_embedding", {"data_type": "string"}),
        ("frame_embedding", {"data_type": {"name": "raw", "configuration": {"length_bytes": 1 << 40}}}),
        ("frame_embedding", {"fill_value": "0x7c00"}),
        ("frame_embedding", {"codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}]}),
        ("frame_embedding", {"codecs": [{"name": "blosc"}]}),
        ("frame_embedding", {"codecs": [{"name": "gzip", "configuration": {"level": 9}}]}),
        ("frame_embedding", {"codecs": [{"name": "numcodecs.pickle"}]}),
        ("frame_embedding", {"codecs": [{"name": "os.system"}]}),
        ("frame_embedding", {"codecs": []}),
        ("frame_embedding", {"storage_transformers": [{"name": "x"}]}),
        ("frame_embedding", {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}}),
        ("frame_embedding", {"dimension_names": ["V", "R", "M", "../D"]}),
        ("frame_embedding", {"attributes": {"encoding_relative_l2": "0", "encoding_max_abs": 0.0}}),
    ],
)  # fmt: skip
def test_arrays_of_another_kind_are_refused_before_memory_is_asked_for(cache, array, change):
    file = cache / TEACHER / array / "zarr.json"
    file.write_bytes(canonical_json({**json.loads(file.read_bytes()), **change}))
    seal(cache)
    assert any(array in message for message in outcome(cache))


def test_absurd_codec_settings_inside_a_shard_are_refused(cache):
    file = cache / TEACHER / "frame_embedding/zarr.json"
    for key, value in (
        ("codecs", [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}]),
        ("chunk_shape", [10**15, 1, 4, 8]),
        ("index_location", "start"),
        ("index_codecs", [{"name": "zstd"}]),
    ):
        document = json.loads(file.read_bytes())
        document["codecs"][0]["configuration"][key] = value
        kept = file.read_bytes()
        file.write_bytes(canonical_json(document))
        seal(cache)
        assert any("frame_embedding" in message for message in outcome(cache)), key
        file.write_bytes(kept)


def change_dataset(root: Path, **fields: Any) -> None:
    document = json.loads((root / "zarr.json").read_bytes())
    document["attributes"]["dataset"] |= fields
    (root / "zarr.json").write_bytes(canonical_json(document))
    seal(root)


@pytest.mark.parametrize("name", ["../../outside", "/etc", "..", "a/../../b", "x\0y", "", "x" * 200])
def test_names_of_splits_lead_nowhere(cache, name):
    change_dataset(cache, splits={name: {"videos": 1, "texts": 1}})
    assert len(outcome(cache)) == 3


@pytest.mark.parametrize("count", [10**18, -1, 3, 5, 4.0, True, "4", None])
def test_counts_that_the_tables_do_not_have_are_refused(cache, count):
    for key in ("videos", "texts"):
        change_dataset(cache, **{"videos": 4, "texts": 4, key: count})
        assert len(outcome(cache)) == 3


@pytest.mark.parametrize("name", ["../../outside", "/etc", "..", "x\0y", "other", 7, None])
def test_names_of_teachers_views_and_signals_lead_nowhere(cache, name):
    file = cache / TEACHER / "zarr.json"
    content = file.read_bytes()
    for where in (("name",), ("view", "name"), ("signals", 0, "name")):
        value = json.loads(content)
        file.write_bytes(canonical_json(replaced(value, ("attributes", *where), name)))
        seal(cache)
        assert len(outcome(cache)) == 3


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "videos/../../outside", "videos//x", "a\\b", "C:x", "x\0"]
)
def test_objects_and_groups_of_a_manifest_lie_inside(cache, path, tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    found = Manifest.read(cache)
    body = found._body()
    records = [*body["objects"], {"path": path, "bytes": 6, "sha256": "0" * 64}]
    for changed in (
        {**body, "objects": sorted(records, key=lambda record: record["path"])},
        {**body, "groups": {**body["groups"], f"teachers/{path}": "0" * 64}},
        {**body, "groups": {**body["groups"], path: "0" * 64}},
    ):
        (cache / MANIFEST).write_bytes(canonical_json({**changed, "digest": json_digest(changed)}))
        messages = outcome(cache)
        assert len(messages) == 3
        assert not any("secret" in message for message in messages)


@pytest.mark.parametrize(
    "name",
    [
        "zarr.json",
        MANIFEST,
        "videos",
        "teachers",
        TEACHER,
        f"{TEACHER}/frame_embedding/c/0/0/0/0",
        "texts/video/c/0",
    ],
)
@pytest.mark.parametrize("target", ["outside", "loop", "nothing"])
def test_no_link_is_followed_whatever_it_stands_for(cache, tmp_path, name, target):
    """Even one that leads to a sound copy: the next pull, or the next dump, would write through it."""
    place, outside = cache / name, tmp_path / "outside"
    place.rename(outside)
    place.symlink_to({"outside": outside, "loop": place.parent, "nothing": tmp_path / "nothing"}[target])
    before = {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]}
    assert len(outcome(cache)) == 3
    for use in (lambda: CacheWriter(cache, SAMPLES), lambda: remove_teacher(cache, "synthetic")):
        with pytest.raises(CacheError):
            use()
    assert {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]} == before


@pytest.mark.parametrize(
    "name", ["writer.lock", "ledger.jsonl", "zarr.json.partial", "manifest.json.partial", "removed.partial"]
)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_writer_writes_through_no_link_and_waits_for_no_pipe(cache, tmp_path, name, kind):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    if kind == "link":
        (cache / name).symlink_to(outside)
    else:
        os.mkfifo(cache / name)
    for use in (
        lambda: CacheWriter(cache, SAMPLES),
        lambda: remove_teacher(cache, "synthetic"),
        lambda: open_cache(cache),
    ):
        with pytest.raises(DamagedCacheError, match=name):
            use()
    assert outside.read_bytes() == b"precious"


def test_an_index_can_point_nowhere_but_at_its_rows(cache):
    """Each entry is set to whatever a stranger may like, with a right crc32c and right digests."""
    shard = cache / TEACHER / "frame_embedding/c/0/0/0/0"
    sound = shard.read_bytes()
    entries = np.frombuffer(sound[-(3 * 16 + CRC_BYTES) : -CRC_BYTES], dtype="<u8")
    assert entries[2] == 2**64 - 1
    for place in range(6):
        for value in (68, 2**62, 2**64 - 10, 2**64 - 1):
            changed = entries.copy()
            changed[place] = value
            if (changed == entries).all():
                continue
            index = changed.tobytes()
            shard.write_bytes(sound[: -(3 * 16 + CRC_BYTES)] + index + crc32c(index))
            seal(cache)
            messages = outcome(cache, measured=place == 0)
            assert len(messages) >= 2, (place, value)
            assert any("frame_embedding" in message for message in messages)


@pytest.mark.parametrize(
    "column",
    [
        "texts/text_offset",
        *(pytest.param(c, marks=pytest.mark.slow) for c in ("videos/id_offset", f"{VIEW}/failure_offset")),
    ],
)
def test_offsets_of_strings_can_point_nowhere_else(cache, column):
    file = cache / column / "c/0"
    sound = np.frombuffer(file.read_bytes()[:-CRC_BYTES], dtype="<i8")
    for place in range(len(sound)):
        for value in (-1, 2**62, 2**63 - 1, -(2**63), 10**6):
            changed = sound.copy()
            changed[place] = value
            file.write_bytes(changed.tobytes() + crc32c(changed.tobytes()))
            seal(cache)
            assert len(outcome(cache, measured=place == 0)) >= 2, (place, value)


@pytest.mark.parametrize(
    ("column", "dtype"), [("texts/video", "<i8"), ("splits/train/video", "<i8"), ("splits/train/text", "<i8")]
)
def test_row_numbers_can_point_nowhere_else(cache, column, dtype):
    file = cache / column / "c/0"
    sound = np.frombuffer(file.read_bytes()[:-CRC_BYTES], dtype=dtype)
    for value in (-2, 4, 2**62, -(2**63)):
        changed = sound.copy()
        changed[0] = value
        file.write_bytes(changed.tobytes() + crc32c(changed.tobytes()))
        seal(cache)
        assert any(column in message for message in outcome(cache))


def test_groups_that_name_one_another_end(cache):
    """A manifest vouches for its own folder alone: no cycle, and no object of another group."""
    record = record_file(cache, cache / VIEW / MANIFEST)
    for group, stolen in ((TEACHER, record), (VIEW, record_file(cache, cache / TEACHER / "zarr.json"))):
        found = Manifest.read(cache, group)
        stealing = Manifest.of([*found.objects, stolen])
        naming = Manifest.of(found.objects, {VIEW: "0" * 64, TEACHER: "0" * 64})
        for manifest in (stealing, naming):
            (cache / group / MANIFEST).write_bytes(
                canonical_json({**manifest._body(), "digest": manifest.digest})
            )
            root = Manifest.read(cache)
            groups = {**root.groups, group: manifest.digest}
            changed = Manifest.of(root.objects, groups)
            (cache / MANIFEST).write_bytes(canonical_json({**changed._body(), "digest": changed.digest}))
            assert len(outcome(cache)) == 3
        seal(cache)


def test_no_string_moves_the_cursor(tmp_path, capsys):
    """Titles, licences and reasons are shown; escapes in them are spelled out."""
    evil = "\x1b[2J\x1b]0;owned\x07\u202e"
    samples = replace(SAMPLES, name=f"n{evil}", card=DatasetCard(f"t{evil}", f"l{evil}", f"s{evil}"))
    root = tmp_path / "c.zarr"
    plan = synthetic_plan(samples, signals=SIGNALS[2:3])
    with CacheWriter(root, samples) as writer:
        writer.plan(replace(plan, identity={**plan.identity, f"k{evil}": evil}))
    for command in (["info"], ["verify"], ["info", "--json"]):
        run_cli(build_parser(), [command[0], str(root), *command[1:]])
    write_synthetic_cache(tmp_path / "d.zarr", samples, signals=SIGNALS[2:3])
    run_cli(build_parser(), ["info", str(tmp_path / "d.zarr")])
    run_cli(build_parser(), ["diff", str(tmp_path / "d.zarr"), str(tmp_path / "d.zarr")])
    (tmp_path / "d.zarr" / f"x{evil}").write_bytes(b"")
    run_cli(build_parser(), ["verify", str(tmp_path / "d.zarr")])
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert "owned" in shown
    assert not set(evil) & {"\x1b", "\x07", "\u202e"} & set(shown)


def test_printable_spells_out_what_a_terminal_obeys():
    assert printable("a\x1b[31m\n\u202eb\udcff") == "a\\x1b[31m\\n\\u202eb\\udcff"
    assert printable("鸵鸟 ñ") == "鸵鸟 ñ"
    assert len(printable("x" * 10_000)) < 1100
