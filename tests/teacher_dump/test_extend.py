"""What is added to a finished cache costs what is new, and leaves every byte that was there as it was."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from torch._subclasses.fake_tensor import FakeTensor

from store.diff import diff
from store.errors import IdentityError, InputError
from store.info import describe, gather
from store.inputs.samples import Split, Text, Video
from store.kept_pixels import KeptPixels
from store.parts import FIRST
from store.reader import open_cache
from store.remove import remove_teacher
from store.verify import verify
from store.writer import CacheWriter
from student_train.run_folder import pinned_digests, still_read
from teacher_dump.dump import dump
from teacher_dump.estimates.estimating import estimates
from teacher_dump.opened_dump import OpenedDump
from teacher_dump.plan import StorageOptions
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers.base import TeacherOptions
from teacher_dump.workers.executors import SerialExecutor
from teacher_dump.workers.jobs import load_teacher
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples, write_clip

SETTINGS = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=3, decoders=1)
SIGNALS = ("frame_embedding", "text_embedding", "frame_relevance", "video_text_logits")
WRITTEN_AGAIN = {"manifest.json", "reports/dump.json"}


class CountingTeacher(ColourTeacher):
    """Knows what it was asked."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.videos = self.texts = self.pairs = 0

    def encode_videos(self, frames_BMYXC, frame_valid_BM):
        self.videos += len(frames_BMYXC)
        return super().encode_videos(frames_BMYXC, frame_valid_BM)

    def encode_texts(self, texts):
        self.texts += len(texts)
        return super().encode_texts(texts)

    def score_pairs(self, videos, texts):
        scores = super().score_pairs(videos, texts)
        # A plan looks what a block takes without computing it.
        self.pairs += 0 if isinstance(scores, FakeTensor) else scores.numel()
        return scores


@pytest.fixture(scope="module")
def first(clips, tmp_path_factory):
    """Eight videos and their captions."""
    root = tmp_path_factory.mktemp("first") / "c.zarr"
    return dump(root, colour_samples(clips), ColourTeacher(), SETTINGS, {})


@pytest.fixture(scope="module")
def extended(first, clips, tmp_path_factory):
    """The same, and what `grown` has behind it."""
    root = shutil.copytree(first.path, tmp_path_factory.mktemp("extended") / "c.zarr")
    return dump(root, grown(clips), ColourTeacher(), SETTINGS, {}, extend=True)


@pytest.fixture
def root(first, tmp_path):
    return shutil.copytree(first.path, tmp_path / "c.zarr")


def grown(folder, broken=False):
    """Two videos more, the last of which may be none; a caption for each, and one more of video 0."""
    samples = colour_samples(folder)
    videos = list(samples.videos)
    for row, name in ((8, "blue"), (9, "red")):
        path = folder / f"{row}_{name}{'_broken' if broken and row == 9 else ''}.mp4"
        if not path.exists():
            path.write_bytes(b"no video") if "broken" in path.name else write_clip(path, ["grey", name])
        videos.append(Video(path.name, path))
    texts = (*samples.texts, Text("late blue", 8), Text("late red", 9), Text("again red", 0))
    train = Split(np.append(np.arange(6), [8, 9]), np.append(np.arange(6), [8, 9, 10]))
    splits = {**samples.splits, "train": train, "late": Split(np.array([8, 9]), np.array([8, 9]))}
    return replace(samples, videos=tuple(videos), texts=texts, splits=splits)


