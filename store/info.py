"""python -m store info: what is inside a cache, for a person or, with --json, for a script.

The keys of `gather` are stable: scripts may rely on them, later releases add and never rename.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from store.cli import add_chunk_cache, add_debug, cache_place
from store.contents import read_attributes
from store.durable import read_json
from store.errors import CacheError, DamagedCacheError
from store.layout import TableCounts, TeacherPlan
from store.ledger import LEDGER, Ledger
from store.manifest import MANIFEST
from store.parts import FIRST, TEACHERS, group_of_task, groups_of
from store.reader import Cache, TeacherReader, open_cache, read_root
from store.sharing import terms_of
from store.signals import ALL_TOKENS, SignalSpec
from store.untrusted import is_of, printable_values

TEXT_COLUMNS = 100
ERROR_PREFIX = "encoding_"
METRICS_SHOWN = 12
LACKS_SHOWN = 6


def gather(path: Path | str) -> dict[str, Any]:
    """What lies at `path`, a folder or, as text, a URL, in plain JSON:

    partial {source, lacks [paths]}: what a partial copy left out and where it lies, null for a whole one;
    name, format, state ("planned" | "dumping" | "complete"), digest (null until complete), earlier_digests
      (before something was added, the latest first: such a state can still be opened);
    dataset {name, title, licence, source, videos, texts, splits {<split>: {videos, texts}}, segments,
      splits_sha256, protocol, missing {<what>: count}, prompts};
    terms {licence, share ("yes" | "no"), reason}: what holds now (null until complete), see store.sharing;
    teachers {<teacher>: {identity, view, provenance,
      difference_to_float32 {<signal>: {relative_l2, max_abs}}, empty for a teacher in float32,
      pair_scores, videos_decoded, videos_failed, bytes,
      segments (over how many of the dataset's it was dumped), not_covered {videos, texts} (appended since),
      pixels {encoding, quality, frames, bytes, psnr_db}, null where no frames are kept,
      signals {<signal>: {axes, shape, encoding, reduction {tokens, width}, bytes,
      attributes, meaning, needed_by,
      errors {relative_l2, max_abs, mean_cosine, min_cosine}}},
      reports {<file>: what reports/<file>.json says of this teacher}}};
    unfinished {<teacher, or path of a part of it>: {tasks_done, signals [names]}}.

    Raises MissingFileError if there is no cache, DamagedCacheError, IdentityError for another format.
    """
    streamed = open_cache(path) if isinstance(path, str) else None
    path = streamed.path if streamed else Path(path)
    root = read_root(path)
    cache = streamed or (open_cache(path) if (path / MANIFEST).is_file() else None)
    finished = cache.teacher_names if cache else []
    return {
        "name": path.name,
        "format": root["version"],
        "state": root["state"],
        "digest": cache.digest if cache else None,
        "partial": _partial(cache),
        "dataset": dict(cache.dataset if cache else root["dataset"]),
        "terms": terms_of(cache).to_dict() if cache else None,
        "earlier_digests": [state.digest for state in cache.manifest.earlier()] if cache else [],
        "teachers": {name: _teacher(cache, name) for name in finished if cache},
        "unfinished": _unfinished(path, cache.manifest.groups if cache else ()),
    }


def _partial(cache: Cache | None) -> dict[str, Any] | None:
    if cache is None or not cache.partial.lacks:
        return None
    return {"source": cache.partial.source, "lacks": list(cache.partial.lacks)}


def _teacher(cache: Cache, name: str) -> dict[str, Any]:
    teacher = cache.teacher(name)
    counts = cache.counts
    sizes = teacher.bytes_by_signal
    return {
        "identity": dict(teacher.identity),
        "view": teacher.view.to_dict(),
        "pixels": teacher.kept_pixels,
        "provenance": dict(teacher.plan.provenance),
        "difference_to_float32": _precision(teacher),
        "pair_scores": teacher.pair_layout.layout,
        "videos_decoded": int(teacher.video_usable.sum()),
        "videos_failed": len(teacher.failures),
        "segments": teacher.segments,
        "not_covered": {
            "videos": counts.videos - teacher.covered.video[1],
            "texts": counts.texts - teacher.covered.text[1],
        },
        "bytes": sum(sizes.values()),
        "signals": {
            signal: _signal(teacher, spec, counts, sizes[signal]) for signal, spec in teacher.signals.items()
        },
        "reports": dict(_reports(cache.reports_dir, name)),
    }


def _precision(teacher: TeacherReader) -> dict[str, dict[str, float]]:
    """How far a teacher in half precision was from float32 on a sample; {} for one in float32."""
    told = read_attributes(teacher.cache.path, teacher.path).get("difference_to_float32", {})
    if not isinstance(told, dict) or not all(
        isinstance(error, dict) and all(is_of(value, float) for value in error.values())
        for error in told.values()
    ):
        raise DamagedCacheError(f"{teacher.path}/zarr.json garbles its difference_to_float32; pull it again")
    return told


def _signal(teacher: TeacherReader, spec: SignalSpec, counts: TableCounts, size: int) -> dict[str, Any]:
    lengths = {"V": counts.videos, "T": counts.texts, **spec.sizes, spec.row_axis: counts.rows_of(spec)}
    return {
        "axes": list(spec.kind.axes),
        "shape": [lengths[axis] for axis in spec.kind.axes],
        "encoding": spec.encoding,
        "reduction": spec.reduction.to_dict(),
        "bytes": size,
        "errors": teacher.encoding_error(spec.name),
        "attributes": dict(spec.attributes),
        "meaning": spec.kind.meaning,
        "needed_by": list(spec.kind.needed_by),
    }


def _reports(folder: Path, teacher: str) -> Iterator[tuple[str, Any]]:
    """(name, what it says of the teacher) of every reports/*.json; one that can't be read says why."""
    for file in sorted(folder.glob("*.json")):
        try:
            report = read_json(file)
        except CacheError as error:
            yield file.stem, {"unreadable": str(error)}
            continue
        teachers = report.get("teachers") if isinstance(report, dict) else None
        if isinstance(teachers, dict) and teacher in teachers:
            yield file.stem, teachers[teacher]


def _unfinished(path: Path, finished: Collection[str]) -> dict[str, Any]:
    """Teachers, and parts of them, that were begun and are not in the manifest; parts by their path."""
    folders = [*path.glob("teachers/*/zarr.json"), *path.glob("segment-*/teachers/*/zarr.json")]
    begun = groups_of((file.parent.relative_to(path).as_posix() for file in folders), TEACHERS)
    begun = [group for group in begun if group.path not in finished]
    done = (
        [group_of_task(commit.task) for commit in Ledger(path)] if begun and (path / LEDGER).is_file() else []
    )
    plans = {group: TeacherPlan.from_dict(read_attributes(path, group.path)) for group in begun}
    return {
        group.name if group.part == FIRST else group.path: {
            "tasks_done": done.count(group),
            "signals": [spec.name for spec in plan.signals],
        }
        for group, plan in plans.items()
    }


def describe(path: Path) -> str:
    """The same as lines for a person, free of whatever a terminal would obey; raises as `gather` does."""
    found = printable_values(gather(path))
    lines = list(_dataset_lines(found))
    for name, teacher in found["teachers"].items():
        lines += ["", *_teacher_lines(name, teacher)]
    for name, teacher in found["unfinished"].items():
        signals = ", ".join(teacher["signals"])
        lines.append(f"  teacher  {name}: {teacher['tasks_done']} tasks done; will hold {signals}")
    if not found["teachers"] and not found["unfinished"]:
        lines.append("  no teacher is in it: make dump-teacher adds one")
    if found["unfinished"] or found["digest"] is None:
        lines.append("  run the same dump command again: it goes on where it stopped")
    return "\n".join(lines)


def _dataset_lines(found: Mapping[str, Any]) -> Iterator[str]:
    dataset = found["dataset"]
    splits = ", ".join(
        f"{name} {count['videos']:,} videos / {count['texts']:,} texts"
        for name, count in dataset["splits"].items()
    )
    yield (
        f"{found['name']}: {found['state']}, format {found['format']}, "
        f"{dataset['videos']:,} videos, {dataset['texts']:,} texts"
    )
    yield f"  dataset  {dataset['name']}: {dataset['title']}"
    terms = found["terms"]
    yield f"  licence  {terms['licence'] if terms else dataset['licence']}"
    if terms:
        yield f"  share    {terms['share']}: {terms['reason']}"
    yield f"  source   {dataset['source']}"
    yield f"  splits   {splits}"
    yield f"  protocol {dataset['protocol']}"
    if len(dataset["segments"]) > 1:
        ends = (f"{run['video'][1]:,} / {run['text'][1]:,}" for run in dataset["segments"])
        yield f"  segments videos / texts up to {', '.join(ends)}"
    if dataset["missing"]:
        # Less than 0 where there are more rows here than were published.
        told = ", ".join(f"{count:,} {what}" for what, count in dataset["missing"].items())
        yield f"  missing  of what is published: {told}"
    if found["digest"]:
        yield f"  digest   sha256:{found['digest']}"
    if found["partial"]:
        lacks = found["partial"]["lacks"]
        shown = ", ".join(lacks[:LACKS_SHOWN]) + (f", ... ({len(lacks)} in all)" * (len(lacks) > LACKS_SHOWN))
        yield f"  partial  of {found['partial']['source']}: lacks {shown}"


def _teacher_lines(name: str, teacher: Mapping[str, Any]) -> Iterator[str]:
    view = teacher["view"]
    described = ", ".join(f"{key} {_short(value)}" for key, value in sorted(teacher["identity"].items()))
    yield f"teacher {name}: complete, pair scores {teacher['pair_scores']}, {teacher['bytes']:,} bytes"
    yield from _wrapped("identity", described)
    yield (
        f"  view     {view['name']}: {view['frames']} frames ({view['sampling']}) "
        f"of {view['size']} x {view['size']} pixels"
    )
    yield f"  videos   {teacher['videos_decoded']:,} decoded, {teacher['videos_failed']:,} failed"
    if any(teacher["not_covered"].values()):
        beyond = ", ".join(f"{count:,} {what}" for what, count in teacher["not_covered"].items())
        yield f"  lacks    {beyond} that were appended: the same dump command extends it"
    if teacher["difference_to_float32"]:
        apart = (
            f"{name} {_short(e.get('relative_l2'))}" for name, e in teacher["difference_to_float32"].items()
        )
        yield from _wrapped("float32", f"differs from it (relative L2): {', '.join(apart)}")
    if (pixels := teacher["pixels"]) is not None:
        yield f"  pixels   {_kept(pixels)}"
    for report, said in teacher["reports"].items():
        metrics = list(_flattened(said))
        more = f", ... ({len(metrics)} in all)" if len(metrics) > METRICS_SHOWN else ""
        yield from _wrapped("report", f"{report}: {', '.join(metrics[:METRICS_SHOWN])}{more}")
    yield from ("  " + line for line in table(list(signal_rows(teacher["signals"])), right_from=4))
    for student, signals in sorted(_teaches(teacher["signals"]).items()):
        yield from _wrapped("of use", f"to {student}: {', '.join(signals)}")


def _kept(pixels: Mapping[str, Any]) -> str:
    """How a view's frames are kept, and what they take."""
    lost = (
        f" of quality {pixels['quality']}, PSNR {_short(pixels['psnr_db'])} dB" if pixels["quality"] else ""
    )
    return f"{pixels['frames']:,} frames kept as {pixels['encoding']}{lost}: {pixels['bytes']:,} bytes"


def _encoding(signal: Mapping[str, Any]) -> str:
    """How a signal is stored, what was left of its tokens included: "int8, pool2x2, 256 directions"."""
    tokens, width = signal["reduction"]["tokens"], signal["reduction"]["width"]
    left = [] if tokens == ALL_TOKENS else [tokens]
    return ", ".join([signal["encoding"], *left, *([] if width is None else [f"{width} directions"])])


def _teaches(signals: Mapping[str, Any]) -> dict[str, list[str]]:
    """Who needs what: the signals of this teacher that each student can be taught with."""
    found: dict[str, list[str]] = {}
    for name, signal in signals.items():
        for student in signal["needed_by"]:
            found.setdefault(student, []).append(name)
    return found


def signal_rows(signals: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A table of the signals that `gather` tells, first its head: axes, shape, encoding, bytes, errors."""
    measured = {error for signal in signals.values() for error in signal["errors"]}
    cosine = tuple(name for name in ("min_cosine", "mean_cosine") if name in measured)
    titles = (name.replace("_", " ") for name in cosine)
    yield ("signal", "axes", "shape", "encoding", "bytes", *titles, "max abs error", "error (relative L2)")
    for name, signal in signals.items():
        errors = signal["errors"]
        yield (
            name,
            ",".join(signal["axes"]),
            " x ".join(map(str, signal["shape"])),
            _encoding(signal),
            f"{signal['bytes']:,}",
            *(f"{errors[key]:.6f}" if key in errors else "-" for key in cosine),
            *(f"{errors[key]:.2e}" if key in errors else "-" for key in ("max_abs", "relative_l2")),
        )


def _wrapped(label: str, text: str) -> list[str]:
    indent = " " * 11
    lines = textwrap.wrap(text, TEXT_COLUMNS) or [""]
    return [f"  {label:<8} {lines[0]}", *(indent + line for line in lines[1:])]


def _flattened(value: Any, where: str = "") -> Iterator[str]:
    """ "seconds.frames 1.2" for every leaf of a report."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flattened(inner, f"{where}.{key}" if where else key)
    else:
        yield f"{where} {_short(value)}"


def _short(value: object) -> str:
    """Nested values in one line, digests cut to twelve places, numbers to six."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_short(inner)}" for key, inner in sorted(value.items())) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(_short(inner) for inner in value) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text[:12] + "..." if len(text) == 64 else text


def table(rows: Sequence[Sequence[str]], right_from: int) -> list[str]:
    """Lines of a table with a rule under the first row; columns from `right_from` on align right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column >= right_from else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "info", help="what is inside a cache: signals, shapes, bytes, errors, identity, licence"
    )
    parser.add_argument("cache", type=cache_place, help="folder or URL of the cache")
    add_chunk_cache(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON, for scripts")
    parser.set_defaults(execute=run_info)
    add_debug(parser)


def run_info(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps(gather(arguments.cache), indent=2))  # ASCII only: nothing a terminal would obey
    else:
        print(describe(arguments.cache))
    return 0
