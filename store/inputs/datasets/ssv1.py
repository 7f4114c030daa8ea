"""Something-Something V1: clips of 174 actions with objects. The validation set is the split `test`.

Goyal et al., ICCV 2017. It is published as folders of JPEG frames at 12 frames a second; each has to become a
video file first, since frames are decoded from files here (docs/datasets.md shows the command).
"""

from __future__ import annotations

from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, lines, separated_lines
from store.inputs.class_names import PERSON_PROMPT
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import DatasetCard

CLASS_COUNT = 174
LABELS = "something-something-v1-labels.csv"
FILES = {"train": "something-something-v1-train.csv", "test": "something-something-v1-validation.csv"}
SITE = "published by Qualcomm (20BN), https://www.qualcomm.com/developer/software/something-something-v-2-dataset"


def read(files: FoundFiles) -> Annotations:
    """Classes in the order of the labels' file."""
    classes = class_names(files.one(LABELS))
    number = {name: place for place, name in enumerate(classes)}
    entries = []
    for split, name in FILES.items():
        for where, (id, label) in separated_lines(files.one(name), ";", ("id", "class")):
            check_id(where, id)
            if label not in number:
                raise InputError(f"{where}: class {label!r} is not in {LABELS}; restore the published files")
            entries.append(Entry(id, split, label=number[label]))
    return Annotations(entries, classes)


def class_names(path: Path) -> tuple[str, ...]:
    names = [line for _, line in lines(path)]
    if len(set(names)) != len(names) or not names:
        raise InputError(f"{path}: expected {CLASS_COUNT} different class names, one a line")
    return tuple(names)


VARIANTS = {
    "": Published(
        name="ssv1",
        card=DatasetCard(
            title="Something-Something V1",
            licence="research use, Qualcomm's terms",
            source="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
        ),
        files=(
            NeededFile((LABELS,), "class names", SITE),
            *(NeededFile((name,), f"{split} clips and classes", SITE) for split, name in FILES.items()),
        ),
        videos="the clips as <id>.mp4, made of their JPEG folders, e.g. in videos",
        layouts=(
            Layout("a folder of videos", "", "videos"),
            Layout("labels in a folder", "labels", "videos"),
        ),
        counts={"train": Count(86_017, CLASS_COUNT), "test": Count(11_522, CLASS_COUNT)},
        protocol=RECOGNITION,
        read=read,
        prompts=(PERSON_PROMPT,),
    )
}
