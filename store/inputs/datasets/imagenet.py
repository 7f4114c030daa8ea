"""ImageNet-1k (ILSVRC 2012): images are videos of one frame. The validation set is the split `test`.

Russakovsky et al., IJCV 2015. A folder for each class (its WordNet id), as Text4Vis and torchvision read it;
the validation images may also lie in one folder beside Kaggle's LOC_val_solution.csv. Classes are numbered in
the order of their ids. Of the two files with names, CoOp's holds CLIP's curated ones; WordNet's own has names
that two classes share.
"""

from __future__ import annotations

import re
from pathlib import Path

from store.errors import InputError, MissingFileError
from store.inputs.annotation_files import lines, table_rows
from store.inputs.class_names import IMAGE_PROMPT
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import DatasetCard

CLASS_COUNT = 1_000
NAMES = ("classnames.txt", "LOC_synset_mapping.txt")
VAL_CLASSES = "LOC_val_solution.csv"
KAGGLE = "ILSVRC/Data/CLS-LOC"
FOLDERS = {"train": ("train", f"{KAGGLE}/train"), "test": ("val", f"{KAGGLE}/val")}
WORDNET_ID = re.compile(r"n[0-9]{8}")


def read(files: FoundFiles) -> Annotations:
    """What the folders hold, classes and names sorted: there is no list of images."""
    names = class_names(files.one(NAMES[0]))
    number = {id: place for place, id in enumerate(names)}
    entries = []
    for split, folders in FOLDERS.items():
        for folder in folders:
            for id, images in files.videos.subfolders(folder).items():
                if id not in number:
                    raise InputError(
                        f"{files.data / folder / id}: no class {id!r} in {files.one(NAMES[0]).name}; "
                        "folders are named by WordNet ids"
                    )
                entries += [
                    Entry(image.rsplit(".", 1)[0], split, (), (image,), None, number[id]) for image in images
                ]
    if (solution := files.optional(VAL_CLASSES)) and not any(entry.split == "test" for entry in entries):
        entries += validation_images(solution, number)
    if not entries:
        raise MissingFileError(
            f"{files.data} has no folders train/<WordNet id> or val/<WordNet id>; "
            f"DATASET=imagenet needs DATA={IMAGENET.needs}"
        )
    return Annotations(entries, tuple(names.values()))


def validation_images(path: Path, number: dict[str, int]) -> list[Entry]:
    """The images of Kaggle's csv, sorted by name; a prediction begins with the class."""
    entries = []
    for where, row in table_rows(path, ("ImageId", "PredictionString")):
        id = row["PredictionString"].split()[0]
        if id not in number:
            raise InputError(f"{where}: class {id!r} has no name; restore the published files")
        entries.append(Entry(row["ImageId"], "test", label=number[id]))
    return sorted(entries, key=lambda entry: entry.id)


def class_names(path: Path) -> dict[str, str]:
    """WordNet id -> name, sorted by id; of WordNet's synonyms the first."""
    names: dict[str, str] = {}
    for where, line in lines(path):
        id, _, name = line.partition(" ")
        name = name.split(",")[0].strip() if path.name == NAMES[1] else name.strip()
        if not WORDNET_ID.fullmatch(id) or not name or id in names:
            raise InputError(
                f"{where}: expected a WordNet id of its own (n, eight digits) and a name, got {line[:60]!r}"
            )
        names[id] = name
    return dict(sorted(names.items()))


IMAGENET = Published(
    name="imagenet",
    card=DatasetCard(
        title="ImageNet-1k (ILSVRC 2012)",
        licence="non-commercial research, ImageNet's terms of access",
        source="https://image-net.org",
    ),
    files=(
        NeededFile(
            NAMES,
            "WordNet id and class name a line",
            "classnames.txt is published with CoOp, https://github.com/KaiyangZhou/CoOp, in DATASETS.md; "
            "LOC_synset_mapping.txt at https://www.kaggle.com/c/imagenet-object-localization-challenge/data",
        ),
        NeededFile(
            (VAL_CLASSES,),
            "classes of validation images that lie in one folder",
            "same page of Kaggle",
            optional=True,
        ),
    ),
    videos=(
        "the images in train/<WordNet id> and val/<WordNet id> (after login at "
        "https://image-net.org/download-images)"
    ),
    layouts=(Layout("folders of classes", "", "train"), Layout("Kaggle's archive", "", KAGGLE)),
    counts={"train": Count(1_281_167, CLASS_COUNT), "test": Count(50_000, CLASS_COUNT)},
    protocol=RECOGNITION,
    read=read,
    prompts=(IMAGE_PROMPT,),
)
VARIANTS = {"": IMAGENET}
