"""The rows of a dataset: what they refuse, and what of them the cache keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store.errors import InputError
from store.info import describe
from store.inputs.protocol import EVERY_CAPTION, RECOGNITION
from store.inputs.samples import CLASS, DatasetCard, Samples, Split, Text, Video
from store.reader import open_cache
from tests.synthetic_cache import SIGNALS, synthetic_samples, write_synthetic_cache


def of_classes(labels, **fields):
    """Two classes, one video for each of `labels`."""
    videos = tuple(Video(f"v{row}", Path(f"v{row}.mp4"), None, label) for row, label in enumerate(labels))
    texts = (Text("a video of a person running.", -1, CLASS), Text("a video of a person sitting.", -1, CLASS))
    splits = {"train": Split(np.arange(len(videos)), np.arange(2))}
    card = DatasetCard("made in a test", "CC0-1.0", "none")
    return Samples("classes", card, videos, texts, splits, RECOGNITION, **fields)


@pytest.mark.parametrize("label", [-1, 2, 7])
def test_a_class_that_is_no_text_row_is_refused(label):
    with pytest.raises(InputError, match=f"video row 1 names text row {label} as its class"):
        of_classes([0, label])


def test_a_caption_is_no_class():
    samples = synthetic_samples()
    with pytest.raises(InputError, match="video row 0 names text row 0 as its class"):
        replace(samples, videos=(replace(samples.videos[0], label=0), *samples.videos[1:]))


def test_an_unknown_protocol_lists_what_there_is():
    with pytest.raises(InputError, match="no protocol 'best'; there is single-caption"):
        replace(synthetic_samples(), protocol="best")


def test_the_digest_covers_classes_but_not_what_is_missing():
    samples = of_classes([0, 1])
    assert of_classes([1, 0]).rows_digest() != samples.rows_digest()
    assert of_classes([0, None]).rows_digest() != samples.rows_digest()
    assert of_classes([0, 1], missing={"train videos": 3}).rows_digest() == samples.rows_digest()


def test_a_cache_keeps_classes_protocol_prompts_and_what_is_missing(tmp_path):
    samples = of_classes(
        [1, None, 0, 1] * 3, missing={"train videos": 1234}, prompts=("a video of a person {}.",)
    )
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr", samples, signals=SIGNALS[1:2]))
    assert cache.video_class.tolist() == [1, -1, 0, 1] * 3
    assert cache.protocol == RECOGNITION
    assert cache.dataset["missing"] == {"train videos": 1234}
    assert cache.dataset["prompts"] == ["a video of a person {}."]
    told = describe(cache.path)
    assert "protocol recognition" in told
    assert "missing  of what is published: 1,234 train videos" in told


def test_a_cache_of_captions_has_no_classes_and_is_complete(tmp_path):
    cache = open_cache(write_synthetic_cache(tmp_path / "c.zarr"))
    assert (cache.video_class == -1).all()
    assert cache.protocol == EVERY_CAPTION
    assert "missing" not in describe(cache.path)
