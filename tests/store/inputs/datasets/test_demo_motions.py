"""The demo's moments, cut out of its clips, as a dataset of actions."""

from __future__ import annotations

import av
import numpy as np
import pytest

from store.errors import InputError, MissingFileError
from store.inputs.datasets import load_dataset, prepare_dataset
from store.inputs.demo_clips import TABLE, render
from store.inputs.protocol import RECOGNITION
from store.inputs.scenes import FRAMES_PER_SECOND, MOMENT_FRAMES, MOTIONS

SIZES = {"train": 4, "test": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for name, cut in (("whole", False), ("cut", True)):
        render(folder / name, SIZES, workers=1, cut=cut)
    return folder


def pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def test_a_clip_is_the_moment_of_the_demos_clip_picture_by_picture(folders):
    whole = load_dataset("demo", folders / "whole")
    for video, cut in zip(whole.videos, load_dataset("demo_motions", folders / "cut").videos, strict=True):
        assert cut.id == video.id
        start, stop = (round(second * FRAMES_PER_SECOND) for second in video.moment_s)
        moment, own = pictures(video.path)[start:stop], pictures(cut.path)
        assert len(own) == len(moment) in range(*MOMENT_FRAMES)
        for here, there in zip(own, moment, strict=True):
            assert np.abs(here - there).mean() < 4, "two encodings of one picture"


def test_its_classes_are_the_demos_and_it_has_no_captions(folders):
    whole, cut = load_dataset("demo", folders / "whole"), load_dataset("demo_motions", folders / "cut")
    assert [text.text for text in cut.texts] == [words[0] for words in MOTIONS.values()]
    named = [[samples.texts[video.label].text for video in samples.videos] for samples in (whole, cut)]
    assert named[0] == named[1]
    assert cut.protocol == RECOGNITION
    assert {name: len(split.video) for name, split in cut.splits.items()} == SIZES
    assert all(split.text.tolist() == list(range(len(MOTIONS))) for split in cut.splits.values())


def test_clips_of_one_kind_are_not_taken_for_the_other(folders):
    with pytest.raises(InputError, match="rendered with other settings"):
        render(folders / "whole", SIZES, workers=1, cut=True)
    with pytest.raises(InputError, match="rendered with other settings"):
        prepare_dataset("demo_motions", folders / "whole")
    with pytest.raises(InputError, match="rendered with other settings"):
        prepare_dataset("demo", folders / "cut")


def test_before_a_dump_it_says_what_makes_its_clips(tmp_path):
    with pytest.raises(MissingFileError, match=f"no {TABLE} at .* make dump-teacher DATASET=demo_motions"):
        load_dataset("demo_motions", tmp_path)
