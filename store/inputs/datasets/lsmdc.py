"""LSMDC 2016: clips of movies with one sentence each (some have more), tested on 1,000 of them.

Rohrbach et al., IJCV 2017; the test is that of the LSMDC 2016 challenge, in the files that CLIP4Clip and
X-Pool read. Training and validation clips may have several sentences, so every sentence is a query; on the
test, of one sentence a clip, that is the single-caption protocol.
"""

from __future__ import annotations

from store.errors import InputError
from store.inputs.annotation_files import check_id, separated_lines, tidy
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import EVERY_CAPTION
from store.inputs.samples import DatasetCard

FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
COLUMNS = ("CLIP_ID", "START_ALIGNED", "END_ALIGNED", "START_EXTRACTED", "END_EXTRACTED", "SENTENCE")
SITE = (
    "behind MPII's user agreement, https://sites.google.com/site/describingmovies/download; "
    "the name 'publictect' is official"
)


def read(files: FoundFiles) -> Annotations:
    """A clip's sentences are joined into its one entry; every sentence is a text."""
    entries = []
    for split, name in FILES.items():
        sentences: dict[str, list[str]] = {}
        for where, fields in separated_lines(files.one(name), "\t", COLUMNS):
            clip, sentence = check_id(where, fields[0]), fields[-1]
            if clip == COLUMNS[0]:
                raise InputError(f"{where}: a header, the published file has none; remove this line")
            if "\t" in sentence:
                raise InputError(f"{where}: more than {len(COLUMNS)} columns; restore the published file")
            if split == "test" and clip in sentences:
                raise InputError(f"{where}: clip {clip!r} comes twice; restore the published file")
            sentences.setdefault(clip, []).append(tidy(sentence))
        entries += [Entry(clip, split, tuple(texts)) for clip, texts in sentences.items()]
    return Annotations(entries)


VARIANTS = {
    "": Published(
        name="lsmdc",
        card=DatasetCard(
            title="LSMDC 2016, 1,000 test clips",
            licence="only for those who signed MPII's user agreement",
            source="https://sites.google.com/site/describingmovies/",
        ),
        files=tuple(NeededFile((name,), f"{split} sentences", SITE) for split, name in FILES.items()),
        videos="the clips as <movie>/<clip id>.avi or .mp4, e.g. in LSMDC_Videos (same agreement)",
        layouts=(
            Layout("CLIP4Clip", "", "LSMDC_Videos"),
            Layout("X-Pool, its repository", "data/LSMDC", "data/LSMDC/vids"),
            Layout("X-Pool, its data/LSMDC", "", "vids"),
            Layout("a folder of videos", "", "videos"),
        ),
        counts={"train": Count(None, 101_079), "val": Count(None, 7_408), "test": Count(1_000, 1_000)},
        protocol=EVERY_CAPTION,
        read=read,
    )
}
