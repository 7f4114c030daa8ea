"""The card of a cache: README.md for people and hubs, croissant.json for machines (`store.croissant`).

Both lie outside every digest and are written again whenever something is added, removed or reported. They say
what the cache and its reports say, and nothing of the machine that wrote them. The front matter is what the
Hugging Face hub reads of a dataset (https://huggingface.co/docs/hub/datasets-cards).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from store.croissant import croissant, homepage, keywords, slug, spdx_name, spdx_url
from store.durable import read_json, write_file
from store.errors import CacheError, IncompleteCacheError
from store.info import gather, signal_rows
from store.inputs.protocol import RECOGNITION
from store.made import MADE, Made
from store.manifest import CARD, CROISSANT
from store.markdown import escaped, fenced, shell, table, yaml_string
from store.retrieval_metrics import METRICS, RECOGNITION_METRICS
from store.teacher_report import REPORT
from store.untrusted import is_of

TASKS = {True: ("video-classification", "feature-extraction"), False: ("feature-extraction",)}
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
CARD_BYTES = 1 << 24


def write_card(root: Path) -> None:
    """Write README.md and croissant.json of the finished cache at `root`, where they say something new.

    Raises IncompleteCacheError for an unfinished one, and what `store.info.gather` raises.
    """
    for name, content in card_files(root).items():
        path = root / name
        if not path.is_file() or path.read_bytes() != content.encode():
            write_file(path, content.encode())


def card_files(root: Path) -> dict[str, str]:
    """The content of the card's files, by name; raises as `write_card` does."""
    found = gather(root)
    if found["digest"] is None:
        raise IncompleteCacheError(
            f"{root} is unfinished ({found['state']}) and has no card yet; run the same dump command again"
        )
    document = croissant(root, found, summary(found), first_written(root))
    return {
        CARD: "\n".join(markdown(found)) + "\n",
        CROISSANT: json.dumps(document, indent=2, ensure_ascii=False) + "\n",
    }


def first_written(root: Path) -> str:
    """The day on which the cache got its card: the only time in it, which Croissant asks for."""
    try:
        date = read_json(root / CROISSANT, CARD_BYTES)["datePublished"]
    except (CacheError, OSError, KeyError, TypeError):
        date = None
    known = isinstance(date, str) and DATE.fullmatch(date) is not None
    return str(date) if known else datetime.now(UTC).strftime("%Y-%m-%d")


def summary(found: Mapping[str, Any]) -> str:
    """What the cache is, in one sentence."""
    dataset = found["dataset"]
    teachers = ", ".join(found["teachers"]) or "no teacher"
    return (
        f"What frozen video-text teachers ({teachers}) say of {dataset['videos']:,} videos and "
        f"{dataset['texts']:,} texts of {dataset['title']}: training signals for light students, "
        "in a Zarr v3 hierarchy."
    )


