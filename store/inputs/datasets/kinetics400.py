"""Kinetics-400: ten-second clips of 400 actions. The validation set is what papers report: the split `test`.

Kay et al., 2017. Class numbers are the alphabetical order of the labels, as everywhere. Many clips have
vanished from YouTube, so nobody has all of them: --allow-missing takes what is there. The variant `text4vis`
reads the lists of ActionCLIP and Text4Vis, the variant `prompts` stores CLIP's 28 templates of every class.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, separated_lines, table_rows
from store.inputs.class_names import KINETICS_PROMPTS, PERSON_PROMPT
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import DatasetCard

CLASSES = 400
FILES = {
    "train": ("kinetics-400_train.csv", "train.csv"),
    "test": ("kinetics-400_val.csv", "val.csv", "validate.csv"),
}
LABELS = "kinetics_400_labels.csv"
LISTS = {
    "train": ("kinetics_video_train_se320.txt", "text4vis_kinetics_video_train_se320.txt"),
    "test": ("kinetics_video_val_se320.txt", "text4vis_kinetics_video_val_se320.txt"),
}
SITE = "published at https://github.com/activitynet/ActivityNet/tree/master/Crawler/Kinetics/data"
TEXT4VIS = "published in lists/ of https://github.com/whwu95/Text4Vis"


def read(files: FoundFiles) -> Annotations:
    rows = []
    for split, (name, *_) in FILES.items():
        columns = ("label", "youtube_id", "time_start", "time_end")
        rows += [(split, where, row) for where, row in table_rows(files.one(name), columns)]
    classes = tuple(sorted({row["label"] for _, _, row in rows}))
    number = {name: place for place, name in enumerate(classes)}
    entries = [
        Entry(id := clip_id(where, row), split, (), (id, row["youtube_id"]), None, number[row["label"]])
        for split, where, row in rows
    ]
    return Annotations(entries, classes)


def clip_id(where: str, row: dict[str, str]) -> str:
    """The usual name of the file: <YouTube id>_<start>_<end>, six digits each."""
    check_id(where, row["youtube_id"])
    try:
        start_s, end_s = int(row["time_start"]), int(row["time_end"])
    except ValueError:
        start_s = end_s = -1
    if not 0 <= start_s < end_s:
        raise InputError(
            f"{where}: time_start {row['time_start']!r} and time_end {row['time_end']!r} are no whole seconds"
        )
    return f"{row['youtube_id']}_{start_s:06d}_{end_s:06d}"


def read_text4vis(files: FoundFiles) -> Annotations:
    classes = numbered_names(files.one(LABELS))
    entries = []
    for split, (name, *_) in LISTS.items():
        for where, (file, label) in separated_lines(files.one(name), None, ("file.mp4", "label")):
            check_id(where, file)
            if " " in file:
                raise InputError(
                    f"{where}: {file!r} is a frame folder and its count; take the list of videos"
                )
            if not (label.isascii() and label.isdigit() and int(label) < len(classes)):
                raise InputError(f"{where}: label {label!r} is no number below {len(classes)}")
            entries.append(Entry(file.rsplit(".", 1)[0], split, (), (file,), None, int(label)))
    return Annotations(entries, classes)


def numbered_names(path: Path) -> tuple[str, ...]:
    """Class names of a csv with the columns id and name; raises InputError unless ids count from 0."""
    names: list[str] = []
    for where, row in table_rows(path, ("id", "name")):
        if row["id"] != str(len(names)):
            raise InputError(f"{where}: id {row['id']!r}, expected {len(names)}; restore the published file")
        names.append(row["name"])
    return tuple(names)


OFFICIAL = Published(
    name="kinetics400",
    card=DatasetCard(
        title="Kinetics-400",
        licence="CC BY 4.0 for the annotations; the clips belong to their owners",
        source="https://github.com/cvdfoundation/kinetics-dataset",
    ),
    files=tuple(NeededFile(names, f"{split} clips and classes", SITE) for split, names in FILES.items()),
    videos=(
        "the clips as <YouTube id>_<start>_<end>.mp4 or <YouTube id>.mp4, in any folders below "
        "(https://github.com/cvdfoundation/kinetics-dataset)"
    ),
    layouts=(
        Layout("CVDF", "annotations", ""),
        Layout("a folder of videos", "", "videos"),
        Layout("ActionCLIP, Text4Vis", "lists", "videos"),
        Layout("Text4Vis, its repository", "lists/k400", "videos"),
    ),
    counts={"train": Count(246_534, CLASSES), "test": Count(19_906, CLASSES)},
    protocol=RECOGNITION,
    read=read,
    prompts=(PERSON_PROMPT,),
)
VARIANTS = {
    "": OFFICIAL,
    "prompts": replace(
        OFFICIAL,
        name="kinetics400-prompts",
        card=replace(OFFICIAL.card, title="Kinetics-400 with CLIP's 28 templates"),
        prompts=KINETICS_PROMPTS,
    ),
    "text4vis": replace(
        OFFICIAL,
        name="kinetics400-text4vis",
        card=replace(OFFICIAL.card, title="Kinetics-400, lists of Text4Vis"),
        files=(
            *(NeededFile(names, f"{split} clips and classes", TEXT4VIS) for split, names in LISTS.items()),
            NeededFile((LABELS,), "class names", TEXT4VIS),
        ),
        counts={"train": Count(None, CLASSES), "test": Count(19_796, CLASSES)},
        read=read_text4vis,
    ),
}
