"""MSCOCO captions in Karpathy's split: images are videos of one frame, with five or more captions each.

Lin et al., ECCV 2014; Karpathy and Fei-Fei, CVPR 2015. The default reads Karpathy's own file, the variant
`lists` the lists of ALBEF and BLIP, which hold the same images and captions.
"""

from __future__ import annotations

from dataclasses import replace

from store.inputs.caption_files import image_list_entries, karpathy_entries
from store.inputs.datasets.base import Annotations, Count, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import EVERY_CAPTION
from store.inputs.samples import DatasetCard

KARPATHY = "dataset_coco.json"
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
LISTS = {
    "train": ("coco_karpathy_train.json", "coco_train.json"),
    "val": ("coco_karpathy_val.json", "coco_val.json"),
    "test": ("coco_karpathy_test.json", "coco_test.json"),
}
ZIP = "published in caption_datasets.zip, https://cs.stanford.edu/people/karpathy/deepimagesent/"
BLIP = (
    "published with ALBEF, https://github.com/salesforce/ALBEF, and BLIP, https://github.com/salesforce/BLIP"
)


def read(files: FoundFiles) -> Annotations:
    return Annotations(karpathy_entries(files.one(KARPATHY), KARPATHY_SPLITS))


def read_lists(files: FoundFiles) -> Annotations:
    return Annotations(
        [entry for split, names in LISTS.items() for entry in image_list_entries(files.one(names[0]), split)]
    )


OWN = Published(
    name="coco",
    card=DatasetCard(
        title="MSCOCO captions, Karpathy's split",
        licence="CC BY 4.0 for the captions; the images belong to their owners",
        source="https://cocodataset.org",
    ),
    files=(NeededFile((KARPATHY,), "all captions and the split", ZIP),),
    videos="the images in train2014 and val2014 (train2014.zip, val2014.zip of https://cocodataset.org/#download)",
    layouts=(
        Layout("COCO", "", "val2014"),
        Layout("COCO, annotations in a folder", "annotations", "val2014"),
        Layout("COCO, images in a folder", "annotations", "images"),
    ),
    counts={"train": Count(113_287, 566_747), "val": Count(5_000, 25_010), "test": Count(5_000, 25_010)},
    protocol=EVERY_CAPTION,
    read=read,
)
VARIANTS = {
    "": OWN,
    "lists": replace(
        OWN,
        name="coco-lists",
        card=replace(OWN.card, title="MSCOCO captions, Karpathy's split, lists of ALBEF and BLIP"),
        files=tuple(NeededFile(names, f"{split} captions", BLIP) for split, names in LISTS.items()),
        read=read_lists,
    ),
}