def markdown(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of README.md."""
    yield from front_matter(found)
    yield f"# Teacher signals: {escaped(found['dataset']['title'])}"
    yield ""
    yield escaped(summary(found))
    yield "A student is trained from it without a teacher and without the videos."
    if found["partial"]:
        yield ""
        yield "This copy is partial; what it lacks, and where that lies, tells `python -m store info CACHE`."
    yield ""
    yield from _dataset(found)
    for name, teacher in found["teachers"].items():
        yield ""
        yield from _teacher(name, teacher)
    yield ""
    yield from _use(found)


def front_matter(found: Mapping[str, Any]) -> Iterator[str]:
    """What the hub reads: YAML between two rules."""
    dataset, licence = found["dataset"], found["terms"]["licence"]
    name = spdx_name(licence)
    yield "---"
    yield f"pretty_name: {yaml_string('Teacher signals: ' + dataset['title'])}"
    if name is not None:
        yield f"license: {name.lower()}"
    else:
        yield "license: other"
        yield f"license_name: {slug(licence)[:60].strip('-')}"
        if (link := homepage(dataset["source"])) is not None:
            yield f"license_link: {yaml_string(link)}"
    yield "task_categories:"
    yield from (f"- {task}" for task in TASKS[dataset["protocol"] == RECOGNITION])
    yield "size_categories:"
    yield f"- {size_category(max(dataset['videos'], dataset['texts']))}"
    yield "tags:"
    yield from (f"- {word}" for word in keywords(dataset))
    yield "viewer: false"
    yield "---"
    yield ""


def size_category(rows: int) -> str:
    """The hub's word for a number of rows: "1K<n<10K"."""
    words = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    power = sum(rows >= 10 ** (3 + place) for place in range(len(words)))
    if power == 0:
        return f"n<{words[0]}"
    return f"n>{words[-1]}" if power == len(words) else f"{words[power - 1]}<n<{words[power]}"


def _dataset(found: Mapping[str, Any]) -> Iterator[str]:
    dataset, terms = found["dataset"], found["terms"]
    link = homepage(dataset["source"])
    yield "## The data"
    yield ""
    rows = [
        ("what", "value"),
        ("dataset", f"{dataset['name']}: {dataset['title']}"),
        ("source", dataset["source"]),
        ("licence of the data", terms["licence"]),
        ("share", f"{terms['share']} ({terms['reason']})"),
        ("rows", f"{dataset['videos']:,} videos, {dataset['texts']:,} texts"),
        ("evaluated as", dataset["protocol"]),
        *((f"missing: {what}", f"{count:,}") for what, count in dataset["missing"].items()),
        ("digest", f"sha256:{found['digest']}"),
    ]
    yield from table([row for row in rows if link is None or row[0] != "source"])
    if link is not None:
        yield ""
        yield f"Source: <{link}>"
    yield ""
    splits = dataset["splits"].items()
    counts = [(name, f"{split['videos']:,}", f"{split['texts']:,}") for name, split in splits]
    yield from table([("split", "videos", "texts"), *counts])


def _teacher(name: str, teacher: Mapping[str, Any]) -> Iterator[str]:
    view, identity = teacher["view"], teacher["identity"]
    made = Made.from_dict(teacher["reports"].get(MADE))
    yield f"## Teacher {escaped(name)}"
    yield ""
    rows = [
        ("what", "value"),
        ("model", made.model),
        ("published weights", made.weights),
        ("licence of the weights", made.weights_licence or "not stated"),
        *((key, _told(value)) for key, value in sorted(identity.items())),
        ("view", f"{view['name']}: {view['frames']} frames ({view['sampling']}) of {view['size']} pixels"),
        ("videos", f"{teacher['videos_decoded']:,} decoded, {teacher['videos_failed']:,} failed"),
        ("pair scores", teacher["pair_scores"]),
        ("frames kept", _pixels(teacher["pixels"])),
        ("bytes", f"{teacher['bytes']:,}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in teacher["provenance"].items())),
    ]
    yield from table([row for row in rows if row[1]])
    yield ""
    yield from table(list(signal_rows(teacher["signals"])))
    yield from _metrics(teacher["reports"].get(REPORT))
    if made.commands:
        yield ""
        yield "How it was made (capitals stand for files of whoever made it):"
        yield ""
        commands = (shell(["python", "-m", "teacher_dump", "dump", *words]) for words in made.commands)
        yield from fenced("sh", (line for command in commands for line in command))


def _told(value: object) -> str:
    """A value of an identity: plain, or as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _pixels(pixels: Mapping[str, Any] | None) -> str:
    return (
        "" if pixels is None else f"{pixels['frames']:,} as {pixels['encoding']}, {pixels['bytes']:,} bytes"
    )


def _metrics(report: Any) -> Iterator[str]:
    """What the teacher retrieves or recognises on its own, where reports/retrieval.json tells."""
    splits = report.get("splits") if isinstance(report, dict) else None
    rows = list(_metric_rows(splits)) if isinstance(splits, dict) else []
    if rows:
        yield ""
        yield "On its own, in percent (MdR, MnR: ranks):"
        yield ""
        yield from table([("split", "task", "metrics"), *rows])


def _metric_rows(splits: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for split, told in splits.items():
        if not isinstance(told, dict):
            continue
        if "not_computable" in told:
            yield split, "-", f"not computable: {told['not_computable']}"
            continue
        ways = {way: metrics for way, metrics in told.items() if isinstance(metrics, dict)}
        for way, metrics in (ways or {"recognition": told}).items():
            names = (name for name in (*METRICS, *RECOGNITION_METRICS) if is_of(metrics.get(name), float))
            words = (f"{name} {metrics[name]:.1f}" for name in names)
            yield split, str(way).replace("_", " "), ", ".join(words)


def _use(found: Mapping[str, Any]) -> Iterator[str]:
    commands = (
        "python -m store info CACHE          # what is inside",
        "python -m store verify CACHE        # every object by size, digest, checksum, coverage",
        "python -m student_train train CACHE --out RUN",
    )
    yield "## How to use it"
    yield ""
    yield "`CACHE` is the folder of this file."
    yield ""
    yield from fenced("sh", commands)
    if code := list(_python(found)):
        yield ""
        yield from fenced("python", code)
    link = spdx_url(found["terms"]["licence"])
    if link is not None:
        yield ""
        yield f"The licence of the data: <{link}>"


def _python(found: Mapping[str, Any]) -> Iterator[str]:
    """How the first rows are read: of a split's texts and their videos, or of its videos and all classes."""
    splits, teachers = found["dataset"]["splits"], found["teachers"]
    split = "train" if "train" in splits else next(iter(splits), None)
    name = next(iter(teachers), None)
    if split is None or name is None:
        return
    has_texts = splits[split]["texts"] > 0
    axes = ("V", "T") if has_texts else ("V",)
    signals = [signal for signal, told in teachers[name]["signals"].items() if told["axes"][0] in axes]
    yield from () if has_texts else ("import numpy as np", "")
    yield "from store.reader import open_cache"
    yield ""
    yield 'cache = open_cache("CACHE")'
    yield f"teacher = cache.teacher({json.dumps(name)})"
    if has_texts:
        yield f"texts = cache.split({json.dumps(split)}).text  # rows; cache.texts[row] is one"
        yield "texts = texts[teacher.text_usable[texts] & teacher.video_usable[cache.text_video[texts]]][:64]"
        yield "videos = cache.text_video[texts]"
    else:
        yield f"videos = cache.split({json.dumps(split)}).video  # rows; cache.video_ids[row] is one"
        yield "videos = videos[teacher.video_usable[videos]][:64]"
        yield "texts = np.flatnonzero((cache.text_video < 0) & teacher.text_usable)  # the class names"
    if signals:
        yield f"batch = teacher.batch({json.dumps(signals[:2])}, videos, texts)  # arrays as stored"
    if teachers[name]["pair_scores"] != "none":
        yield "scores, known = teacher.pair_scores(videos, texts)  # [V, T] logits, and which there are"
