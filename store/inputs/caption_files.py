"""Caption files that several datasets share: the JSON of MSR-VTT's form and those of the image datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from store.errors import InputError
from store.inputs.annotation_files import check_id, expect, field, read_json, string_list, tidy
from store.inputs.datasets.base import Entry


def captions_by_video(path: Path) -> dict[str, tuple[str, ...]]:
    """id -> captions in the file's order, of `sentences` with `video_id` and `caption` (MSR-VTT,
    VATEX_data.json).

    The sentences of a video may lie anywhere in the file. Raises InputError naming the sentence.
    """
    document = read_json(path, "MSR-VTT's json, 'sentences' with 'video_id' and 'caption'")
    captions: dict[str, list[str]] = {}
    for at, sentence in enumerate(field(str(path), document, "sentences", list)):
        where = f"{path}: sentence {at}"
        id, caption = field(where, sentence, "video_id", str), field(where, sentence, "caption", str)
        captions.setdefault(id, []).append(caption)
    return {id: kept(texts) for id, texts in captions.items()}


def kept(captions: list[str]) -> tuple[str, ...]:
    """The captions, tidied, without those that are nothing but white space."""
    return tuple(text for text in map(tidy, captions) if text)


def image_stem(path: str) -> str:
    """ "val2014/COCO_val2014_000000391895.jpg" -> "COCO_val2014_000000391895": an image's id."""
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def karpathy_entries(path: Path, splits: Mapping[str, str]) -> list[Entry]:
    """The images of a `dataset_*.json` of Karpathy and Fei-Fei; splits: their word -> ours.

    The caption is `raw`: `tokens` are lower-cased and lack punctuation. Raises InputError naming the image.
    """
    entries = []
    document = read_json(path, "Karpathy's json, 'images' with 'filename', 'split' and 'sentences'")
    for at, image in enumerate(field(str(path), document, "images", list)):
        where = f"{path}: image {at}"
        name, split = field(where, image, "filename", str), field(where, image, "split", str)
        sentences = field(where, image, "sentences", list)
        raw = [field(f"{where}, sentence {n}", sentence, "raw", str) for n, sentence in enumerate(sentences)]
        if split not in splits:
            raise InputError(
                f"{where}: split {split!r} is none of {', '.join(splits)}; is it the published file?"
            )
        entries.append(Entry(check_id(where, image_stem(name)), splits[split], kept(raw), (name,)))
    return entries


def image_list_entries(path: Path, split: str) -> list[Entry]:
    """The images of a list of `image` and `caption`, as ALBEF and BLIP publish: test and val hold a list of
    captions for each image, train one entry for each caption, which are joined here.
    """
    captions: dict[str, list[str]] = {}
    for at, item in enumerate(expect(str(path), read_json(path, "a list of 'image' and 'caption'"), list)):
        where = f"{path}: entry {at}"
        image = field(where, item, "image", str)
        check_id(where, image_stem(image))
        caption = item.get("caption")
        texts = [caption] if isinstance(caption, str) else string_list(f"{where}, 'caption'", caption)
        captions.setdefault(image, []).extend(texts)
    return [
        Entry(image_stem(image), split, kept(texts), (image.rsplit("/", 1)[-1],))
        for image, texts in captions.items()
    ]
