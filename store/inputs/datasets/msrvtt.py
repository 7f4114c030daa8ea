"""MSR-VTT, split 1k-A: 9,000 training videos with all their captions, 1,000 test videos with one each.

Xu et al., CVPR 2016; the test split is that of Yu et al., ECCV 2018 ("JSFusion"), the 9k training ids are
those of Gabeur et al., ECCV 2020. File names and layout as CLIP4Clip and X-Pool read them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from store.errors import InputError, MissingFileError
from store.inputs.datasets.base import first_few, refuse_missing_videos
from store.inputs.samples import DatasetCard, Samples, Split, Text, Video

CAPTIONS = "MSRVTT_data.json"
TRAIN_IDS = "MSRVTT_train.9k.csv"
TEST = "MSRVTT_JSFUSION_test.csv"
VIDEO_FOLDERS = ("videos/all", "videos", "MSRVTT_Videos")
TRAIN_VIDEOS, TRAIN_TEXTS, TEST_VIDEOS = 9_000, 180_000, 1_000

NEEDS = (
    f"a folder with {CAPTIONS}, {TRAIN_IDS} and {TEST} (published in msrvtt_data.zip, "
    "https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msrvtt_data.zip) and the clips as "
    f"<id>.mp4 in {VIDEO_FOLDERS[0]}, {VIDEO_FOLDERS[1]} or {VIDEO_FOLDERS[2]} (published in MSRVTT.zip, "
    "https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip)"
)
CARD = DatasetCard(
    title="MSR-VTT 1k-A (9k train)",
    licence="research use; the clips belong to their owners",
    source="http://ms-multimedia-challenge.com/2017/dataset",
)


def load(data: Path, allow_missing: bool = False) -> Samples:
    """Rows in the order of the two csv files, the captions of a training video in the order of the json.

    allow_missing: take the rows whose captions and clip are there; else fewer than the published counts are
    an error. Raises MissingFileError, InputError.
    """
    absent = [name for name in (CAPTIONS, TRAIN_IDS, TEST) if not (data / name).is_file()]
    if absent:
        raise MissingFileError(f"{data} lacks {', '.join(absent)}; DATASET=msrvtt needs DATA={NEEDS}")
    captions = captions_by_video(data / CAPTIONS)
    train = [row["video_id"] for row in csv_rows(data / TRAIN_IDS, ("video_id",))]
    test = {row["video_id"]: row["sentence"] for row in csv_rows(data / TEST, ("video_id", "sentence"))}
    if both := sorted(set(train) & set(test)):
        raise InputError(
            f"{data}: {len(both)} videos are in {TRAIN_IDS} and {TEST}, first: {first_few(both)}"
        )
    if not allow_missing:
        check_counts(data, train, captions, test)
    path_of = find_clips(data)
    expected = [*train, *test]
    missing = [id for id in expected if id not in path_of]
    if len(missing) == len(expected):
        raise MissingFileError(
            f"{data} holds none of the {len(expected)} clips; DATASET=msrvtt needs DATA={NEEDS}"
        )
    if not allow_missing:
        refuse_missing_videos(str(data), missing, len(expected))
    train = [id for id in train if id in path_of and id in captions]
    test = {id: sentence for id, sentence in test.items() if id in path_of}
    texts_of = {id: captions[id] for id in train} | {id: [sentence] for id, sentence in test.items()}
    return samples_of(texts_of, path_of, len(train))


def samples_of(texts_of: Mapping[str, list[str]], path_of: Mapping[str, Path], train_videos: int) -> Samples:
    """The first `train_videos` videos are the split train, the others the split test."""
    videos = tuple(Video(id, path_of[id]) for id in texts_of)
    texts = tuple(Text(text, row) for row, video in enumerate(videos) for text in texts_of[video.id])
    text_video = np.array([text.video for text in texts], dtype=np.int64)
    rows = np.arange(len(videos))
    splits = {
        name: Split(rows[begin:end], np.flatnonzero((text_video >= begin) & (text_video < end)))
        for name, begin, end in (("train", 0, train_videos), ("test", train_videos, len(videos)))
    }
    return Samples("msrvtt", CARD, videos, texts, splits)


def captions_by_video(path: Path) -> dict[str, list[str]]:
    """Captions without outer spaces, in the file's order; one that is nothing but spaces is left out."""
    try:
        sentences = json.loads(path.read_text(encoding="utf-8"))["sentences"]
        pairs = [(sentence["video_id"], sentence["caption"].strip()) for sentence in sentences]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not MSR-VTT's json, 'sentences' with 'video_id' and 'caption' ({error})"
        ) from error
    captions: dict[str, list[str]] = {}
    for id, caption in pairs:
        if caption:
            captions.setdefault(id, []).append(caption)
    return captions


def csv_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {name: (value or "").strip() for name, value in row.items() if name}
                for row in csv.DictReader(file)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a csv in UTF-8 ({error})") from error
    for number, row in enumerate(rows, start=2):
        if any(not row.get(name) for name in columns):
            raise InputError(f"{path}: row {number} lacks {' or '.join(columns)}; has {', '.join(row)}")
    return rows


def check_counts(
    data: Path, train: Sequence[str], captions: Mapping[str, Sequence[str]], test: Mapping[str, str]
) -> None:
    """Raise InputError unless the annotations are as large as the papers say."""
    train_texts = sum(len(captions.get(id, ())) for id in train)
    for what, file, count, expected in (
        ("training videos", TRAIN_IDS, len(set(train)), TRAIN_VIDEOS),
        ("training captions", CAPTIONS, train_texts, TRAIN_TEXTS),
        ("test videos", TEST, len(test), TEST_VIDEOS),
    ):
        if count != expected:
            raise InputError(
                f"{data / file}: {count:,} {what}, the published split has {expected:,}; fetch it whole"
            )


def find_clips(data: Path) -> dict[str, Path]:
    """Clip by id, one look into each folder; the first folder that has a clip wins."""
    found: dict[str, Path] = {}
    for folder in reversed(VIDEO_FOLDERS):
        if (data / folder).is_dir():
            found.update({path.stem: path for path in (data / folder).glob("*.mp4")})
    return found
