"""python -m store verify: is every object of a finished cache there, whole, and in agreement with the others?

Nothing stops at the first fault: every fault becomes a `Fault` that names its object, and a group whose
manifest is gone hides no other. Memory is bounded by the tables and by a few MB a thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from store.cli import add_debug
from store.reader import no_cache
from store.untrusted import printable
from store.verification import Report, Verification

FAULTS_SHOWN = 100


def verify(path: Path, teacher: str | None = None, sample: float = 1.0, progress: bool = False) -> Report:
    """Check the finished cache at `path`; of its teachers only `teacher` and its view, if that is given.

    sample: share of the shards whose bytes are read; sizes, indices, tables and metadata are checked in any
    case. Raises MissingFileError, IncompleteCacheError or DamagedCacheError if there is no manifest to
    check by, UnknownNameError for a teacher that is not there.
    """
    if not path.is_dir():
        raise no_cache(path)
    return Verification(path).run(teacher, sample, progress)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "verify", help="is every object there and whole, every row covered, every number finite?"
    )
    parser.add_argument("cache", type=Path, help="folder of the cache")
    parser.add_argument(
        "--teacher", metavar="X", help="only this teacher, its view and the tables (default: all)"
    )
    parser.add_argument(
        "--sample",
        type=share,
        default=1.0,
        metavar="P",
        help="read only this share of the shards, drawn anew each time; sizes, indices, tables always",
    )
    parser.set_defaults(execute=run_verify)
    add_debug(parser)


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def run_verify(arguments: argparse.Namespace) -> int:
    report = verify(arguments.cache, arguments.teacher, arguments.sample, progress=True)
    for fault in report.faults[:FAULTS_SHOWN]:
        print(f"{printable(fault.path)}: {printable(fault.problem)}")
    if report.count > FAULTS_SHOWN:
        print(f"... and {report.count - FAULTS_SHOWN:,} more")
    for note in report.notes:
        print(f"note: {printable(note)}")
    told = f"{report.read:,} of {report.objects:,} objects read, {report.bytes:,} bytes"
    print(f"{report.count:,} fault{'s' * (report.count > 1)}; {told}" if report.count else f"sound: {told}")
    return 1 if report.count else 0
