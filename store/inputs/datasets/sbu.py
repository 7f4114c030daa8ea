"""SBU Captions: a million Flickr photos with their owners' captions; photos that were taken down are missing.

Ordonez et al., NeurIPS 2011. Flickr's file names are unique, so an image lies under the name at its url's
end, unless `images.tsv` says otherwise; a url that is listed again adds a caption to its image. There is no
published split: all is `train`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, field, lines, read_json, string_list
from store.inputs.caption_files import image_stem, kept
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import EQUAL_CAPTIONS
from store.inputs.samples import DatasetCard
from store.inputs.url_files import (
    LOCAL_FILES,
    LOCAL_FILES_SOURCE,
    LOCAL_FILES_WHAT,
    local_names,
    name_of_url,
)

URLS = "SBU_captioned_photo_dataset_urls.txt"
CAPTIONS = "SBU_captioned_photo_dataset_captions.txt"
ALL = "sbu-captions-all.json"
ZIP = "published in sbucaptions/dataset.tar.gz, https://www.cs.rice.edu/~vo9/sbucaptions/"


def read(files: FoundFiles) -> Annotations:
    """The two lists, line by line."""
    urls, captions = files.one(URLS), files.one(CAPTIONS)
    url_lines, caption_lines = list(lines(urls)), list(lines(captions))
    if len(url_lines) != len(caption_lines):
        raise InputError(
            f"{captions}: {len(caption_lines):,} lines for the {len(url_lines):,} urls of {urls.name}; "
            "fetch both whole"
        )
    wheres, addresses = zip(*url_lines, strict=True) if url_lines else ((), ())
    return images_of(files, wheres, addresses, [caption for _, caption in caption_lines])


def read_json_list(files: FoundFiles) -> Annotations:
    path = files.one(ALL)
    document = read_json(path, "an object with 'image_urls' and 'captions'")
    urls = string_list(f"{path}, 'image_urls'", field(str(path), document, "image_urls", list))
    captions = string_list(f"{path}, 'captions'", field(str(path), document, "captions", list))
    if len(urls) != len(captions):
        raise InputError(f"{path}: {len(captions):,} captions for {len(urls):,} urls; fetch it whole")
    return images_of(files, [f"{path}: image {at}" for at in range(len(urls))], urls, captions)


def images_of(
    files: FoundFiles, wheres: Sequence[str], urls: Sequence[str], captions: Sequence[str]
) -> Annotations:
    listed: Path | None = files.optional(LOCAL_FILES)
    names = local_names(listed) if listed else {}
    captions_of: dict[str, list[str]] = {}
    url_of: dict[str, str] = {}
    for where, url, caption in zip(wheres, urls, captions, strict=True):
        id = check_id(where, image_stem(name_of_url(where, url)))
        if url_of.setdefault(id, url) != url:
            raise InputError(f"{where}: {url!r} ends as {url_of[id]!r} does; restore the published file")
        captions_of.setdefault(id, []).append(caption)
    return Annotations(
        [
            Entry(id, "train", kept(texts), (names.get(url_of[id], url_of[id].rsplit("/", 1)[-1]),))
            for id, texts in captions_of.items()
        ]
    )


def published(name: str, title: str, annotation_files: tuple[NeededFile, ...], json: bool) -> Published:
    return Published(
        name=name,
        card=DatasetCard(
            title=title,
            licence="research use; the images belong to their owners",
            source="https://www.cs.rice.edu/~vo9/sbucaptions/",
        ),
        files=(
            *annotation_files,
            NeededFile((LOCAL_FILES,), LOCAL_FILES_WHAT, LOCAL_FILES_SOURCE, optional=True),
        ),
        videos="the images that could be fetched, under the names at their urls' ends, e.g. in images",
        layouts=(
            Layout("the unpacked dataset.tar.gz", "dataset", "images"),
            Layout("a folder of images", "", "images"),
        ),
        counts={"train": Count(None, 1_000_000)},
        protocol=EQUAL_CAPTIONS,
        read=read_json_list if json else read,
        missing_is_normal=True,
    )


VARIANTS = {
    "": published(
        "sbu",
        "SBU Captions",
        (
            NeededFile((URLS,), "urls", ZIP),
            NeededFile((CAPTIONS,), "captions, line by line as the urls", ZIP),
        ),
        json=False,
    ),
    "json": published(
        "sbu-json", "SBU Captions, one json", (NeededFile((ALL,), "urls and captions", ZIP),), json=True
    ),
}
