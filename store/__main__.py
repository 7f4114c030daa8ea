"""python -m store: look into, check, compare, share a cache; its card; remove a teacher; datasets, frames."""

from __future__ import annotations

import argparse
import sys

from store import card_command, dataset_command, diff, frames_command, info, remove, verify
from store.cli import run_cli
from store.remote import pull_command, push_command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    looking = (info, verify, diff, remove, card_command, dataset_command, frames_command)
    for module in (*looking, push_command, pull_command):
        module.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(run_cli(build_parser()))