def files_of(root):
    """Bytes and time of change of every file."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def contents(root):
    return {path: content for path, (content, _) in files_of(root).items() if path != "reports/dump.json"}


def untouched(before, root):
    after = files_of(root)
    return all(after[path] == before[path] for path in before.keys() - WRITTEN_AGAIN)


def test_only_appended_rows_are_decoded_and_scored_and_no_old_file_is_written(root, clips):
    before, teacher = files_of(root), CountingTeacher()
    cache = dump(root, grown(clips), teacher, SETTINGS, {}, extend=True)
    assert (teacher.videos, teacher.texts) == (2, 3)
    assert teacher.pairs == 2 * 11 + 8 * 3  # new videos with all texts, new texts with the old videos
    assert untouched(before, root)
    assert cache.video_ids[8:] == ["8_blue.mp4", "9_red.mp4"]
    assert cache.texts[8:] == ["late blue", "late red", "again red"]
    assert cache.split("train").text.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10]
    assert verify(root).faults == []
    assert verify(root).notes == []


def test_an_extended_cache_holds_what_a_dump_of_all_rows_holds(extended, clips, tmp_path):
    at_once = dump(tmp_path / "c.zarr", grown(clips), ColourTeacher(), SETTINGS, {})
    one, other = extended.teacher("colour", resident_bytes=0), at_once.teacher("colour")
    rows = {"V": np.array([9, 0, 8, 3, 9]), "T": np.array([10, 2, 8])}
    for signal in SIGNALS:
        some = rows[one.signals[signal].row_axis]
        np.testing.assert_array_equal(one.read(signal, some), other.read(signal, some), err_msg=signal)
        buffers = one.buffers([signal], 5)
        batch = one.batch([signal], rows["V"], rows["T"], buffers)
        np.testing.assert_array_equal(batch[signal], other.read(signal, some), err_msg=signal)
    videos, texts = np.arange(10), np.arange(11)
    for mine, theirs in zip(one.pair_scores(videos, texts), other.pair_scores(videos, texts), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(one.frame_time_s, other.frame_time_s)
    resident = extended.teacher("colour")
    np.testing.assert_array_equal(
        resident.read("video_text_logits", videos), other.read("video_text_logits", videos)
    )
    told = diff(extended.path, at_once.path)
    assert set(told["identity"]) == {"segments"}
    assert not {"rows", "splits"} & told.keys()


def test_diff_tells_what_an_extension_brought(first, extended):
    told = diff(first.path, extended.path)
    assert told["rows"]["videos"] == {"only_b": {"count": 2, "first": ["8_blue.mp4", "9_red.mp4"]}}
    assert told["splits"]["late"] == "only in B"
    changed = {*told["tables"], *told["views"]["uniform_4x16"]["contents"]}
    assert all(path.startswith("segment-1/") for path in changed)
    signals = told["teachers"]["colour"]["signals"]
    assert {signal: set(signals[signal]) for signal in signals} == {
        signal: {"objects_that_differ"} for signal in SIGNALS
    }


def test_rows_are_appended_only_if_the_user_says_so(root, clips):
    before = files_of(root)
    with pytest.raises(IdentityError, match="goes on with 2 videos, 3 texts; to append them say --extend"):
        dump(root, grown(clips), ColourTeacher(), SETTINGS, {})
    assert files_of(root) == before


def swap(rows, a, b):
    rows = list(rows)
    rows[a], rows[b] = rows[b], rows[a]
    return tuple(rows)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: replace(s, texts=(*s.texts[:3], Text("a new red", 3), *s.texts[4:])),
         r"text row 3: stored \['a clip in grey', 3, 'caption'\], wanted \['a new red', 3, 'caption'\]"),
        (lambda s: replace(s, videos=swap(s.videos, 1, 2)), r"video row 1: stored \['1_green.mp4'"),
        (lambda s: replace(s, texts=s.texts[:7], splits={"train": Split(np.arange(6), np.arange(6))}),
         r"text row 7: stored .*, the dataset ends before it"),
        (lambda s: replace(s, splits={**s.splits, "train": Split(np.arange(1, 6), np.arange(1, 6))}),
         r"split 'train': stored with video row 0, wanted without it"),
        (lambda s: replace(s, splits={"train": s.splits["train"]}), "split 'test': stored, the dataset"),
        (lambda s: replace(s, protocol="multi-caption"), "protocol"),
    ],
)  # fmt: skip
def test_changed_removed_and_reordered_rows_are_refused_by_name(root, clips, change, named):
    before = files_of(root)
    with pytest.raises(IdentityError, match=rf"{named}.*dump into another CACHE"):
        dump(root, change(grown(clips)), ColourTeacher(), SETTINGS, {}, extend=True)
    assert files_of(root) == before


@pytest.mark.slow
def test_an_extension_that_stopped_anywhere_leaves_the_old_cache_and_resumes_to_the_same_bytes(
    first, extended, clips, tmp_path, monkeypatch
):
    for stop_after in range(0, 8, 2):
        root = shutil.copytree(first.path, tmp_path / f"{stop_after}.zarr")
        stop_dump_after(monkeypatch, stop_after, root, grown(clips))
        assert open_cache(root).digest == first.digest
        assert verify(root).faults == []
        assert any("unfinished" in note for note in verify(root).notes)
        assert "segment-1/teachers/colour" in describe(root)
        dump(root, grown(clips), ColourTeacher(), SETTINGS, {}, extend=True)
        assert contents(root) == contents(extended.path)


def stop_dump_after(monkeypatch, commits, root, samples):
    commit, counted = CacheWriter.commit, []

    def stop_early(self, done):
        counted.append(done.task)
        if len(counted) > commits:
            raise KeyboardInterrupt
        commit(self, done)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", stop_early)
        with pytest.raises(KeyboardInterrupt):
            dump(root, samples, ColourTeacher(), SETTINGS, {}, extend=True)


@pytest.mark.slow
def test_an_extension_that_was_begun_is_finished_with_its_own_rows_or_given_up(root, clips, monkeypatch):
    stop_dump_after(monkeypatch, 2, root, grown(clips))
    other = grown(clips)
    other = replace(other, texts=(*other.texts[:-1], Text("another red", 0)))
    with pytest.raises(
        IdentityError, match=r"extension of c.zarr that was begun.*delete its folder segment-1"
    ):
        dump(root, other, ColourTeacher(), SETTINGS, {}, extend=True)
    shutil.rmtree(root / "segment-1")
    cache = dump(root, other, ColourTeacher(), SETTINGS, {}, extend=True)
    assert cache.texts[-1] == "another red"
    assert verify(root).faults == []


def test_a_pin_tells_a_cache_that_was_extended_from_another_one(first, extended, clips, tmp_path):
    assert extended.digest != first.digest
    assert extended.extends(first.digest)
    assert not extended.extends(extended.digest)
    assert not first.extends(extended.digest)
    assert gather(extended.path)["earlier_digests"] == [first.digest]
    earlier = open_cache(extended.path, first.digest)
    assert len(earlier.video_ids) == 8
    assert earlier.split("train").text.tolist() == list(range(6))
    np.testing.assert_array_equal(
        earlier.teacher("colour").read("video_text_logits", np.arange(8)),
        first.teacher("colour").read("video_text_logits", np.arange(8)),
    )
    before, now = (pinned_digests(cache, ["colour"]) for cache in (first, extended))
    assert before.items() < now.items()
    with pytest.raises(IdentityError, match="never was " + "0" * 64):
        open_cache(extended.path, "0" * 64)


def test_a_teacher_that_was_not_extended_says_so_masks_the_rows_and_catches_up(first, clips, tmp_path):
    root = shutil.copytree(first.path, tmp_path / "c.zarr")
    dump(root, colour_samples(clips), ColourTeacher("bright", gain=2.0), SETTINGS, {})
    before = files_of(root)
    cache = dump(root, grown(clips), ColourTeacher(), SETTINGS, {}, extend=True)
    bright = cache.teacher("bright")
    assert np.flatnonzero(~bright.video_usable).tolist() == [8, 9]
    assert np.flatnonzero(~bright.text_usable).tolist() == [8, 9, 10]
    with pytest.raises(InputError, match=r"no row 9: it was appended after teacher 'bright' was dumped"):
        bright.read("frame_embedding", np.array([0, 9]))
    _, known = bright.pair_scores(np.array([0, 9]), np.array([0, 10]))
    assert known.tolist() == [[True, False], [False, False]]
    assert "lacks    2 videos, 3 texts that were appended" in describe(root)
    assert verify(root).faults == []
    teacher = CountingTeacher("bright", gain=2.0)
    cache = dump(root, grown(clips), teacher, SETTINGS, {})
    assert (teacher.videos, teacher.texts) == (2, 3)
    assert untouched(before, root)
    assert cache.teacher("bright").pair_scores(np.arange(10), np.arange(11))[1].all()


@pytest.mark.slow
def test_it_does_not_matter_whether_a_teacher_came_before_or_after_the_rows(extended, clips, tmp_path):
    late = shutil.copytree(extended.path, tmp_path / "late.zarr")
    dump(late, grown(clips), ColourTeacher("bright", gain=2.0), SETTINGS, {})
    early = tmp_path / "early.zarr"
    for teacher in (ColourTeacher(), ColourTeacher("bright", gain=2.0)):
        dump(early, colour_samples(clips), teacher, SETTINGS, {})
    for teacher in (ColourTeacher("bright", gain=2.0), ColourTeacher()):
        dump(early, grown(clips), teacher, SETTINGS, {}, extend=True)
    assert open_cache(early).digest != open_cache(late).digest  # the view tells who brought it
    ours, theirs = contents(early), contents(late)
    assert ours.keys() == theirs.keys()
    brought = {
        "manifest.json",
        "segment-1/views/uniform_4x16/manifest.json",
        "segment-1/views/uniform_4x16/zarr.json",
    }
    assert {path for path in ours if ours[path] != theirs[path]} == brought


def test_a_video_that_is_appended_and_broken_is_a_listed_failure(root, clips):
    cache = dump(root, grown(clips, broken=True), ColourTeacher(), SETTINGS, {}, extend=True)
    teacher = cache.teacher("colour")
    assert list(teacher.failures) == [9]
    _, known = teacher.pair_scores(np.arange(10), np.arange(11))
    assert np.flatnonzero(~known.all(1)).tolist() == [9]
    assert verify(root).faults == []


def test_captions_alone_need_no_video(root, clips, monkeypatch):
    samples = colour_samples(clips)
    more = replace(samples, texts=(*samples.texts, Text("again green", 1)))
    teacher = CountingTeacher()
    cache = dump(root, more, teacher, SETTINGS, {}, extend=True).teacher("colour")
    assert (teacher.videos, teacher.texts, teacher.pairs) == (0, 1, 8)
    scores, known = cache.pair_scores(np.arange(8), np.array([1, 8]))
    assert known.all()
    np.testing.assert_array_equal(scores[:, 0], scores[:, 1])
    assert verify(root).faults == []


def test_rows_are_appended_more_than_once(extended, clips, tmp_path):
    root = shutil.copytree(extended.path, tmp_path / "c.zarr")
    before, samples = files_of(root), grown(clips)
    more = replace(samples, texts=(*samples.texts, Text("later blue", 8)))
    teacher = CountingTeacher()
    cache = dump(root, more, teacher, SETTINGS, {}, extend=True)
    assert (teacher.videos, teacher.texts, teacher.pairs) == (0, 1, 10)
    assert untouched(before, root)
    assert [segment["text"] for segment in cache.dataset["segments"]] == [[0, 8], [8, 11], [11, 12]]
    relevance = cache.teacher("colour").read("frame_relevance", np.array([8, 11]))
    np.testing.assert_array_equal(relevance[0], relevance[1])
    assert verify(root).faults == []
    assert len(gather(root)["earlier_digests"]) == 2


INT8_LAYER = replace(SETTINGS, storage=StorageOptions({"vit_layers": "int8"}))


def test_a_signal_is_added_without_the_texts_and_without_writing_the_others(first, root, clips):
    before, samples = files_of(root), colour_samples(clips)
    teacher = CountingTeacher(layer=True)
    with pytest.raises(IdentityError, match=r"stores no signal 'vit_layers/0'; to add it.*--extend"):
        dump(root, samples, teacher, INT8_LAYER, {})
    cache = dump(root, samples, teacher, INT8_LAYER, {}, extend=True)
    assert (teacher.texts, teacher.pairs) == (0, 0)
    assert teacher.videos == 8 + 8  # calibration, then the layer
    assert untouched(before, root)
    assert list(cache.teacher("colour").signals) == [*SIGNALS, "vit_layers/0"]
    assert verify(root).faults == []
    pins = [pinned_digests(open_cache(path), ["colour"]) for path in (first.path, root)]
    assert still_read(*pins) == pins[0]
    before = files_of(root)
    dump(root, samples, CountingTeacher(layer=True), INT8_LAYER, {})
    dump(root, samples, CountingTeacher(), SETTINGS, {})
    assert files_of(root) == before


def test_rows_that_are_appended_use_the_numbers_that_were_fitted_to_the_first_ones(root, clips):
    dump(root, colour_samples(clips), ColourTeacher(layer=True), INT8_LAYER, {}, extend=True)
    with pytest.raises(InputError, match=r"'vit_layers/0' of teacher 'colour' is not emitted now"):
        dump(root, grown(clips), ColourTeacher(), SETTINGS, {}, extend=True)
    cache = dump(root, grown(clips), CountingTeacher(layer=True), INT8_LAYER, {}, extend=True)
    layer = cache.teacher("colour").read_decoded("vit_layers/0", np.array([0, 8]))
    np.testing.assert_allclose(layer[0, 0, 2:], layer[1, 0, :2], atol=0.05)  # grey, then and now
    assert not list((root / "segment-1").rglob("channel_mean"))
    assert verify(root).faults == []


@pytest.mark.slow
def test_a_signal_made_from_stored_features_needs_no_forward(clips, tmp_path):
    bare = CountingTeacher()
    bare.signals = tuple(spec for spec in bare.signals if spec.name != "video_text_logits")
    samples = colour_samples(clips)
    dump(tmp_path / "c.zarr", samples, bare, SETTINGS, {})
    teacher = CountingTeacher()
    cache = dump(tmp_path / "c.zarr", samples, teacher, SETTINGS, {}, extend=True)
    assert (teacher.videos, teacher.texts, teacher.pairs) == (0, 0, 64)
    assert cache.teacher("colour").pair_scores(np.arange(8), np.arange(8))[1].all()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raw", "jpeg:95"])
def test_kept_frames_are_kept_of_appended_videos_too(clips, tmp_path, how):
    settings = replace(SETTINGS, storage=StorageOptions(pixels=KeptPixels.parse(how)))
    dump(tmp_path / "c.zarr", colour_samples(clips), ColourTeacher(), settings, {})
    cache = dump(tmp_path / "c.zarr", grown(clips), ColourTeacher(), settings, {}, extend=True)
    pixels = cache.teacher("colour").pixels.read(np.array([8, 2, 9]))
    np.testing.assert_allclose(pixels[0, 0, 2:].mean((0, 1, 2)), pixels[1, 0, :2].mean((0, 1, 2)), atol=4)
    assert cache.teacher("colour").kept_pixels["frames"] == 40
    assert verify(tmp_path / "c.zarr").faults == []


# zarr-python warns of files beside the hierarchy, which the specification allows.
@pytest.mark.filterwarnings("ignore:Object at")
def test_other_libraries_read_the_segments_one_behind_the_other(extended):
    group, teacher = zarr.open_group(extended.path, mode="r"), extended.teacher("colour")
    for signal in ("frame_embedding", "text_embedding", "frame_relevance"):
        pieces = [np.asarray(group[f"{folder}teachers/colour/{signal}"][:]) for folder in ("", "segment-1/")]
        rows = np.arange(sum(map(len, pieces)))
        np.testing.assert_array_equal(np.concatenate(pieces), teacher.read(signal, rows))
    logits = teacher.read("video_text_logits", np.arange(10))
    later = group["segment-1/teachers/colour/video_text_logits"]
    np.testing.assert_array_equal(later["own_videos"][:], logits[8:])
    np.testing.assert_array_equal(later["earlier_videos"][:], logits[:8, 8:])
    np.testing.assert_array_equal(group["segment-1/texts/video"][:], [8, 9, 0])


@pytest.mark.slow
def test_removing_a_teacher_takes_its_segments_and_added_signals_along(extended, clips, tmp_path):
    root = shutil.copytree(extended.path, tmp_path / "c.zarr")
    dump(root, grown(clips), ColourTeacher("bright", gain=2.0), SETTINGS, {})
    removal = remove_teacher(root, "bright")
    assert removal.groups == ("segment-1/teachers/bright", "teachers/bright")
    assert open_cache(root).digest == extended.digest
    assert verify(root).faults == []
    remove_teacher(root, "colour")
    assert open_cache(root).teacher_names == []
    assert verify(root).faults == []
    assert len(open_cache(root).video_ids) == 10


def parts_of(root, samples, settings=SETTINGS, teacher=None):
    """What an extension would do and cost, without a batch."""
    opened = OpenedDump(samples, teacher or ColourTeacher(), settings, SerialExecutor(), {})
    return estimates(root, opened, workers=None, extend=True)


def test_an_extension_is_estimated_by_its_new_rows_alone(first, extended, clips):
    stored = {path: len(content) for path, content in contents(extended.path).items()}
    before = contents(first.path)
    (found,) = parts_of(first.path, grown(clips))
    assert {phase: found.planned.rows(phase) for phase in found.planned.phases} == {
        "videos": 2,
        "texts": 3,
        "relevance": 3,
        "pairs": 2,
        "earlier_pairs": 8,
    }
    brought = sum(size for path, size in stored.items() if path.startswith("segment-1/"))
    assert found.bytes_left == pytest.approx(brought, rel=0.1)
    assert "2 videos and 3 texts appended into c.zarr" in "\n".join(found.lines())
    assert contents(first.path) == before
    (done,) = parts_of(extended.path, grown(clips))
    assert (done.bytes_left, done.planned.plan.part) == (0, FIRST)
    new = parts_of(extended.path, grown(clips), teacher=ColourTeacher("bright", gain=2.0))
    assert [part.planned.counts.videos for part in new] == [8, 2]


@pytest.mark.slow
def test_the_seconds_of_an_extension_are_measured_on_its_own_rows(first, clips):
    opened = OpenedDump(grown(clips), ColourTeacher(), SETTINGS, SerialExecutor(), {})
    (found,) = estimates(first.path, opened, extend=True)
    assert set(found.seconds) == {"videos", "texts", "relevance", "pairs", "earlier_pairs"}
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert (found.measured.videos, found.measured.texts) == (2, 3)


def test_a_layer_is_added_to_a_vision_transformers_dump_though_another_set_was_chosen_first(clips, tmp_path):
    samples, layer_files = colour_samples(clips), "teachers/demo/vit_layers/0/"
    cache = dump(
        tmp_path / "c.zarr", samples, load_teacher("demo", TeacherOptions(layers=(0,))), SETTINGS, {}
    )
    before = {path: content for path, content in files_of(cache.path).items() if path.startswith(layer_files)}
    assert before
    more = load_teacher("demo", TeacherOptions(layers=(0, 1)))
    cache = dump(cache.path, samples, more, SETTINGS, {}, extend=True)
    assert {"vit_layers/0", "vit_layers/1"} <= set(cache.teacher("demo").signals)
    assert untouched(before, cache.path)
    assert verify(cache.path).faults == []
