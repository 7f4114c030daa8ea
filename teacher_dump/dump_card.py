"""What a dump puts into the card of its cache: the data's licence, how the labels were made, from what."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.card import write_card
from store.contents import check_dataset, read_attributes
from store.inputs.samples import NOT_STATED, Samples
from store.lookup import load_plugin
from store.made import Made, record_made
from store.manifest import MANIFEST
from store.sharing import state_terms
from teacher_dump import teachers

if TYPE_CHECKING:
    from store.reader import Cache
    from teacher_dump.teachers.base import TeacherCard

DEMO = "demo"
PUBLIC = (
    "name", "allow_missing", "architecture", "pretrained", "checkpoint", "layers", "frames", "words", "dtype",
    "variant", "vocabulary", "classes", "features", "prompt", "learned_prompt", "encoding", "tokens",
    "project", "keep_pixels", "pairs", "plan", "topk", "topk_splits", "shortlist", "fused_cls",
    "batch_videos", "batch_texts", "threads", "shard_rows", "extend",
)  # fmt: skip
"""Options that say what the labels are. Others say where it ran, and are nobody's business."""


def with_terms(samples: Samples, root: Path, arguments: argparse.Namespace) -> Samples:
    """`samples` on the terms that were stated now, or when the cache at `root` was begun; asked for once.

    Asks in a terminal, where nobody knows the licence and the cache is new.
    """
    card, licence, share = samples.card, arguments.licence, arguments.share
    if (root / "zarr.json").is_file():
        stored = read_attributes(root, "").get("dataset")
        check_dataset(stored)
        assert isinstance(stored, dict)
        card = replace(card, licence=stored["licence"], share=stored.get("share"))
    elif licence is None and card.licence == NOT_STATED and in_a_terminal():
        licence = input("licence of the data, e.g. CC-BY-4.0 (empty: not stated): ").strip()
    return replace(samples, card=replace(card, licence=licence or card.licence, share=share or card.share))


def in_a_terminal() -> bool:
    """Whether a person is there to be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def is_finished(root: Path) -> bool:
    """Whether the terms of the cache at `root` lie under its digest already."""
    return (root / MANIFEST).is_file()


def write_dump_card(
    cache: Cache, teacher: str, arguments: argparse.Namespace, default: Callable[[str], Any], restate: bool
) -> None:
    """Keep how `teacher`, as the cache calls it, was made, and write the card.

    restate: what is stated now came after the digest.
    """
    if restate and (arguments.licence or arguments.share):
        state_terms(cache.path, arguments.licence, arguments.share)
    published: TeacherCard = load_plugin(teachers, "teacher", arguments.teacher).CARD
    command = public_options(arguments, default)
    record_made(cache.path, teacher, Made((command,), published.model, published.weights, published.licence))
    write_card(cache.path)


def is_file_name(pretrained: str) -> bool:
    """Whether the words name a file, and not a tag of open_clip, which has neither points nor slashes."""
    return re.fullmatch(r"[\w-]+", pretrained, re.ASCII) is None or Path(pretrained).is_file()


def public_options(arguments: argparse.Namespace, default: Callable[[str], Any]) -> tuple[str, ...]:
    """The options of a dump that anybody may know, as words of its command line; capitals stand for files.

    default: of an option, by its name; those are left out.
    """
    words = ["--dataset", arguments.dataset]
    words += [] if arguments.dataset == DEMO else ["--data", "DATA"]
    words += ["--cache", "CACHE", "--teacher", arguments.teacher]
    for name in PUBLIC:
        value = getattr(arguments, name)
        if value is None or value == default(name):
            continue
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, Path) or (name == "pretrained" and is_file_name(value)):
            words += [option, name.upper()]
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [option, str(one)]
    return tuple(words)
