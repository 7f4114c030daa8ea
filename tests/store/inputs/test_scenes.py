"""The demo's little world: its scenes and captions, and what a rendered clip shows when."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from store.errors import InputError
from store.inputs import demo_clips
from store.inputs.datasets import demo, table
from store.inputs.demo_clips import TABLE, encode, render, render_clip
from store.inputs.frames import decode_view
from store.inputs.probe import RANDOM_ACCESS
from store.inputs.scene_drawing import draw_shot
from store.inputs.scenes import (
    CLIP_FRAMES,
    FRAMES_PER_SECOND,
    SCENE_COUNT,
    SHARES,
    WORDS,
    Scene,
    Shot,
    caption,
    described_scenes,
    distractor_scenes,
    shots,
)
from store.inputs.view import View

CLIPS = 40
DEMO_TRAIN, FIT_TRAIN = demo.SPLIT_SIZES["train"], 4000
FEW = {"test": 3, "val": 1}
OTHERS = distractor_scenes("test")


def generator(*seed):
    return np.random.Generator(np.random.PCG64(seed))


def described(planned):
    (moment,) = (shot for shot in planned if shot.described)
    return moment


def shown_by(split):
    """Numbers of all scenes that a clip of the split may show, described or not."""
    count = len(SHARES[split].described)
    return [*described_scenes(split, count).tolist(), *distractor_scenes(split).tolist()]


def test_every_scene_is_shown_by_one_split_alone_and_either_described_or_not():
    numbers = [number for split in SHARES for number in shown_by(split)]
    assert sorted(numbers) == list(range(SCENE_COUNT))


@pytest.mark.parametrize("count", [DEMO_TRAIN, FIT_TRAIN])
def test_training_never_shows_a_scene_of_val_or_test(count):
    shown = set()
    for number in described_scenes("train", count):
        for shot in shots(Scene.number(number), distractor_scenes("train"), generator(0, number)):
            shown.add(shot.scene)
    assert len(shown) > count
    for split in ("val", "test"):
        assert shown.isdisjoint(Scene.number(number) for number in shown_by(split))


def test_the_demo_fits_into_its_splits_and_more_scenes_than_there_are_is_refused():
    assert all(len(described_scenes(split, count)) == count for split, count in demo.SPLIT_SIZES.items())
    with pytest.raises(ValueError, match="'val' has 200 scenes, 201"):
        described_scenes("val", 201)


def test_every_number_is_another_scene():
    scenes = {Scene.number(number) for number in range(SCENE_COUNT)}
    assert len(scenes) == SCENE_COUNT


def test_nearly_every_caption_of_the_test_split_is_its_own():
    captions = {
        caption(Scene.number(int(number)), generator(0, number)) for number in described_scenes("test", 500)
    }
    assert len(captions) >= 0.99 * 500


def test_one_scene_is_put_in_many_wordings_that_all_name_every_attribute():
    scene = Scene("ring", "yellow", "small", "left", "grass")
    captions = {caption(scene, generator(seed)) for seed in range(200)}
    assert len(captions) > 50
    for text in captions:
        for attribute, value in vars(scene).items():
            assert any(word in text for word in WORDS[attribute][value]), (attribute, text)


def test_the_described_moment_lies_in_the_clip_and_is_shorter_than_it():
    lengths = set()
    for seed in range(500):
        scene = Scene.number(seed)
        moment = described(shots(scene, OTHERS, generator(seed)))
        assert moment.scene == scene
        assert 0 <= moment.start < moment.stop <= CLIP_FRAMES
        lengths.add(moment.stop - moment.start)
    assert lengths == {4, 5, 6}


def test_the_moment_may_be_at_the_beginning_the_end_or_anywhere_between():
    starts = {described(shots(Scene.number(0), OTHERS, generator(seed))).start for seed in range(500)}
    assert starts == set(range(CLIP_FRAMES - 4 + 1))


def test_every_frame_belongs_to_exactly_one_shot():
    for seed in range(500):
        planned = shots(Scene.number(seed), OTHERS, generator(seed))
        assert planned[0].start == 0
        assert planned[-1].stop == CLIP_FRAMES
        assert all(shot.start < shot.stop for shot in planned)
        assert all(one.stop == following.start for one, following in itertools.pairwise(planned))


@pytest.mark.parametrize("number", range(0, SCENE_COUNT, 1021))
def test_a_drawing_is_a_function_of_the_seed(number):
    shot = Shot(0, 5, Scene.number(number), described=True)
    drawn = draw_shot(shot, generator(1))
    assert drawn.shape == (5, 64, 64, 3)
    assert drawn.dtype == np.uint8
    assert drawn.tobytes() == draw_shot(shot, generator(1)).tobytes()
    assert drawn.tobytes() != draw_shot(shot, generator(2)).tobytes()


def edge_strength(frames_MYXC):
    """The 99th percentile [M] of the gradient's magnitude, in grey levels a pixel: grounds have texture
    all over, only an object in focus has edges that strong."""
    grey_MYX = frames_MYXC.astype(np.float32).mean(-1)
    down, right = np.gradient(grey_MYX, axis=(1, 2))
    return np.quantile(np.hypot(down, right), 0.99, axis=(1, 2))


def test_the_same_shot_has_steeper_edges_in_focus_than_out_of_it():
    in_focus, out_of_focus = (
        np.array(
            [
                edge_strength(draw_shot(Shot(0, 1, Scene.number(int(number)), focus), generator(5)))[0]
                for number in described_scenes("test", CLIPS)
            ]
        )
        for focus in (True, False)
    )
    assert in_focus.mean() > 1.2 * out_of_focus.mean()
    assert (in_focus >= out_of_focus).mean() > 0.9


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Rows of the first clips of the test split, and their frames at 8 places of the clip."""
    out = tmp_path_factory.mktemp("demo")
    (out / "clips").mkdir()
    rows = [
        render_clip((out, "test", place, int(number), 0))
        for place, number in enumerate(described_scenes("test", CLIPS))
    ]
    return rows, [decode_view(out / row[0], View("uniform_8x64", 8, 64)) for row in rows]


