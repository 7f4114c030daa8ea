"""Flickr30k in Karpathy's split: images are videos of one frame, with five captions each.

Young et al., TACL 2014; Karpathy and Fei-Fei, CVPR 2015. The default reads Karpathy's own file, the variant
`lists` the lists of ALBEF and BLIP.
"""

from __future__ import annotations

from dataclasses import replace

from store.inputs.caption_files import image_list_entries, karpathy_entries
from store.inputs.datasets.base import Annotations, Count, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import EVERY_CAPTION
from store.inputs.samples import DatasetCard

KARPATHY = "dataset_flickr30k.json"
SPLITS = ("train", "val", "test")
ZIP = "published in caption_datasets.zip, https://cs.stanford.edu/people/karpathy/deepimagesent/"
BLIP = (
    "published with ALBEF, https://github.com/salesforce/ALBEF, and BLIP, https://github.com/salesforce/BLIP"
)


def list_name(split: str) -> str:
    return f"flickr30k_{split}.json"


def read(files: FoundFiles) -> Annotations:
    return Annotations(karpathy_entries(files.one(KARPATHY), {split: split for split in SPLITS}))


def read_lists(files: FoundFiles) -> Annotations:
    return Annotations(
        [entry for split in SPLITS for entry in image_list_entries(files.one(list_name(split)), split)]
    )


OWN = Published(
    name="flickr30k",
    card=DatasetCard(
        title="Flickr30k captions, Karpathy's split",
        licence="research use; the images belong to their owners",
        source="https://shannon.cs.illinois.edu/DenotationGraph/",
    ),
    files=(NeededFile((KARPATHY,), "all captions and the split", ZIP),),
    videos=(
        "the images in flickr30k-images (on request at https://shannon.cs.illinois.edu/DenotationGraph/)"
    ),
    layouts=(
        Layout("Flickr30k", "", "flickr30k-images"),
        Layout("Flickr30k, annotations in a folder", "annotations", "flickr30k-images"),
        Layout("a folder of images", "", "images"),
    ),
    counts={"train": Count(29_000, 145_000), "val": Count(1_014, 5_070), "test": Count(1_000, 5_000)},
    protocol=EVERY_CAPTION,
    read=read,
)
VARIANTS = {
    "": OWN,
    "lists": replace(
        OWN,
        name="flickr30k-lists",
        card=replace(OWN.card, title="Flickr30k captions, Karpathy's split, lists of ALBEF and BLIP"),
        files=tuple(NeededFile((list_name(split),), f"{split} captions", BLIP) for split in SPLITS),
        read=read_lists,
    ),
}
