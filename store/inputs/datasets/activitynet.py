"""ActivityNet Captions: all sentences of a video make one paragraph; trained on train, tested on val_1.

Krishna et al., ICCV 2017; the paragraph protocol is that of Zhang et al., ECCV 2018, the split that of Gabeur
et al., ECCV 2020. val_2 is a second annotation of the same videos and is not used.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, expect, field, read_json, string_list
from store.inputs.caption_files import kept
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import PARAGRAPH
from store.inputs.samples import DatasetCard

TRAIN, TEST = "train.json", "val_1.json"
SITE = "published in captions.zip, https://cs.stanford.edu/people/ranjaykrishna/densevid/"
ID = re.compile(r"v_.{11}")


def read(files: FoundFiles) -> Annotations:
    return Annotations([*paragraphs(files.one(TRAIN), "train"), *paragraphs(files.one(TEST), "test")])


def paragraphs(path: Path, split: str) -> list[Entry]:
    """One entry a video: its sentences in the file's order, joined with a space."""
    entries = []
    document = read_json(path, "an object, video id to 'duration', 'timestamps' and 'sentences'")
    for id, item in expect(str(path), document, dict).items():
        where = f"{path}: {id!r}"
        check_id(str(path), id)
        if not ID.fullmatch(id):
            raise InputError(f"{where}: expected v_ and the 11 letters of a YouTube id")
        sentences = kept(string_list(f"{where}, 'sentences'", field(where, item, "sentences", list)))
        texts = (" ".join(sentences),) if sentences else ()
        entries.append(Entry(id, split, texts, (id, id.removeprefix("v_")), described(where, item)))
    return entries


def described(where: str, item: object) -> tuple[float, float] | None:
    """From the first to the last described second: the annotated times are unordered, may end after the
    video, and some are empty, so they are cut to the duration; None where nothing remains."""
    duration = number(f"{where}, 'duration'", field(where, item, "duration", object))
    times = field(where, item, "timestamps", list)
    starts, ends = [], []
    for at, pair in enumerate(times):
        place = f"{where}, timestamp {at}"
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"{place}: expected a start and an end in seconds, got {pair!r}")
        start, end = (number(place, value) for value in pair)
        starts.append(min(start, end))
        ends.append(max(start, end))
    if not times:
        return None
    start_s, end_s = max(0.0, min(starts)), min(duration, max(ends))
    return (start_s, end_s) if start_s < end_s else None


def number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: expected a number of seconds, got {value!r}; is it the published file?")
    return float(value)


VARIANTS = {
    "": Published(
        name="activitynet",
        card=DatasetCard(
            title="ActivityNet Captions, paragraphs, tested on val_1",
            licence="research use; the videos belong to their owners",
            source="https://cs.stanford.edu/people/ranjaykrishna/densevid/",
        ),
        files=(
            NeededFile((TRAIN,), "training sentences", SITE),
            NeededFile((TEST,), "test sentences (val_1)", SITE),
        ),
        videos=(
            "the videos as v_<YouTube id>.mp4 or <YouTube id>.mp4, e.g. in Activity_Videos "
            "(on request at http://activity-net.org/download.html)"
        ),
        layouts=(
            Layout("CLIP4Clip", "", "Activity_Videos"),
            Layout("TeachCLIP", "Annotations", "VideoData"),
            Layout("captions.zip unpacked here", "captions", "videos"),
            Layout("a folder of videos", "", "videos"),
        ),
        counts={"train": Count(10_009, 10_009), "test": Count(4_917, 4_917)},
        protocol=PARAGRAPH,
        read=read,
    )
}
