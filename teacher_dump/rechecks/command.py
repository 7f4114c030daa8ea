"""python -m teacher_dump recheck: does the teacher still say what the cache holds, and if not, why?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.card import write_card
from store.cli import HelpFormatter, add_debug, at_least_one, from_zero
from store.durable import canonical_json, read_json, write_file
from store.errors import InputError, MissingFileError, UnknownNameError
from store.identity import PLUGIN
from store.inputs.datasets import dataset_names, load_dataset
from store.lookup import check_name, plugin_names
from store.reader import Cache, open_cache
from store.seen_frames import FoundFiles
from store.untrusted import printable, shown
from teacher_dump import teachers
from teacher_dump.dump_options import add_teacher_options, parse_layers, teacher_options
from teacher_dump.rechecks.dumped_options import as_dumped, plugin_of

if TYPE_CHECKING:
    from teacher_dump.rechecks.comparison import Comparison
    from teacher_dump.rechecks.recheck import Recheck

REPORT = "recheck.json"
SHOWN = 5


def add_command(commands: Any) -> None:
    """`commands`: the sub-parsers of python -m teacher_dump."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "recheck",
        help="re-run a teacher on sampled rows of a cache; exit 1, with what to suspect, if it deviates",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("cache", type=Path, help="folder of the cache")
    parser.add_argument("--sample", type=at_least_one, default=64, help="videos, and texts, to look at")
    parser.add_argument("--seed", type=from_zero, default=0, help="of the draw; another looks at other rows")
    parser.add_argument(
        "--data",
        type=Path,
        help="the dataset as for dump, or a folder of its videos (default: data/<dataset>)",
    )
    parser.add_argument("--dataset", help="how to read --data (default: as the cache says)")
    add_teacher_options(parser)
    parser.set_defaults(teacher=None, dtype=None)
    parser.add_argument("--decoders", type=at_least_one, default=2, help="processes that decode videos")
    parser.add_argument(
        "--time-limit", type=float, default=60.0, help="seconds that decoding one video may take"
    )
    parser.add_argument(
        "--memory-limit-mb", type=at_least_one, default=2048, help="megabytes that decoding one may take"
    )
    add_debug(parser)


def execute(arguments: argparse.Namespace) -> int:
    cache = open_cache(arguments.cache)
    reader = cache.teacher(chosen_teacher(cache, arguments.teacher))
    check_name("teacher", plugin_of(reader), plugin_names(teachers))
    paths = video_files(cache, arguments.dataset, arguments.data)

    from store.inputs.decode_pool import Limits
    from teacher_dump.rechecks.recheck import RecheckSettings, recheck
    from teacher_dump.workers.jobs import load_teacher

    limits = Limits(arguments.time_limit, arguments.memory_limit_mb)
    settings = RecheckSettings(arguments.sample, arguments.seed, arguments.decoders, limits)
    asked = as_dumped(arguments, reader)
    name = reader.name if PLUGIN in reader.identity else asked.teacher
    teacher = load_teacher(asked.teacher, teacher_options(asked, parse_layers(asked.layers)), name)
    found = recheck(reader, teacher, paths, settings)
    path = write_report(cache, found)
    write_card(cache.path)
    print("\n".join(lines(found, cache)))
    print(f"written to {path}")
    return 0 if found.holds else 1


def chosen_teacher(cache: Cache, name: str | None) -> str:
    """`name`, or the cache's only teacher; raises InputError, UnknownNameError that list what there is."""
    if name is None and len(cache.teacher_names) != 1:
        raise InputError(
            f"{cache.path.name} holds {len(cache.teacher_names)} teachers; choose one with --teacher "
            f"{' | '.join(cache.teacher_names)}"
        )
    chosen = cache.teacher_names[0] if name is None else name
    check_name("teacher", chosen, cache.teacher_names)
    return chosen


def video_files(cache: Cache, dataset: str | None, data: Path | None) -> dict[int, Path]:
    """Video row -> file at `data`, of the cache's videos that are there.

    A dataset that is known by its name is read as a dump reads it, a file as a table; in any other folder
    files are found by the videos' ids. Raises MissingFileError where there is nothing.
    """
    name = dataset or str(cache.dataset["name"])
    place = data or Path("data") / name
    reader = "table" if place.is_file() else name
    try:
        check_name("dataset", reader, dataset_names())
        by_id = {video.id: video.path for video in load_dataset(reader, place, allow_missing=True).videos}
    except (MissingFileError, UnknownNameError):
        if dataset is not None or not place.is_dir():
            raise
        files = FoundFiles.below(place)
        by_id = {video_id: path for video_id in cache.video_ids if (path := files.of(video_id)) is not None}
    return {row: by_id[video_id] for row, video_id in enumerate(cache.video_ids) if video_id in by_id}


def write_report(cache: Cache, found: Recheck) -> Path:
    """Put what was found of a teacher into reports/recheck.json, which lies outside every digest."""
    path = cache.reports_dir / REPORT
    report = read_json(path) if path.exists() else {"teachers": {}}
    report["teachers"][found.teacher] = found.to_dict()
    write_file(path, canonical_json(report))
    return path


def lines(found: Recheck, cache: Cache) -> Iterator[str]:
    """What a person wants to know."""
    yield (
        f"{cache.path.name}, teacher {found.teacher}: {len(found.videos)} videos and "
        f"{len(found.texts)} texts (seed {found.seed})"
    )
    frames = (
        f"{len(found.other_frames)} of {len(found.videos)} videos differ" if found.other_frames else "same"
    )
    yield f"  {'frames':34} {frames}"
    for row, difference in list(found.other_frames.items())[:SHOWN]:
        yield f"      {printable(cache.video_ids[row])} {difference}"
    yield from (f"  {c.signal:34} {verdict(c)}" for c in found.comparisons)
    for name, (stored, here) in found.identity.items():
        yield f"  identity differs in {name}: stored {shown(stored)}, here {shown(here)}"
    for suspicion in found.suspicions:
        yield f"suspect {suspicion.what}: {suspicion.why}"
    yield "holds" if found.holds else "does not hold"


def verdict(c: Comparison) -> str:
    """How one signal compares."""
    if not c.rows:
        return "no row of it in the sample"
    worst = float(c.errors.max(initial=0.0))
    if not c.deviates and worst == 0:
        return f"same in {len(c.rows)} rows"
    told = f"DEVIATES in {len(c.deviating)} of" if c.deviates else "within tolerance in"
    ranks = "" if c.rank_agreement is None else f", ranks agree {c.rank_agreement:.3f}"
    return (
        f"{told} {len(c.rows)} rows: relative L2 {c.relative_l2:.1e} (worst row {worst:.1e}, tolerance "
        f"{c.tolerance:.0e}), cosine from {c.min_cosine:.6f}, max abs {c.max_abs:.1e}{ranks}"
    )