def in_moment(row, decoded):
    *_, start_s, end_s = row
    return (decoded.frame_time_s[0] >= start_s) & (decoded.frame_time_s[0] < end_s)


def test_clips_are_decoded_by_index_to_eight_frames_at_their_times(clips):
    for decoded in clips[1]:
        assert decoded.route == RANDOM_ACCESS
        assert decoded.frame_valid.all()
        assert decoded.skipped_packets == 0
        assert decoded.duration_s == pytest.approx(CLIP_FRAMES / FRAMES_PER_SECOND)
        assert decoded.frame_time_s[0] == pytest.approx(np.arange(1, CLIP_FRAMES, 2) / FRAMES_PER_SECOND)


def test_the_times_of_frames_tell_which_of_them_are_described(clips):
    numbers = described_scenes("test", CLIPS)
    for number, row, decoded in zip(numbers, *clips, strict=True):
        rng = generator(0, number)
        scene = Scene.number(int(number))
        assert row[1] == caption(scene, rng)
        moment = described(shots(scene, OTHERS, rng))
        expected = [moment.start <= frame < moment.stop for frame in range(1, CLIP_FRAMES, 2)]
        assert in_moment(row, decoded).tolist() == expected
        assert 2 <= sum(expected) <= 3


def test_a_decoded_frame_is_the_drawn_one_of_its_time(clips):
    numbers = described_scenes("test", CLIPS)
    for number, decoded in list(zip(numbers, clips[1], strict=True))[:5]:
        rng = generator(0, number)
        scene = Scene.number(int(number))
        caption(scene, rng)
        drawn = np.concatenate([draw_shot(shot, rng) for shot in shots(scene, OTHERS, rng)])
        difference = decoded.frames[0].astype(float) - drawn[1::2]
        assert np.abs(difference).mean() < 10


def test_described_frames_are_sharper_than_the_others_on_average(clips):
    inside, outside = [], []
    for row, decoded in zip(*clips, strict=True):
        strength, shown = edge_strength(decoded.frames[0]), in_moment(row, decoded)
        inside.extend(strength[shown])
        outside.extend(strength[~shown])
    assert np.mean(inside) > 1.15 * np.mean(outside)


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path):
    files = []
    for folder, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / folder / "clips").mkdir(parents=True)
        row = render_clip((tmp_path / folder, "test", 0, 17, seed))
        files.append((tmp_path / folder / row[0]).read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_clip_that_is_there_is_not_drawn_again_and_its_row_is_the_same(tmp_path):
    (tmp_path / "clips").mkdir()
    task = (tmp_path, "test", 0, 17, 0)
    row = render_clip(task)
    (tmp_path / row[0]).write_bytes(b"kept")
    assert render_clip(task) == row
    assert (tmp_path / row[0]).read_bytes() == b"kept"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, render(out, FEW, workers=1)


def test_a_rendered_folder_loads_as_a_dataset(whole):
    out, seconds = whole
    samples = table.load(out / TABLE)
    assert seconds > 0
    assert {name: len(split.video) for name, split in samples.splits.items()} == FEW
    for video in samples.videos:
        start_s, end_s = video.moment_s
        assert 0 <= start_s < end_s <= CLIP_FRAMES / FRAMES_PER_SECOND


def test_rendering_a_second_time_renders_nothing(whole, monkeypatch):
    out, seconds = whole
    monkeypatch.setattr(demo_clips, "ProcessPoolExecutor", None)
    monkeypatch.setattr(demo_clips, "render_clip", None)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert render(out, FEW, workers=1) == seconds
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_clips_of_other_settings_are_refused(whole):
    out, _ = whole
    for splits, seed in (({**FEW, "test": 4}, 0), (FEW, 1)):
        with pytest.raises(InputError, match="other settings; remove it, or name another DATA"):
            render(out, splits, seed, workers=1)


def test_an_interrupted_rendering_keeps_what_is_there_and_makes_the_rest(whole, tmp_path):
    complete, _ = whole
    (tmp_path / "clips").mkdir()
    (tmp_path / demo_clips.SETTINGS).write_bytes((complete / demo_clips.SETTINGS).read_bytes())
    kept = tmp_path / "clips" / "test_00001.mp4"
    encode(kept, np.zeros((CLIP_FRAMES, 64, 64, 3), np.uint8))
    (tmp_path / "clips" / "test_00002.mp4.partial").write_bytes(b"half")
    left = kept.read_bytes()
    render(tmp_path, FEW, workers=1)
    assert kept.read_bytes() == left
    assert (tmp_path / TABLE).read_bytes() == (complete / TABLE).read_bytes()
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert names == {path.relative_to(complete) for path in complete.rglob("*")}
    for name in sorted(names):
        if name.suffix == ".mp4" and name.name != kept.name:
            assert (tmp_path / name).read_bytes() == (complete / name).read_bytes()
