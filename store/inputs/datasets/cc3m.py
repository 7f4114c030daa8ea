"""Conceptual Captions (CC3M): captions and urls; images that vanished from the web are missing for everybody.

Sharma et al., ACL 2018. Urls end in names that are not unique, so `images.tsv` says which local file is which
url's. The validation set is the split `test`, for those who retrieve on it; MCAD trains on `train` alone.
"""

from __future__ import annotations

from pathlib import Path

from store.inputs.annotation_files import separated_lines, tidy
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import EQUAL_CAPTIONS
from store.inputs.samples import DatasetCard
from store.inputs.url_files import LOCAL_FILES, LOCAL_FILES_SOURCE, local_names, name_of_url

FILES = {
    "train": ("Train_GCC-training.tsv", "Train/GCC-training.tsv"),
    "test": ("Validation_GCC-1.1.0-Validation.tsv", "Validation/GCC-1.1.0-Validation.tsv"),
}
SITE = "published at https://ai.google.com/research/ConceptualCaptions/download"


def read(files: FoundFiles) -> Annotations:
    names = local_names(files.one(LOCAL_FILES))
    return Annotations(
        [entry for split, (name, *_) in FILES.items() for entry in images_of(files.one(name), split, names)]
    )


def images_of(path: Path, split: str, names: dict[str, str]) -> list[Entry]:
    """One entry a line, its id the split and the line: an image's url may come in several lines."""
    entries = []
    for number, (where, (caption, url)) in enumerate(separated_lines(path, "\t", ("caption", "url"))):
        name_of_url(where, url)
        id = f"{split}-{number:07d}"
        entries.append(Entry(id, split, (tidy(caption),), (names[url],) if url in names else (id,)))
    return entries


VARIANTS = {
    "": Published(
        name="cc3m",
        card=DatasetCard(
            title="Conceptual Captions 3M",
            licence="free for any use; the images belong to their owners",
            source="https://ai.google.com/research/ConceptualCaptions/",
        ),
        files=(
            *(NeededFile(names, f"{split} captions and urls", SITE) for split, names in FILES.items()),
            NeededFile(
                (LOCAL_FILES,), "url TAB file name, of each image that was fetched", LOCAL_FILES_SOURCE
            ),
        ),
        videos="the images that could be fetched, under the names that images.tsv gives them, e.g. in images",
        layouts=(Layout("a folder of images", "", "images"),),
        counts={"train": Count(3_318_333, 3_318_333), "test": Count(15_840, 15_840)},
        protocol=EQUAL_CAPTIONS,
        read=read,
        missing_is_normal=True,
    )
}
