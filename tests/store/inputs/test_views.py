"""Which frames and which pixels of them a view asks for: resolved the same everywhere, and replayable."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from store.errors import InputError
from store.inputs.augment import NEUTRAL_COLOUR, Augmentation, Draws, recolour
from store.inputs.cuts import Cutter, replay
from store.inputs.frames import decode_view
from store.inputs.view import DENSE, ONE_PER_SECOND, RANDOM_SEGMENTS, UNIFORM, View
from tests.store.inputs.clips import board, frames_in_order, number_of, write_clip

STRONG = Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
VIEWS = {
    "plain": View("plain", 8, 224),
    "clip4clip": View("clip4clip", 12, 224, ONE_PER_SECOND),
    "segments": View("segments", 8, 224, RANDOM_SEGMENTS, renditions=3, seed=7),
    "recognition": View("recognition", 8, 224, UNIFORM, renditions=12, clips=4, crops=3),
    "dense": View("dense", 8, 224, DENSE, renditions=4, clips=4, stride=2),
    "augmented": View("augmented", 8, 224, renditions=2, seed=1, augmentation=STRONG),
}


def evenly(count):
    return np.arange(count) / 25


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_survives_json(view):
    assert View.from_dict(json.loads(json.dumps(view.to_dict()))) == view


def test_views_of_older_caches_keep_their_dict():
    told = {"name": "old", "frames": 4, "size": 64, "sampling": "uniform", "renditions": 1}
    assert View("old", 4, 64).to_dict() == told
    assert View.from_dict(told) == View("old", 4, 64)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sampling": "sometimes"}, "sampling is one of"),
        ({"frames": 0}, "start at 1"),
        ({"renditions": 3}, "exactly clips x crops = 1"),
        ({"renditions": 4, "clips": 4, "sampling": ONE_PER_SECOND}, "several clips are for"),
        ({"renditions": 6, "crops": 4}, "exactly clips x crops = 4"),
        ({"renditions": 5, "crops": 3, "sampling": RANDOM_SEGMENTS}, "a multiple of clips x crops = 3"),
        ({"renditions": 3, "crops": 3, "augmentation": STRONG}, "draws its own crops"),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        View(**{"name": "odd", "frames": 4, "size": 64} | fields)


@pytest.mark.parametrize("fields", [{"min_area": 0}, {"stretch": 0.5}, {"flip": 2}, {"hue": 0.6}])
def test_an_augmentation_that_makes_no_sense_is_refused(fields):
    with pytest.raises(InputError, match="expected"):
        Augmentation(**fields)


@given(
    count=st.integers(1, 400),
    frames=st.integers(1, 20),
    sampling=st.sampled_from([UNIFORM, RANDOM_SEGMENTS, DENSE, ONE_PER_SECOND]),
    clips=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_indices_rise_within_the_video(count, frames, sampling, clips, seed):
    clips = clips if sampling in (UNIFORM, DENSE) else 1
    view = View("any", frames, 8, sampling, renditions=clips, clips=clips, stride=3, seed=seed)
    for rendition in range(clips):
        indices = view.frame_indices(evenly(count), rendition, "video")
        assert 1 <= len(indices) <= frames
        assert (np.diff(indices) >= 0).all()
        assert 0 <= indices[0] <= indices[-1] < count


@given(count=st.integers(1, 400), frames=st.integers(1, 20), video_id=st.text(min_size=1))
def test_a_random_segment_gives_one_of_its_frames(count, frames, video_id):
    view = View("tsn", frames, 8, RANDOM_SEGMENTS)
    indices = view.frame_indices(evenly(count), 0, video_id)
    for segment, index in enumerate(indices):
        assert segment * count // frames <= index <= (segment + 1) * count / frames


def test_what_is_drawn_depends_on_seed_video_and_rendition_alone():
    view = View("tsn", 8, 8, RANDOM_SEGMENTS, renditions=2)
    first = view.frame_indices(evenly(300), 0, "a").tolist()
    assert first == [28, 52, 86, 145, 157, 204, 261, 266]
    assert first == view.frame_indices(evenly(300), 0, "a").tolist()
    others = [view.frame_indices(evenly(300), 1, "a"), view.frame_indices(evenly(300), 0, "b")]
    others.append(View("tsn", 8, 8, RANDOM_SEGMENTS, seed=1).frame_indices(evenly(300), 0, "a"))
    assert all(other.tolist() != first for other in others)


def test_a_view_that_draws_needs_to_know_the_video():
    with pytest.raises(InputError, match="video's id is needed"):
        VIEWS["segments"].frame_indices(evenly(30))


def test_clips_interleave_and_crops_share_their_frames():
    view = View("recognition", 4, 8, renditions=6, clips=2, crops=3)
    indices = [view.frame_indices(evenly(80), rendition).tolist() for rendition in range(6)]
    assert indices[0] == indices[1] == indices[2] == [5, 25, 45, 65]
    assert indices[3] == indices[4] == indices[5] == [15, 35, 55, 75]


def test_dense_clips_are_spread_over_the_video():
    view = View("dense", 4, 8, DENSE, renditions=2, clips=2, stride=2)
    assert view.frame_indices(evenly(47), 0).tolist() == [10, 12, 14, 16]
    assert view.frame_indices(evenly(47), 1).tolist() == [30, 32, 34, 36]
    assert view.frame_indices(evenly(5), 0).tolist() == [0, 2, 4, 4]


def test_draws_are_the_same_on_every_machine():
    draws = Draws(0, "video7", "box", 1)
    numbers = [draws.uniform() for _ in range(3)]
    assert numbers == pytest.approx([0.909374900, 0.566731308, 0.580384034], abs=1e-8)
    spread = Draws(1)
    assert np.histogram([spread.uniform() for _ in range(4000)], 8, (0, 1))[0] == pytest.approx(500, abs=90)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "wide.mp4", size=(64, 160))


@pytest.mark.parametrize("name", ["segments", "recognition", "dense", "augmented"])
def test_stored_parameters_replay_the_pixels_of_every_rendition(clip, name):
    """From frames that another decoder made, as a student has them."""
    view = View(**vars(VIEWS[name]) | {"size": 48})
    decoded = decode_view(clip, view, "video7")
    _, frames = frames_in_order(clip)
    assert decoded.frames.shape[0] == view.renditions
    for rendition in range(view.renditions):
        indices = np.round(decoded.frame_time_s[rendition] * 25).astype(int)
        for square, index in zip(decoded.frames[rendition], indices, strict=True):
            box, flip, colour = (
                decoded.crop_box[rendition],
                decoded.flip[rendition],
                decoded.colour[rendition],
            )
            assert np.array_equal(replay(frames[index], view, box, flip, colour), square)


def test_three_crops_show_both_ends(clip):
    view = View("crops", 2, 64, renditions=3, crops=3)
    boxes = decode_view(clip, view).crop_box
    assert boxes.tolist() == [[0, 0, 64, 64], [48, 0, 112, 64], [96, 0, 160, 64]]
    assert number_of(decode_view(clip, view).frames[1, 0]) == 10


def test_an_augmentation_is_what_torchvision_makes_of_the_same_parameters():
    functional = pytest.importorskip("torchvision.transforms.functional")
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    view = VIEWS["augmented"]
    for video_id in "abcdef":
        look = Cutter(view, video_id).look(0, 90, 120, Fraction(1))
        left, top, right, bottom = look.crop_box.astype(int).tolist()
        image = functional.resized_crop(
            Image.fromarray(frame), top, left, bottom - top, right - left, [224, 224],
            functional.InterpolationMode.BICUBIC,
        )  # fmt: skip
        image = functional.hflip(image) if look.flip else image
        brightness, contrast, saturation, hue = look.colour.tolist()
        image = functional.adjust_brightness(image, brightness)
        image = functional.adjust_contrast(image, contrast)
        image = functional.adjust_hue(functional.adjust_saturation(image, saturation), hue)
        seen = replay(frame, view, look.crop_box, look.flip, look.colour)
        assert np.array_equal(seen, np.asarray(image))


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    aspect=st.fractions(Fraction(1, 10), 10),
    video_id=st.text(min_size=1),
)
def test_a_drawn_box_lies_within_the_frame(height, width, aspect, video_id):
    look = Cutter(VIEWS["augmented"], video_id).look(1, height, width, aspect)
    left, top, right, bottom = look.crop_box.tolist()
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert [left, top, right, bottom] == [int(value) for value in look.crop_box]


def test_a_neutral_colour_changes_nothing():
    image = Image.fromarray(board(9, 32, 32))
    assert np.array_equal(recolour(image, NEUTRAL_COLOUR), image)


def test_both_flips_and_many_boxes_are_drawn():
    looks = [Cutter(VIEWS["augmented"], str(video)).look(0, 90, 120, Fraction(1)) for video in range(60)]
    assert 15 < sum(look.flip for look in looks) < 45
    assert len({tuple(look.crop_box) for look in looks}) > 50
