"""python -m store info | frames | dataset: look into a cache, or at a dataset's files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from store.cli import add_debug, run_cli
from store.dataset_command import add_command as add_dataset_command
from store.frames_command import add_command as add_frames_command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    info = commands.add_parser(
        "info", help="what is inside a cache: signals, shapes, bytes, errors, identity"
    )
    info.set_defaults(execute=run_info)
    info.add_argument("cache", type=Path, help="folder of the cache")
    add_debug(info)
    add_frames_command(commands)
    add_dataset_command(commands)
    return parser


def run_info(arguments: argparse.Namespace) -> int:
    from store.info import describe

    print(describe(arguments.cache))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(build_parser()))
