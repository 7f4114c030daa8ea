"""DiDeMo: all descriptions of a video make one paragraph.

Hendricks et al., ICCV 2017; the paragraph protocol is that of Zhang et al., ECCV 2018, as CLIP4Clip runs it.
"""

from __future__ import annotations

from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, expect, field, read_json
from store.inputs.caption_files import kept
from store.inputs.datasets.base import Annotations, Count, Entry, FoundFiles, Layout, NeededFile, Published
from store.inputs.protocol import PARAGRAPH
from store.inputs.samples import DatasetCard

FILES = {"train": "train_data.json", "val": "val_data.json", "test": "test_data.json"}
SITE = "published in data/ of https://github.com/LisaAnne/LocalizingMoments"
CHUNK_S, SEEN_CHUNKS = 5.0, 6


def read(files: FoundFiles) -> Annotations:
    return Annotations(
        [entry for split, name in FILES.items() for entry in paragraphs(files.one(name), split)]
    )


def paragraphs(path: Path, split: str) -> list[Entry]:
    """One entry a video: its descriptions in the file's order, joined with a space; they lie scattered over
    it.

    The video's name is the annotated one; the file may carry another extension, or none behind its dot.
    """
    descriptions: dict[str, list[str]] = {}
    chunks: dict[str, list[int]] = {}
    document = read_json(path, "a list of 'video', 'description' and 'times'")
    for at, item in enumerate(expect(str(path), document, list)):
        where = f"{path}: entry {at}"
        name = check_id(where, field(where, item, "video", str))
        descriptions.setdefault(name, []).append(field(where, item, "description", str))
        chunks.setdefault(name, []).extend(chunks_of(where, item))
    entries = []
    for name, texts in descriptions.items():
        sentences = kept(texts)
        joined = (" ".join(sentences),) if sentences else ()
        entries.append(Entry(name.rsplit(".", 1)[0], split, joined, (name,), moment_s(chunks[name])))
    return entries


def chunks_of(where: str, item: object) -> list[int]:
    """First and last chunk of every annotator's answer; most have four, some five or seven."""
    chunks = []
    for at, pair in enumerate(field(where, item, "times", list)):
        ends = expect(f"{where}, time {at}", pair, list)
        numbers = [expect(f"{where}, time {at}", end, int) for end in ends]
        if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1]:
            raise InputError(f"{where}, time {at}: expected a first and a last chunk, got {ends!r}")
        chunks += numbers
    return chunks


def moment_s(chunks: list[int]) -> tuple[float, float] | None:
    """From the start of the first described chunk to the end of the last, inclusive, in seconds: chunk a is a
    * 5 to (a + 1) * 5, and annotators saw the first 30 s alone."""
    if not chunks or min(chunks) >= SEEN_CHUNKS:
        return None
    return min(chunks) * CHUNK_S, min(max(chunks) + 1, SEEN_CHUNKS) * CHUNK_S


VARIANTS = {
    "": Published(
        name="didemo",
        card=DatasetCard(
            title="DiDeMo, paragraphs",
            licence="BSD-2-Clause for the annotations; the videos belong to their owners",
            source="https://github.com/LisaAnne/LocalizingMoments",
        ),
        files=tuple(NeededFile((name,), f"{split} descriptions", SITE) for split, name in FILES.items()),
        videos=(
            "the videos under their Flickr names, any extension, e.g. in DiDeMo_Videos "
            "(see https://github.com/LisaAnne/LocalizingMoments, from Flickr or YFCC100M)"
        ),
        layouts=(
            Layout("CLIP4Clip", "", "DiDeMo_Videos"),
            Layout("LocalizingMoments, its repository", "data", "videos"),
            Layout("TeachCLIP", "Annotations", "VideoData"),
            Layout("a folder of videos", "", "videos"),
        ),
        counts={"train": Count(8_395, 8_395), "val": Count(1_065, 1_065), "test": Count(1_004, 1_004)},
        protocol=PARAGRAPH,
        read=read,
    )
}
