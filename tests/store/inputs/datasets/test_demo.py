"""The demo's rows: captions to retrieve by, and the motion of each clip as its class."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store.inputs.datasets import load_dataset, table
from store.inputs.demo_clips import TABLE, render
from store.inputs.samples import CLASS
from store.inputs.scenes import MOTIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    render(folder, split_sizes={"train": 4, "test": 4}, workers=1)
    return folder


def test_a_clips_class_is_the_motion_that_its_caption_tells(folder):
    samples = load_dataset("demo", folder)
    ways = {words[0]: words for words in MOTIONS.values()}
    assert [text.text for text in samples.texts if text.kind == CLASS] == list(ways)
    for text in samples.texts:
        if text.kind != CLASS:
            motion = samples.texts[samples.videos[text.video].label].text
            assert any(way in text.text for way in ways[motion])


def test_class_names_stand_behind_the_captions_and_no_split_retrieves_them(folder):
    samples, plain = load_dataset("demo", folder), table.load(folder / TABLE)
    assert samples.texts[: len(plain.texts)] == plain.texts
    assert [replace(video, label=None) for video in samples.videos] == list(plain.videos)
    assert samples.splits_digest() == plain.splits_digest()
    assert samples.protocol == plain.protocol


def test_a_table_of_ones_own_at_that_place_has_no_classes(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / TABLE).write_text("video,text,split\na.mp4,a circle,train\n")
    assert load_dataset("demo", tmp_path).videos[0].label is None
