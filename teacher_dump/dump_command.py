"""python -m teacher_dump dump: tell what it will cost, refuse what does not fit, run; or only plan."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from store.card_command import add_terms
from store.cli import HelpFormatter, add_debug, from_zero
from store.errors import CacheError, InputError
from teacher_dump import report_command
from teacher_dump.dump_card import is_finished, with_terms, write_dump_card
from teacher_dump.dump_options import add_dump_options
from teacher_dump.estimates.command import add_estimate_options, add_extend, estimates_of
from teacher_dump.opened_dump import cache_path, opened_dump
from teacher_dump.workers.options import add_executor_options

if TYPE_CHECKING:
    from store.reader import Cache
    from teacher_dump.estimates.estimate import Estimate
    from teacher_dump.planned_dump import PlannedDump


def add_command(commands: Any) -> None:
    """`commands`: the sub-parsers of python -m teacher_dump."""
    dump: argparse.ArgumentParser = commands.add_parser(
        "dump", help="write a teacher's signals into a cache", formatter_class=HelpFormatter
    )
    dump.set_defaults(execute=execute)
    add_dump_options(dump)
    add_executor_options(dump)
    add_estimate_options(dump)
    dump.add_argument("--dry-run", action="store_true", help="print the tasks and write nothing")
    dump.add_argument("--json", action="store_true", help="with --dry-run: as JSON, for scripts")
    add_extend(dump)
    dump.add_argument("--max-failures", type=from_zero, nargs="?", const=0, metavar="N",
                      help="exit 1 if more than N videos fail (without a number: any)")  # fmt: skip
    report_command.add_expectation(dump)
    add_terms(dump)
    dump.set_defaults(default_of=dump.get_default)
    add_debug(dump)


def execute(arguments: argparse.Namespace) -> int:
    if arguments.json and not arguments.dry_run:
        raise InputError("--json prints the tasks of --dry-run; say that too, or leave it out")
    path = cache_path(arguments)
    with opened_dump(arguments) as opened:
        from teacher_dump.dump import dump
        from teacher_dump.estimates.estimate import require_room
        from teacher_dump.planned_dump import planned_dumps

        samples, teacher, settings, executor = (
            opened.samples,
            opened.teacher,
            opened.settings,
            opened.executor,
        )
        if arguments.dry_run:
            parts = planned_dumps(path, samples, teacher, settings, executor, arguments.extend)
            print(json.dumps(plain(parts), indent=2) if arguments.json else told(parts))
            return 0
        found = estimates_of(arguments, opened)
        print(told(found), flush=True)
        require_room(found)
        samples, was_finished = with_terms(samples, path, arguments), is_finished(path)
        cache = dump(path, samples, teacher, settings, opened.prepared, executor, arguments.extend)
    complaint = report_command.report_teacher(cache, teacher.name, arguments.expect_r1)
    write_dump_card(cache, teacher.name, arguments, arguments.default_of, was_finished)
    return report_command.told([complaint, summarise(cache, teacher.name, arguments.max_failures)])


def told(parts: Sequence[PlannedDump] | Sequence[Estimate]) -> str:
    return "\n".join(line for part in parts for line in part.lines())


def plain(parts: Sequence[PlannedDump]) -> dict[str, Any] | list[dict[str, Any]]:
    """JSON of one part, or of a list of several."""
    found = [part.to_dict() for part in parts]
    return found if len(found) > 1 else found[0]


def summarise(cache: Cache, teacher: str, max_failures: int | None) -> str | None:
    """Print what is in the cache and which videos failed; what to say if those are too many."""
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
    if max_failures is None or len(failures) <= max_failures:
        return None
    return f"{len(failures)} videos failed, more than --max-failures {max_failures}; the cache is finished"
