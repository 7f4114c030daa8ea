"""VATEX in the split of Chen et al., CVPR 2020 ("HGR"): the official training set, and the official
validation set in two halves, 1,500 clips for validation and 1,500 for the test; ten English captions each.

Wang et al., ICCV 2019. The official test set has no public captions in every language and is not used.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from store.errors import InputError
from store.inputs.annotation_files import check_id, expect, field, id_list, read_json, string_list, table_rows
from store.inputs.caption_files import captions_by_video, kept
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import MULTI_CAPTION
from store.inputs.samples import DatasetCard

TRAINING, VALIDATION = "vatex_training_v1.0.json", "vatex_validation_v1.0.json"
HALVES = {"val": "val_names.npy", "test": "tst_names.npy"}
TEACHCLIP_CAPTIONS = "VATEX_data.json"
TEACHCLIP_LISTS = {"train": "VATEX_train.csv", "val": "VATEX_val.csv", "test": "VATEX_test.csv"}
SITE = "published at https://eric-xw.github.io/vatex-website/download.html"
HGR = "public_split/ of https://github.com/cshizhe/hgr_v2t"
TEACHCLIP = "Annotations of VATEX in the data of https://github.com/ruc-aimc-lab/TeachCLIP"
LAST_DIGITS = 6


class Clip(NamedTuple):
    """A stretch of a YouTube video, in seconds."""

    youtube_id: str
    start_s: int
    end_s: int


def clip_of(where: str, id: str) -> Clip:
    """ "5-xGskbsBgI_000055_000065" -> its YouTube id, start and end; the id itself may hold "_" and "-"."""
    check_id(where, id)
    parts = id.rsplit("_", 2)
    if len(parts) != 3 or not all(re.fullmatch(rf"[0-9]{{{LAST_DIGITS}}}", part) for part in parts[1:]):
        raise InputError(
            f"{where}: {id!r} is no videoID of VATEX, <YouTube id>_<start>_<end>, six digits each"
        )
    return Clip(parts[0], int(parts[1]), int(parts[2]))


def read(files: FoundFiles) -> Annotations:
    training, validation = english_captions(files.one(TRAINING)), english_captions(files.one(VALIDATION))
    entries = [Entry(id, "train", texts) for id, texts in training.items()]
    for split, name in HALVES.items():
        for id in names_of(files.one(name)):
            clip_of(str(files.one(name)), id)
            entries.append(Entry(id, split, validation.get(id, ())))
    return Annotations(entries)


def english_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """videoID -> its English captions; Chinese ones may be there or not."""
    captions: dict[str, tuple[str, ...]] = {}
    for at, item in enumerate(expect(str(path), read_json(path, "a list of 'videoID' and 'enCap'"), list)):
        where = f"{path}: entry {at}"
        id = field(where, item, "videoID", str)
        clip_of(where, id)
        if id in captions:
            raise InputError(f"{where}: videoID {id!r} comes twice; restore the published file")
        captions[id] = kept(string_list(f"{where}, 'enCap'", field(where, item, "enCap", list)))
    return captions


def names_of(path: Path) -> list[str]:
    """The ids of HGR's split: an array of strings in a npy (one of objects is a pickle and is not read), or a
    list."""
    if path.suffix == ".txt":
        return id_list(path)
    try:
        names = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{path}: no array of strings ({error or type(error).__name__}); "
            f"write the ids as text, one a line, into {path.with_suffix('.txt').name}"
        ) from error
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(
            f"{path}: expected an array of strings, one axis, got {names.dtype}, {names.ndim} axes"
        )
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the ids are not UTF-8 ({error.reason})") from error


def read_teachclip(files: FoundFiles) -> Annotations:
    captions = captions_by_video(files.one(TEACHCLIP_CAPTIONS))
    entries = []
    for split, name in TEACHCLIP_LISTS.items():
        for where, row in table_rows(files.one(name), ("video_id",)):
            clip_of(where, row["video_id"])
            entries.append(Entry(row["video_id"], split, captions.get(row["video_id"], ())))
    return Annotations(entries)


OFFICIAL_FILES = Published(
    name="vatex",
    card=DatasetCard(
        title="VATEX, English, split of Chen et al.",
        licence="CC BY 4.0 for the captions; the clips belong to their owners",
        source="https://eric-xw.github.io/vatex-website/",
    ),
    files=(
        NeededFile((TRAINING,), "training captions", SITE),
        NeededFile((VALIDATION,), "validation captions, of both halves", SITE),
        *(
            NeededFile((name, name.replace(".npy", ".txt")), f"ids of the {split} half", HGR)
            for split, name in HALVES.items()
        ),
    ),
    videos="the clips as <videoID>.mp4, cut to their ten seconds, e.g. in VideoData or videos (YouTube; "
    + SITE
    + ")",
    layouts=(
        Layout("TeachCLIP", "Annotations", "VideoData"),
        Layout("HGR's split beside the official files", "public_split", "videos"),
        Layout("a folder of videos", "", "videos"),
    ),
    counts={"train": Count(25_991, 259_910), "val": Count(1_500, 15_000), "test": Count(1_500, 15_000)},
    protocol=MULTI_CAPTION,
    read=read,
)
TEACHCLIP_FILES = replace(
    OFFICIAL_FILES,
    name="vatex-teachclip",
    card=replace(OFFICIAL_FILES.card, title="VATEX, English, split of Chen et al., TeachCLIP's files"),
    files=(
        NeededFile((TEACHCLIP_CAPTIONS,), "all captions", TEACHCLIP),
        *(
            NeededFile((name,), f"ids of the {split} clips", TEACHCLIP)
            for split, name in TEACHCLIP_LISTS.items()
        ),
    ),
    read=read_teachclip,
)
VARIANTS = {"": OFFICIAL_FILES, "teachclip": TEACHCLIP_FILES}
