"""python -m teacher_dump estimate: what a dump with the same options will cost; writes nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from store.cli import HelpFormatter, add_debug
from store.errors import InputError
from store.lookup import check_name, load_plugin, plugin_names
from teacher_dump import teachers
from teacher_dump.dump_options import add_dump_options, dump_settings, parse_layers, teacher_options
from teacher_dump.opened_dump import OpenedDump, cache_path, opened_dump
from teacher_dump.settings import LOCAL, SERIAL
from teacher_dump.workers.options import add_executor_options

if TYPE_CHECKING:
    from teacher_dump.estimates.estimate import Estimate
    from teacher_dump.models.frozen import FrozenTeacher
    from teacher_dump.teachers.base import Teacher

DOES_NOT_FIT = 1
MOST_ROWS = 1_000_000_000


def add_command(commands: Any) -> None:
    """`commands`: the sub-parsers of python -m teacher_dump."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "estimate",
        help="bytes, disk, seconds, memory of a dump with the same options; exit 1 if it does not fit",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(execute=execute)
    add_dump_options(parser)
    add_executor_options(parser)
    add_estimate_options(parser)
    add_extend(parser)
    parser.add_argument(
        "--videos", type=a_number, help="reckon with as many, without a dataset; wants --texts"
    )
    parser.add_argument("--texts", type=a_number, help="reckon with as many, without a dataset")
    parser.add_argument(
        "--table", action="store_true", help="what each layout takes for MSR-VTT, VATEX and WebVid-10M"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, for scripts")
    add_debug(parser)


def add_estimate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-measure", action="store_true",
                        help="count bytes, but run no batch for seconds and memory")  # fmt: skip


def add_extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--extend", action="store_true",
                        help="append rows that the dataset has behind those of the cache, and signals that "
                        "its teacher lacks; what is there stays as it is")  # fmt: skip


def a_number(text: str) -> int:
    """A whole number from 1 on, for argparse; datasets have more rows than `at_least_one` allows."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST_ROWS:,}")
    return number


def execute(arguments: argparse.Namespace) -> int:
    from teacher_dump.estimates.estimate import all_fit

    if arguments.table:
        from teacher_dump.estimates.layout_table import layout_lines

        print("\n".join(layout_lines()))
        return 0
    if (arguments.videos is None) != (arguments.texts is None):
        raise InputError("--videos and --texts go together: give both, or a dataset")
    if arguments.videos is not None:
        found = [estimate_of_numbers(arguments)]
    else:
        with opened_dump(arguments) as opened:
            found = estimates_of(arguments, opened)
    if arguments.json:
        told = [part.to_dict() for part in found]
        print(json.dumps(told if len(told) > 1 else told[0], indent=2))
    else:
        print("\n".join(line for part in found for line in part.lines()))
    fits = all_fit(found)
    if not fits and not arguments.json:
        print("\n".join(["it does not fit; instead:", *fitting_lines(found[0])]))
    return 0 if fits else DOES_NOT_FIT


def estimates_of(arguments: argparse.Namespace, opened: OpenedDump) -> list[Estimate]:
    """Of each part of the dump that `arguments` ask for."""
    from teacher_dump.estimates.estimating import estimates

    device = opened.settings.device
    workers = None if arguments.no_measure else workers_here(arguments.executor, device, opened.teacher)
    return estimates(cache_path(arguments), opened, workers, arguments.extend)


def workers_here(executor: str, device: str | None, teacher: Teacher) -> int | None:
    """How many processes of this machine run tasks as fast as this one would; None where they do not."""
    if device is not None and device.partition(":")[0] != teacher.device.type:
        return None
    if executor == SERIAL:
        return 1
    kind, _, count = executor.partition(":")
    return int(count) if kind == LOCAL else None


def estimate_of_numbers(arguments: argparse.Namespace) -> Estimate:
    """Without dataset, and where no weights are given, with the teacher at its published size, or at that of
    --architecture."""
    import torch

    from store.layout import TableCounts
    from teacher_dump.estimates.estimating import estimate_sizes
    from teacher_dump.models.open_clip_models import RANDOM
    from teacher_dump.workers.jobs import load_teacher

    check_name("teacher", arguments.teacher, plugin_names(teachers))
    asked = teacher_options(arguments, parse_layers(arguments.layers))
    if asked.checkpoint is None and asked.pretrained is None and asked.architecture is None:
        with torch.device("meta"):
            published: FrozenTeacher = load_plugin(teachers, "teacher", arguments.teacher).official(asked)
        teacher: Teacher = published.seen_in(asked.clips or 1, asked.crops or 1)
    else:
        if asked.checkpoint is None and asked.pretrained is None:
            asked = replace(asked, pretrained=RANDOM)  # their numbers don't matter here
        teacher = load_teacher(arguments.teacher, asked)
    counts = TableCounts(arguments.videos, arguments.texts)
    return estimate_sizes(cache_path(arguments), teacher, counts, dump_settings(arguments))


def fitting_lines(found: Estimate) -> Iterator[str]:
    """What could be stored instead, and whether it would fit."""
    from teacher_dump.estimates.planned_bytes import readable

    for other in found.others:
        mark = "fits" if other.fits(found.free_bytes) else ""
        yield f"  {mark:4}  {readable(other.bytes):>10}  {other.options}"
