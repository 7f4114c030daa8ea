"""HMDB-51: 6,766 clips of 51 actions, in three splits of 70 training and 30 test clips a class.

Kuehne et al., ICCV 2011. Each split leaves the remaining clips out.
"""

from __future__ import annotations

from functools import partial

from store.errors import InputError
from store.inputs.annotation_files import check_id, separated_lines
from store.inputs.class_names import PERSON_PROMPT, spaced
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import DatasetCard

CLASS_COUNT, TRAIN_CLIPS, TEST_CLIPS = 51, 70, 30
USES = {"0": None, "1": "train", "2": "test"}
ARCHIVE = (
    "published in test_train_splits.rar, "
    "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
)


def read(files: FoundFiles, split: int) -> Annotations:
    """Classes in alphabetical order; a class is its file's name up to the exact ending, since some classes'
    names begin with another's."""
    ending = f"_test_split{split}.txt"
    paths = {path.name.removesuffix(ending): path for path in files.paths[pattern(split)]}
    classes = sorted(paths)
    entries = []
    for number, name in enumerate(classes):
        for where, (file, use) in separated_lines(paths[name], None, ("file", "0, 1 or 2")):
            check_id(where, file)
            if use not in USES:
                raise InputError(
                    f"{where}: expected 1 (train), 2 (test) or 0 (unused) after the file, got {use!r}"
                )
            if part := USES[use]:
                entries.append(Entry(file.rsplit(".", 1)[0], part, (), (file,), None, number))
    return Annotations(entries, tuple(map(spaced, classes)))


def pattern(split: int) -> str:
    return f"*_test_split{split}.txt"


def published(split: int) -> Published:
    return Published(
        name="hmdb51" if split == 1 else f"hmdb51-split{split}",
        card=DatasetCard(
            title=f"HMDB-51, split {split}",
            licence="CC BY 4.0; the clips belong to their owners",
            source="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        ),
        files=(NeededFile((pattern(split),), "clips of a class, 51 files", ARCHIVE, many=CLASS_COUNT),),
        videos="the clips as <class>/<name>.avi, e.g. in hmdb51_org (hmdb51_org.rar, same page)",
        layouts=(
            Layout("the archives unpacked here", "testTrainMulti_7030_splits", "hmdb51_org"),
            Layout("the archives unpacked here, lists in splits", "splits", "hmdb51_org"),
            Layout("lists beside the clips", "", "hmdb51_org"),
            Layout("a folder of videos", "", "videos"),
        ),
        counts={
            "train": Count(CLASS_COUNT * TRAIN_CLIPS, CLASS_COUNT),
            "test": Count(CLASS_COUNT * TEST_CLIPS, CLASS_COUNT),
        },
        protocol=RECOGNITION,
        read=partial(read, split=split),
        prompts=(PERSON_PROMPT,),
    )


VARIANTS = {"": published(1), "split2": published(2), "split3": published(3)}
