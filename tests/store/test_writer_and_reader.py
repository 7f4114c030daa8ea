"""What was written is what is read; what is unfinished, foreign or damaged is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr

from store import publication
from store.errors import (
    DamagedCacheError,
    IdentityError,
    IncompleteCacheError,
    InputError,
    LockedCacheError,
    MissingFileError,
    UnknownNameError,
)
from store.info import describe
from store.inputs.samples import Text
from store.ledger import Commit
from store.lock import WriterLock
from store.pair_scores import FACTORED
from store.reader import TeacherReader, open_cache
from store.writer import CacheWriter
from tests.synthetic_cache import (
    SIGNALS,
    shard_commits,
    synthetic_plan,
    synthetic_samples,
    synthetic_values,
    write_synthetic_cache,
)


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("resident_bytes", [0, 1 << 20])
def test_every_signal_reads_back_as_it_was_encoded(tmp_path, resident_bytes):
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr"))
    teacher = TeacherReader(cache, "synthetic", resident_bytes)
    values = synthetic_values(synthetic_samples())
    videos, texts = np.array([7, 0, 11]), np.array([3, 3])
    batch = teacher.batch([spec.name for spec in SIGNALS], videos, texts)
    for spec in SIGNALS:
        rows = videos if spec.row_axis == "V" else texts
        np.testing.assert_array_equal(batch[spec.name], values[spec.name][rows].astype(np.float16))


def test_tables_come_back_in_order(tmp_path):
    samples = synthetic_samples(8, captions=2)
    samples = replace(samples, texts=(*samples.texts[:-1], Text("a ñandú — 鸵鸟", 7)))
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr", samples))
    assert cache.video_ids == [video.id for video in samples.videos]
    assert cache.texts == [text.text for text in samples.texts]
    assert cache.text_video.tolist() == [text.video for text in samples.texts]
    assert cache.splits == ["test", "train", "val"]
    assert cache.split("val").text.tolist() == samples.splits["val"].text.tolist()
    assert cache.dataset["segments"] == [{"video": [0, 8], "text": [0, 16], "sha256": samples.rows_digest()}]
    with pytest.raises(UnknownNameError, match="did you mean 'val'"):
        cache.split("vaal")


def test_plain_zarr_reads_the_same_numbers(tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr", failed=frozenset({2}))
    teacher = open_cache(root).teacher("synthetic")
    group = zarr.open_group(root, mode="r")
    logits = group["teachers/synthetic/video_text_logits"]
    assert logits.metadata.dimension_names == ("V", "T")
    np.testing.assert_array_equal(logits[3:], teacher.read("video_text_logits", np.arange(3, 12)))
    assert np.isnan(logits[2]).all()
    offset, utf8 = group["videos/id_offset"][:], group["videos/id_utf8"][:]
    assert bytes(utf8[offset[4] : offset[5]]).decode() == "clip_004"


def test_a_failed_video_has_no_numbers_and_its_scores_are_unknown(tmp_path):
    teacher = open_cache(write_synthetic_cache(tmp_path / "c.zarr", failed=frozenset({2}))).teacher(
        "synthetic"
    )
    assert teacher.failures == {2: "broken file"}
    scores, known = teacher.pair_scores(np.array([1, 2]), np.array([0, 5, 9]))
    assert known.tolist() == [[True] * 3, [False] * 3]
    assert np.isfinite(scores[0]).all()
    assert np.isnan(scores[1]).all()
    for signal in ("frame_embedding", "frame_relevance"):
        with pytest.raises(InputError, match="no row 2"):
            teacher.read(signal, np.array([1, 2]))


def test_factored_scores_are_the_cosine_of_pooled_frames(tmp_path):
    signals = tuple(spec for spec in SIGNALS if spec.name in ("frame_embedding", "text_embedding"))
    teacher = open_cache(write_synthetic_cache(tmp_path / "c.zarr", signals=signals)).teacher("synthetic")
    assert teacher.pair_layout.layout == FACTORED
    scores, known = teacher.pair_scores(np.arange(12), np.arange(12))
    frames = teacher.read("frame_embedding", np.arange(12))[:, 0].astype(np.float64)
    texts = teacher.read("text_embedding", np.arange(12)).astype(np.float64)
    for v in range(12):
        pooled = np.mean([frame / np.linalg.norm(frame) for frame in frames[v]], axis=0)
        for t in range(12):
            cosine = pooled @ texts[t] / np.linalg.norm(pooled) / np.linalg.norm(texts[t])
            assert scores[v, t] == pytest.approx(20 * cosine, abs=1e-4)
    assert known.all()


def test_a_signal_that_is_not_stored_is_named_with_a_way_out(tmp_path):
    teacher = open_cache(write_synthetic_cache(tmp_path / "c.zarr")).teacher("synthetic")
    with pytest.raises(UnknownNameError, match=r"vit_layers/7.*--layers 7"):
        teacher.batch(["frame_embedding", "vit_layers/7"], np.arange(2), np.arange(2))


def test_a_resumed_dump_equals_an_undisturbed_one_and_rewrites_no_finished_shard(tmp_path):
    whole = tree(write_synthetic_cache(tmp_path / "whole.zarr"))
    samples = synthetic_samples()
    plan = synthetic_plan(samples)
    for stop_after in range(0, 25, 3):
        root = tmp_path / f"cut_{stop_after}.zarr"
        with CacheWriter(root, samples) as writer:
            writer.plan(plan)
            commits = shard_commits(root, samples, plan)
            for _, commit in zip(range(stop_after), commits, strict=False):
                writer.commit(commit)
        with pytest.raises(IncompleteCacheError, match="run the same dump command again"):
            open_cache(root)
        assert tree(write_synthetic_cache(root)) == whole


def test_a_torn_last_line_of_the_ledger_does_not_count(tmp_path):
    samples = synthetic_samples()
    root = tmp_path / "c.zarr"
    with CacheWriter(root, samples) as writer:
        writer.commit(Commit("a/b/0", ()))
    with open(root / "ledger.jsonl", "ab") as file:
        file.write(b'{"task":"a/b/1","obje')
    with CacheWriter(root, samples) as writer:
        assert "a/b/0" in writer.ledger
        assert "a/b/1" not in writer.ledger
    assert (root / "ledger.jsonl").read_bytes().endswith(b"}\n")


def test_looking_at_a_dump_under_way_changes_nothing(tmp_path):
    root = tmp_path / "c.zarr"
    with CacheWriter(root, synthetic_samples()) as writer:
        writer.plan(synthetic_plan(synthetic_samples()))
        with open(root / "ledger.jsonl", "ab") as file:
            file.write(b'{"task":"half a li')
        before = tree(root)
        assert "dumping" in describe(root)
        assert tree(root) == before


def test_a_teacher_that_lacks_a_row_is_not_complete(tmp_path):
    samples = synthetic_samples()
    plan = synthetic_plan(samples)
    commits = list(shard_commits(tmp_path / "c.zarr", samples, plan, frozenset({3})))
    facts = commits[-1]
    healed = replace(facts, videos=tuple(replace(video, failure="") for video in facts.videos))
    with CacheWriter(tmp_path / "d.zarr", samples) as writer:
        writer.plan(plan)
        for commit in shard_commits(tmp_path / "d.zarr", samples, plan, frozenset({3})):
            writer.commit(healed if commit.task == facts.task else commit)
        with pytest.raises(IncompleteCacheError, match=r"'frame_embedding': row 3 is missing"):
            writer.complete(plan, [commit.task for commit in commits])


def test_what_a_kill_left_aside_does_not_block_a_resume(tmp_path):
    root = tmp_path / "c.zarr"
    root.mkdir()
    (root / "writer.lock.partial").write_bytes(b"{")
    (root / "zarr.json.partial").write_bytes(b"{")
    write_synthetic_cache(root)
    assert open_cache(root).teacher_names == ["synthetic"]


def test_completion_needs_every_task_and_every_row(tmp_path):
    samples = synthetic_samples()
    plan = synthetic_plan(samples)
    with CacheWriter(tmp_path / "c.zarr", samples) as writer:
        writer.plan(plan)
        with pytest.raises(IncompleteCacheError, match="lacks task"):
            writer.complete(plan, ["synthetic/facts"])
        writer.commit(Commit("synthetic/facts", ()))
        with pytest.raises(IncompleteCacheError, match="video row 0 was neither"):
            writer.complete(plan, ["synthetic/facts"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (
            lambda plan: replace(plan, identity={**plan.identity, "weights_sha256": "1" * 64}),
            "weights_sha256",
        ),
        (lambda plan: replace(plan, view=replace(plan.view, size=9)), "view.size"),
        (lambda plan: replace(plan, signals=plan.signals[:-1]), "pair_scores"),
        (lambda plan: replace(plan, execution={**plan.execution, "threads": 9}), "execution.threads"),
    ],
)
def test_a_resume_under_another_identity_names_the_field_and_both_values(tmp_path, change, field):
    samples = synthetic_samples()
    plan = synthetic_plan(samples)
    with CacheWriter(tmp_path / "c.zarr", samples) as writer:
        writer.plan(plan)
        writer.plan(replace(plan, provenance={"numpy": "3"}))
        with pytest.raises(IdentityError, match=rf"{field}.*stored.*wanted.*another CACHE"):
            writer.plan(change(plan))


def test_another_dataset_is_refused(tmp_path):
    write_synthetic_cache(tmp_path / "c.zarr")
    with pytest.raises(IdentityError, match=r"text row 0: stored \['caption 0 of clip 0', 0, 'caption'\]"):
        CacheWriter(tmp_path / "c.zarr", replace(synthetic_samples(), texts=synthetic_samples().texts[::-1]))
    with pytest.raises(IdentityError, match="name"):
        CacheWriter(tmp_path / "c.zarr", synthetic_samples(name="other"))


def test_a_second_teacher_leaves_the_first_ones_bytes_alone(tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr")
    before, digest = tree(root), open_cache(root).digest
    write_synthetic_cache(root, teacher="second")
    after = tree(root)
    changed = {path for path in before if after[path] != before[path]}
    assert changed == {"manifest.json"}
    cache = open_cache(root)
    assert cache.teacher_names == ["second", "synthetic"]
    assert cache.digest != digest


def test_a_half_dumped_second_teacher_does_not_hide_the_first(tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr")
    with CacheWriter(root, synthetic_samples()) as writer:
        writer.plan(synthetic_plan(synthetic_samples(), "second"))
    assert open_cache(root).teacher_names == ["synthetic"]


def test_two_writers_at_once_are_refused_and_a_dead_ones_lock_is_taken_over(tmp_path):
    first = WriterLock(tmp_path, beat_s=0.2)
    with pytest.raises(LockedCacheError, match="another process is writing"):
        WriterLock(tmp_path, beat_s=0.2)
    first._stop.set()  # as if it had been killed: the file stays, the heartbeat ends
    first._thread.join()
    second = WriterLock(tmp_path, beat_s=0.2)
    with pytest.raises(LockedCacheError, match="took over"):
        first.check()
    second.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "manifest.json",
        "zarr.json",
        "videos/id_utf8/c/0",
        "teachers/synthetic/manifest.json",
        "teachers/synthetic/zarr.json",
        "teachers/synthetic/frame_relevance/zarr.json",
        "views/uniform_4x8/failed/c/0",
    ],
)
def test_damage_is_found_at_the_latest_when_the_teacher_is_opened(tmp_path, path):
    root = write_synthetic_cache(tmp_path / "c.zarr")
    content = (root / path).read_bytes()
    (root / path).write_bytes(content[:-6] + bytes([content[-6] ^ 1]) + content[-5:])
    with pytest.raises((DamagedCacheError, IdentityError)):
        open_cache(root).teacher("synthetic").video_usable.all() and open_cache(root).video_ids


def test_no_cache_or_a_foreign_folder_gets_one_clear_line(tmp_path):
    with pytest.raises(MissingFileError, match="make dump-teacher"):
        open_cache(tmp_path / "nothing.zarr")
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holiday.jpg.*no cache"):
        CacheWriter(tmp_path, synthetic_samples())
    root = write_synthetic_cache(tmp_path / "c.zarr")
    document = json.loads((root / "zarr.json").read_text())
    document["attributes"]["version"] = 2
    (root / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(IdentityError, match="version: stored 2, wanted 1"):
        open_cache(root)


def test_strings_hold_no_path_of_this_machine(tmp_path):
    root = write_synthetic_cache(tmp_path / "c.zarr")
    for path, content in tree(root).items():
        assert str(tmp_path).encode() not in content, path


def test_a_plan_that_was_killed_amid_its_files_leaves_nothing_to_another_plan(tmp_path, monkeypatch):
    samples = synthetic_samples()
    whole = tree(write_synthetic_cache(tmp_path / "whole.zarr"))
    for stop_after in range(1, 13, 3):
        root = tmp_path / f"{stop_after}.zarr"
        written = []

        def stop_early(*arguments, write=publication.write_file, written=written, stop_after=stop_after):
            written.append(arguments)
            if len(written) > stop_after:
                raise KeyboardInterrupt
            write(*arguments)

        with CacheWriter(root, samples) as writer, monkeypatch.context() as patch:
            patch.setattr(publication, "write_file", stop_early)
            with pytest.raises(KeyboardInterrupt):
                writer.plan(synthetic_plan(samples, shard_rows=2))
        assert tree(write_synthetic_cache(root)) == whole
