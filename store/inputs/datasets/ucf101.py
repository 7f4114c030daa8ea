"""UCF-101: 13,320 clips of 101 actions, in three splits.

Soomro et al., 2012. Class numbers start at 1 in the files and at 0 here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, lines, separated_lines
from store.inputs.class_names import PERSON_PROMPT, spaced
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import DatasetCard

CLASSES = "classInd.txt"
CLASS_COUNT = 101
SIZES = {1: (9_537, 3_783), 2: (9_586, 3_734), 3: (9_624, 3_696)}
ZIP = "published in UCF101TrainTestSplits-RecognitionTask.zip, https://www.crcv.ucf.edu/data/UCF101.php"


def read(files: FoundFiles, split: int) -> Annotations:
    classes = class_folders(files.one(CLASSES))
    number = {name: place for place, name in enumerate(classes)}
    entries = []
    for path, part in ((files.one(train_name(split)), "train"), (files.one(test_name(split)), "test")):
        for where, line in lines(path):
            name, label = line.rsplit(None, 1) if part == "train" and " " in line else (line, None)
            folder, _, file = name.partition("/")
            check_id(where, file)
            if folder not in number:
                raise InputError(f"{where}: {folder!r} is no class of {CLASSES}; is it the published file?")
            if part == "train" and label != str(number[folder] + 1):
                raise InputError(
                    f"{where}: label {label!r} of {folder!r}, {CLASSES} has {number[folder] + 1}; "
                    "restore the published files"
                )
            entries.append(Entry(file.rsplit(".", 1)[0], part, (), (file,), None, number[folder]))
    return Annotations(entries, tuple(map(spaced, classes)))


def class_folders(path: Path) -> list[str]:
    """Folder of each class, in the order of their numbers, which count from 1."""
    folders: list[str] = []
    for where, (number, folder) in separated_lines(path, None, ("number", "class")):
        if number != str(len(folders) + 1) or folder in folders:
            raise InputError(f"{where}: expected class number {len(folders) + 1}, got {number!r} {folder!r}")
        folders.append(folder)
    return folders


def train_name(split: int) -> str:
    return f"trainlist{split:02d}.txt"


def test_name(split: int) -> str:
    return f"testlist{split:02d}.txt"


def published(split: int) -> Published:
    train, test = SIZES[split]
    return Published(
        name="ucf101" if split == 1 else f"ucf101-split{split}",
        card=DatasetCard(
            title=f"UCF-101, split {split}",
            licence="research use; the clips belong to their owners",
            source="https://www.crcv.ucf.edu/data/UCF101.php",
        ),
        files=(
            NeededFile((CLASSES,), "class numbers", ZIP),
            NeededFile((train_name(split),), "training clips", ZIP),
            NeededFile((test_name(split),), "test clips", ZIP),
        ),
        videos="the clips as v_<class>_g<n>_c<n>.avi, e.g. in UCF-101 (UCF101.rar, https://www.crcv.ucf.edu/data/UCF101.php)",
        layouts=(
            Layout("both archives unpacked here", "ucfTrainTestlist", "UCF-101"),
            Layout("lists beside the clips", "", "UCF-101"),
            Layout("a folder of videos", "", "videos"),
        ),
        counts={"train": Count(train, CLASS_COUNT), "test": Count(test, CLASS_COUNT)},
        protocol=RECOGNITION,
        read=partial(read, split=split),
        prompts=(PERSON_PROMPT,),
    )


VARIANTS = {"": published(1), "split2": published(2), "split3": published(3)}
