"""MSVD: 1,970 YouTube clips with 18 to 81 captions each; every caption is a query of the test.

Chen and Dolan, ACL 2011; split of Venugopalan et al., ICCV 2015, in the files of CLIP4Clip or X-Pool.
"""

from __future__ import annotations

from pathlib import Path

from store.inputs.annotation_files import expect, id_list, read_json
from store.inputs.caption_files import kept
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import MULTI_CAPTION
from store.inputs.restricted_pickle import read_plain_pickle
from store.inputs.samples import DatasetCard

CAPTIONS, CAPTIONS_XPOOL = "raw-captions.pkl", "captions_msvd.json"
LISTS = {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"}
ZIP = "published in msvd_data.zip, https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msvd_data.zip"


def read(files: FoundFiles) -> Annotations:
    captions = captions_of(files.one(CAPTIONS))
    entries = []
    for split, name in LISTS.items():
        for id in id_list(files.one(name)):
            entries.append(Entry(id, split, captions.get(id, ())))
    return Annotations(entries)


def captions_of(path: Path) -> dict[str, tuple[str, ...]]:
    """id -> captions. The pickle holds each as a list of tokens, the json as a string."""
    if path.suffix == ".pkl":
        document = read_plain_pickle(path)
    else:
        document = read_json(path, "an object, clip id to list of captions")
    captions = {}
    for id, texts in expect(str(path), document, dict).items():
        where = f"{path}: {id!r}"
        captions[id] = kept([caption_of(where, text) for text in expect(where, texts, list)])
    return captions


def caption_of(where: str, text: object) -> str:
    if isinstance(text, list) and all(isinstance(token, str) for token in text):
        return " ".join(text)
    return expect(where, text, str)


VARIANTS = {
    "": Published(
        name="msvd",
        card=DatasetCard(
            title="MSVD (Microsoft Research Video Description)",
            licence="research use; the clips belong to their owners",
            source="https://www.cs.utexas.edu/users/ml/clamp/videoDescription/",
        ),
        files=(
            NeededFile((CAPTIONS, CAPTIONS_XPOOL), "all captions", ZIP),
            *(NeededFile((name,), f"ids of the {split} clips", ZIP) for split, name in LISTS.items()),
        ),
        videos=(
            "the clips as <id>.avi, e.g. in MSVD_Videos (published as YouTubeClips.tar, "
            "https://www.cs.utexas.edu/users/ml/clamp/videoDescription/)"
        ),
        layouts=(
            Layout("CLIP4Clip", "", "MSVD_Videos"),
            Layout("CLIP4Clip, its zip unpacked here", "msvd_data", "MSVD_Videos"),
            Layout("X-Pool, its repository", "data/MSVD", "data/MSVD/vids"),
            Layout("X-Pool, its data/MSVD", "", "vids"),
            Layout("TeachCLIP", "Annotations", "VideoData"),
            Layout("YouTubeClips.tar unpacked here", "", "YouTubeClips"),
            Layout("a folder of videos", "", "videos"),
        ),
        counts={"train": Count(1_200, 48_774), "val": Count(100, 4_290), "test": Count(670, 27_763)},
        protocol=MULTI_CAPTION,
        read=read,
    )
}
