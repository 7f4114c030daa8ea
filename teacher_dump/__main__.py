"""python -m teacher_dump dump | estimate | recheck | fit | ...: stage 1, videos to a cache of signals."""

from __future__ import annotations

import argparse
import sys

from store.cli import run_cli
from teacher_dump import catalogue, dump_command, reencode_command, report_command
from teacher_dump.estimates import command as estimate_command
from teacher_dump.fitting import command as fit_command
from teacher_dump.rechecks import command as recheck_command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m teacher_dump", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dump_command.add_command(commands)
    estimate_command.add_command(commands)
    recheck_command.add_command(commands)
    report_command.add_command(commands)
    reencode_command.add_command(commands)
    fit_command.add_command(commands)
    catalogue.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(run_cli(build_parser()))
