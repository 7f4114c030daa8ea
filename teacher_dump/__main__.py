"""python -m teacher_dump dump | recheck | fit | teachers: stage 1, from videos to a cache of signals."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from store.cli import HelpFormatter, add_debug, run_cli
from store.errors import CacheError
from store.inputs.datasets import load_dataset, prepare_dataset
from store.lookup import check_name, plugin_names
from store.teacher_report import expected_split, parse_expectation
from teacher_dump import catalogue, recheck_command, report_command, teachers
from teacher_dump.dump_options import add_dump_options, dump_settings, parse_layers, teacher_options
from teacher_dump.executor_options import add_executor_options
from teacher_dump.fitting import command
from teacher_dump.settings import LOCAL, SERIAL, checked_executor

if TYPE_CHECKING:
    from store.reader import Cache


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m teacher_dump", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dump = commands.add_parser(
        "dump", help="write a teacher's signals into a cache", formatter_class=HelpFormatter
    )
    dump.set_defaults(execute=run_dump)
    add_dump_options(dump)
    add_executor_options(dump)
    dump.add_argument("--extend", action="store_true",
                      help="append rows that the dataset has behind those of the cache, and signals that its "
                      "teacher lacks; what is there stays as it is")  # fmt: skip
    dump.add_argument("--max-failures", type=int, nargs="?", const=0, metavar="N",
                      help="exit 1 if more than N videos fail (without a number: any)")  # fmt: skip
    report_command.add_expectation(dump)
    add_debug(dump)
    command.add_command(commands)
    catalogue.add_command(commands)
    report_command.add_command(commands)
    recheck_command.add_command(commands)
    return parser


def run_dump(arguments: argparse.Namespace) -> int:
    data = (arguments.data or Path("data") / arguments.dataset).absolute()
    cache_path = arguments.cache or Path("caches") / f"{arguments.dataset}.zarr"
    check_name("teacher", arguments.teacher, plugin_names(teachers))
    checked_executor(arguments.executor)
    layers, settings = parse_layers(arguments.layers), dump_settings(arguments)
    prepared = prepare_dataset(arguments.dataset, data)
    load_samples = partial(load_dataset, arguments.dataset, data, arguments.allow_missing)
    samples = load_samples()
    if arguments.expect_r1 is not None:
        expected_split(samples.splits, parse_expectation(arguments.expect_r1)[0])

    from teacher_dump.dump import dump
    from teacher_dump.executors import open_executor
    from teacher_dump.jobs import Sources, load_teacher

    options = teacher_options(arguments, layers)
    in_worker = options.absolute()
    if arguments.executor.startswith(LOCAL):
        in_worker = replace(in_worker, device=settings.device)
    sources = Sources(load_samples, partial(load_teacher, arguments.teacher, in_worker))
    if arguments.executor != SERIAL:
        options = replace(options, device="cpu")
    teacher = load_teacher(arguments.teacher, options)
    with open_executor(arguments.executor, sources, arguments.device, arguments.worker_memory_gb) as executor:
        cache = dump(cache_path, samples, teacher, settings, prepared, executor, arguments.extend)
    return max(
        report_command.report_teacher(cache, teacher.name, arguments.expect_r1),
        summarise(cache, teacher.name, arguments.max_failures),
    )


def summarise(cache: Cache, teacher: str, max_failures: int | None) -> int:
    """Print what is in the cache and which videos failed; the exit status."""
    from store.info import describe

    print(describe(cache.path))
    failures = cache.teacher(teacher).failures
    videos = len(cache.video_ids)
    if failures:
        print(f"\n{len(failures)} of {videos} videos failed and are left out:")
        for row, reason in failures.items():
            print(f"  {cache.video_ids[row]}: {reason}")
        print("To try them again (mended, or with a longer --time-limit), delete the cache and dump anew.")
    if len(failures) == videos:
        raise CacheError("not one video could be decoded; nothing can be trained from this cache")
    return 1 if max_failures is not None and len(failures) > max_failures else 0


if __name__ == "__main__":
    sys.exit(run_cli(build_parser()))
