"""From video files to a cache: what is stored, what fails, what resumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from store.errors import IdentityError, InputError, NonFiniteError
from store.inputs.samples import Text
from store.reader import open_cache
from store.writer import CacheWriter
from teacher_dump.dump import dump
from teacher_dump.settings import DumpSettings
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import COLOURS, ColourTeacher, colour_samples, write_clip

SETTINGS = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=3, decoders=1)


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    return dump(
        tmp_path_factory.mktemp("caches") / "c.zarr", colour_samples(clips), ColourTeacher(), SETTINGS, {}
    )


def rows_of(cache):
    return np.arange(len(cache.video_ids)), np.arange(len(cache.texts))


def test_every_signal_holds_what_the_teacher_says(whole):
    teacher = whole.teacher("colour")
    videos, texts = rows_of(whole)
    colours = teacher.read("frame_embedding", videos)[:, 0].astype(np.float32) * 255
    for row, name in enumerate(["red", "green", "blue", "grey"] * 2):
        np.testing.assert_allclose(colours[row, :2], [COLOURS[name]] * 2, atol=6)
        np.testing.assert_allclose(colours[row, 2:], [COLOURS["grey"]] * 2, atol=6)
    scores, known = teacher.pair_scores(videos, texts)
    assert known.all()
    assert (scores[:3, :3].argmax(1) == np.arange(3)).all()
    relevance = teacher.read("frame_relevance", texts)[:, 0]
    assert (relevance[:3, :2].min(1) > relevance[:3, 2:].max(1)).all()


def test_the_view_holds_the_resolved_times_and_pictures(whole):
    teacher = whole.teacher("colour")
    np.testing.assert_allclose(teacher.frame_time_s[:, 0], [[1 / 8, 3 / 8, 5 / 8, 7 / 8]] * 8, atol=1e-3)
    assert teacher.frame_valid.all()
    assert whole.moment_s.tolist() == [[0.0, 0.5]] * 8


def test_scores_of_any_block_equal_the_same_entries_of_the_whole(whole):
    teacher = whole.teacher("colour")
    videos, texts = rows_of(whole)
    scores, _ = teacher.pair_scores(videos, texts)
    some_videos, some_texts = np.array([6, 1]), np.array([0, 7, 3])
    block, _ = teacher.pair_scores(some_videos, some_texts)
    np.testing.assert_array_equal(block, scores[some_videos][:, some_texts])


def test_a_broken_video_is_a_listed_failure_and_costs_only_itself(clips, whole, tmp_path):
    for row in range(8):
        source = next(clips.glob(f"{row}_*"))
        (tmp_path / source.name).write_bytes(source.read_bytes())
    cache = dump(tmp_path / "c.zarr", colour_samples(tmp_path, broken=(2, 5)), ColourTeacher(), SETTINGS, {})
    teacher = cache.teacher("colour")
    assert sorted(teacher.failures) == [2, 5]
    assert all(
        str(tmp_path) not in reason and len(reason.splitlines()) == 1 for reason in teacher.failures.values()
    )
    fine = np.array([0, 1, 3, 4, 6, 7])
    sound = whole.teacher("colour")
    for signal in ("frame_embedding", "video_text_logits", "frame_relevance"):
        np.testing.assert_array_equal(teacher.read(signal, fine), sound.read(signal, fine))
    _, known = teacher.pair_scores(np.arange(8), np.arange(8))
    assert np.flatnonzero(~known.all(1)).tolist() == [2, 5]


def test_a_dump_that_stopped_anywhere_resumes_to_the_same_bytes(clips, whole, tmp_path, monkeypatch):
    samples = colour_samples(clips)
    for stop_after in range(1, 12, 2):
        root = tmp_path / f"{stop_after}.zarr"
        commit = CacheWriter.commit
        counted = []

        def stop_early(self, done, commit=commit, counted=counted, stop_after=stop_after):
            counted.append(done.task)
            if len(counted) > stop_after:
                raise KeyboardInterrupt
            commit(self, done)

        with monkeypatch.context() as patch:
            patch.setattr(CacheWriter, "commit", stop_early)
            with pytest.raises(KeyboardInterrupt):
                dump(root, samples, ColourTeacher(), SETTINGS, {})
        cache = dump(root, samples, ColourTeacher(), SETTINGS, {})
        assert cache.digest == whole.digest
        stored, expected = tree(root), tree(whole.path)
        del stored["reports/dump.json"], expected["reports/dump.json"]
        assert stored == expected


def test_a_finished_dump_is_not_done_again(clips, whole, monkeypatch):
    monkeypatch.setattr(ColourTeacher, "encode_videos", lambda *_: pytest.fail("encoded again"))
    before = tree(whole.path)
    dump(whole.path, colour_samples(clips), ColourTeacher(), SETTINGS, {})
    assert tree(whole.path) == before


def test_a_second_teacher_may_share_the_view_but_must_see_the_same_frames(clips, tmp_path):
    samples = colour_samples(clips)
    dump(tmp_path / "c.zarr", samples, ColourTeacher(), SETTINGS, {})
    cache = dump(tmp_path / "c.zarr", samples, ColourTeacher("bright", gain=2.0), SETTINGS, {})
    twice = cache.teacher("bright").read("frame_embedding", np.arange(8)).astype(np.float32)
    np.testing.assert_allclose(
        twice, 2 * cache.teacher("colour").read("frame_embedding", np.arange(8)), atol=2e-3
    )
    changed = tmp_path / "3_grey.mp4"
    write_clip(changed, ["red", "blue"])
    videos = (*samples.videos[:3], replace(samples.videos[3], path=changed), *samples.videos[4:])
    with pytest.raises(IdentityError, match=r"video row 3: .* frames show other pictures"):
        dump(tmp_path / "c.zarr", replace(samples, videos=videos), ColourTeacher("third"), SETTINGS, {})
    assert open_cache(tmp_path / "c.zarr").teacher_names == ["bright", "colour"]


def test_a_video_that_fails_only_for_the_second_teacher_stops_it_and_loses_nothing(clips, tmp_path):
    for path in clips.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dump(tmp_path / "c.zarr", colour_samples(tmp_path), ColourTeacher(), SETTINGS, {})
    samples = colour_samples(tmp_path, broken=(2,))
    with pytest.raises(IdentityError, match="video row 2 decoded in the first dump and fails now"):
        dump(tmp_path / "c.zarr", samples, ColourTeacher("second"), SETTINGS, {})
    assert open_cache(tmp_path / "c.zarr").teacher_names == ["colour"]


@pytest.mark.parametrize(
    "setting",
    ["batch_videos", "batch_texts", "threads", "shard_rows", "decoders", "time_limit_s", "memory_limit_mb"],
)
@pytest.mark.parametrize("value", [0, -2, float("inf"), float("nan")])
def test_settings_that_mean_nothing_are_refused_before_anything_is_planned(setting, value):
    with pytest.raises(InputError, match=setting):
        replace(SETTINGS, **{setting: value})


def test_a_changed_teacher_is_refused_before_anything_is_written(clips, whole):
    before = tree(whole.path)
    with pytest.raises(IdentityError, match=r"identity.gain: stored 1.0, wanted 3.0"):
        dump(whole.path, colour_samples(clips), ColourTeacher(gain=3.0), SETTINGS, {})
    assert tree(whole.path) == before


def test_a_non_finite_teacher_stops_the_dump_and_names_the_row(clips, tmp_path, monkeypatch):
    def poison(self, videos, texts):
        return torch.full((len(videos["frame_valid"]), len(texts["text_embedding"])), float("nan"))

    monkeypatch.setattr(ColourTeacher, "score_pairs", poison)
    with pytest.raises(NonFiniteError, match=r"'video_text_logits', row 0: nan"):
        dump(tmp_path / "c.zarr", colour_samples(clips), ColourTeacher(), SETTINGS, {})
    monkeypatch.undo()
    dump(tmp_path / "c.zarr", colour_samples(clips), ColourTeacher(), SETTINGS, {})


def test_short_videos_leave_places_invalid_in_a_view_of_one_frame_a_second(clips, tmp_path):
    teacher = ColourTeacher(frames=3, sampling="one_per_second")
    cache = dump(tmp_path / "c.zarr", colour_samples(clips), teacher, SETTINGS, {})
    assert cache.teacher("colour").frame_valid[:, 0].tolist() == [[True, False, False]] * 8
    assert np.isnan(cache.teacher("colour").frame_time_s[:, 0, 1:]).all()


def test_class_names_have_no_relevance_but_are_scored(clips, tmp_path):
    samples = colour_samples(clips)
    samples = replace(samples, texts=(*samples.texts, Text("the class red", -1, "class")))
    teacher = dump(tmp_path / "c.zarr", samples, ColourTeacher(), SETTINGS, {}).teacher("colour")
    scores, known = teacher.pair_scores(np.arange(4), np.array([8]))
    assert known.all()
    assert scores[:, 0].argmax() == 0


def test_what_phases_cost_is_reported_outside_the_digest(whole):
    report = (whole.reports_dir / "dump.json").read_text()
    assert '"videos":' in report
    assert not any("reports" in record.path for record in whole.manifest.objects)
