"""python -m teacher_dump report: what the teachers in a cache retrieve on their own; dump ends with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.cli import FAILED, add_debug
from store.errors import InputError
from store.teacher_report import (
    compared,
    complaint,
    lines,
    parse_expectation,
    stated_before,
    teacher_report,
    write_report,
)

if TYPE_CHECKING:
    from store.reader import Cache


def add_command(commands: Any) -> None:
    """`commands`: the sub-parsers of python -m teacher_dump."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "report", help="a teacher's own R@1 or top-1 on each evaluation split, from the cache"
    )
    parser.add_argument("cache", type=Path, help="folder of the cache")
    parser.add_argument("--teacher", help="(default: all)")
    add_expectation(parser)
    add_debug(parser)
    parser.set_defaults(execute=execute)


def add_expectation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--expect-r1", metavar="[SPLIT=]PERCENT",
                        help="the published R@1 from text to video, or top-1; exit 1 if the teacher's own is "
                        "more than a point away (default split: test); it holds for later reports too, until "
                        "another number or none is given")  # fmt: skip


def execute(arguments: argparse.Namespace) -> int:
    from store.card import write_card
    from store.reader import open_cache

    cache = open_cache(arguments.cache)
    names = [arguments.teacher] if arguments.teacher else cache.teacher_names
    if arguments.expect_r1 is not None and len(names) > 1:
        raise InputError(
            f"--expect-r1 is what was published of one teacher, {cache.path.name} holds {len(names)}; choose "
            f"one with --teacher {' | '.join(names)}"
        )
    complaints = [report_teacher(cache, name, arguments.expect_r1) for name in names]
    write_card(cache.path)
    return told(complaints)


def told(complaints: Iterable[str | None]) -> int:
    """Print what speaks against teachers, as errors; the exit status."""
    found = [reason for reason in complaints if reason is not None]
    for reason in found:
        print(f"error: {reason}", file=sys.stderr)
    return FAILED if found else 0


def report_teacher(cache: Cache, teacher: str, expectation: str | None) -> str | None:
    """Compute, keep and print the report; what speaks against the teacher. Raises InputError for another
    spelling.

    Without an `expectation`, one that was stated before still holds.
    """
    report = teacher_report(cache.teacher(teacher))
    stated = stated_before(cache, teacher) if expectation is None else parse_expectation(expectation)
    if stated is not None:
        report = compared(report, *stated)
    write_report(cache, teacher, report)
    print("\n".join(lines(teacher, report)))
    reason = complaint(report)
    return None if reason is None else f"teacher {teacher!r}: {reason}"
