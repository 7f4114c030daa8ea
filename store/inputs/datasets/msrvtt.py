"""MSR-VTT: 10,000 clips with 20 captions each, in the three splits that papers use.

Xu et al., CVPR 2016; the 1k-A test is that of Yu et al., ECCV 2018 ("JSFusion"), one caption for each of
1,000 clips; its 9k training ids are those of Gabeur et al., ECCV 2020, its 7k ones those of Miech et al.,
ICCV 2019. The official split (TeachCLIP's MSRVTT-3k) keeps all 20 captions of its 2,990 test clips.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from store.errors import InputError
from store.inputs.annotation_files import check_id, field, read_json, table_rows, tidy
from store.inputs.caption_files import captions_by_video
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import MULTI_CAPTION, SINGLE_CAPTION
from store.inputs.samples import DatasetCard

CAPTIONS = "MSRVTT_data.json"
TRAIN_9K, TRAIN_7K = "MSRVTT_train.9k.csv", "MSRVTT_train.7k.csv"
TEST = "MSRVTT_JSFUSION_test.csv"
TRAIN_VAL_OFFICIAL, TEST_OFFICIAL = "train_val_videodatainfo.json", "test_videodatainfo.json"
OFFICIAL_SPLITS = {"train": "train", "validate": "val", "test": "test"}

ZIP = (
    "published in msrvtt_data.zip, "
    "https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msrvtt_data.zip"
)
SITE = "published at http://ms-multimedia-challenge.com/2017/dataset"
LAYOUTS = (
    Layout("CLIP4Clip", "", "MSRVTT_Videos"),
    Layout("CLIP4Clip, its zip unpacked here", "msrvtt_data", "MSRVTT_Videos"),
    Layout("X-Pool, its repository", "data/MSRVTT", "data/MSRVTT/vids"),
    Layout("X-Pool, its data/MSRVTT", "", "vids"),
    Layout("Frozen in Time's MSRVTT.zip", "", "videos/all"),
    Layout("TeachCLIP", "Annotations", "VideoData"),
    Layout("a folder of videos", "", "videos"),
)


def read_1k(files: FoundFiles, train_ids: str) -> Annotations:
    """Training clips with their captions in the json's order; test sentences from the csv, since 35 of them
    are not in the json to the letter."""
    captions = captions_by_video(files.one(CAPTIONS))
    entries = []
    for where, row in table_rows(files.one(train_ids), ("video_id",)):
        id = check_id(where, row["video_id"])
        entries.append(Entry(id, "train", captions.get(id, ())))
    for where, row in table_rows(files.one(TEST), ("video_id", "sentence")):
        entries.append(Entry(check_id(where, row["video_id"]), "test", (tidy(row["sentence"]),)))
    return Annotations(entries)


def read_official(files: FoundFiles) -> Annotations:
    entries = []
    for name in (TRAIN_VAL_OFFICIAL, TEST_OFFICIAL):
        path = files.one(name)
        captions = captions_by_video(path)
        document = read_json(path, "MSR-VTT's json, 'videos' with 'video_id' and 'split'")
        for at, video in enumerate(field(str(path), document, "videos", list)):
            where = f"{path}: video {at}"
            id = check_id(where, field(where, video, "video_id", str))
            split = field(where, video, "split", str)
            if split not in OFFICIAL_SPLITS:
                raise InputError(f"{where}: split {split!r} is none of {', '.join(OFFICIAL_SPLITS)}")
            entries.append(Entry(id, OFFICIAL_SPLITS[split], captions.get(id, ())))
    return Annotations(entries)


NINE_K = Published(
    name="msrvtt",
    card=DatasetCard(
        title="MSR-VTT 1k-A (9k train)",
        licence="research use; the clips belong to their owners",
        source="http://ms-multimedia-challenge.com/2017/dataset",
    ),
    files=(
        NeededFile((CAPTIONS,), "all captions", ZIP),
        NeededFile((TRAIN_9K,), "ids of the training clips", ZIP),
        NeededFile((TEST,), "test clips with their sentence", ZIP),
    ),
    videos=(
        "the clips as <id>.mp4, e.g. in MSRVTT_Videos or videos/all (published in MSRVTT.zip, "
        "https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip)"
    ),
    layouts=LAYOUTS,
    counts={"train": Count(9_000, 180_000), "test": Count(1_000, 1_000)},
    protocol=SINGLE_CAPTION,
    read=partial(read_1k, train_ids=TRAIN_9K),
)
SEVEN_K = replace(
    NINE_K,
    name="msrvtt-7k",
    card=replace(NINE_K.card, title="MSR-VTT 1k-A (7k train)"),
    files=(
        NINE_K.files[0],
        NeededFile((TRAIN_7K,), "ids of the training clips: 7,010", ZIP),
        NINE_K.files[2],
    ),
    counts={"train": Count(7_010, 140_200), "test": Count(1_000, 1_000)},
    read=partial(read_1k, train_ids=TRAIN_7K),
)
OFFICIAL = replace(
    NINE_K,
    name="msrvtt-official",
    card=replace(NINE_K.card, title="MSR-VTT, official split (3k test)"),
    files=(
        NeededFile((TRAIN_VAL_OFFICIAL,), "training and validation captions", SITE),
        NeededFile((TEST_OFFICIAL,), "test captions", SITE),
    ),
    counts={"train": Count(6_513, 130_260), "val": Count(497, 9_940), "test": Count(2_990, 59_800)},
    protocol=MULTI_CAPTION,
    read=read_official,
)
VARIANTS = {"": NINE_K, "7k": SEVEN_K, "official": OFFICIAL}
